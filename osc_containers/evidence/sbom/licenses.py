"""SPDX licence expressions in the labels of images. Only what is certainly one gets into an SBOM as such.

Source: SPDX 2.3, Annex D. The list has the licences that images of distributions and of vendors name. A document with
an identifier that a validator does not know is not valid, and one without it says a little less.
"""

import re

_LICENSES = frozenset(
    re.findall(
        r"\S+",
        """
    0BSD AFL-2.1 AFL-3.0 AGPL-3.0-only AGPL-3.0-or-later Apache-1.1 Apache-2.0 Artistic-1.0 Artistic-2.0
    BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent BSD-3-Clause BSD-4-Clause BSL-1.0 BUSL-1.1 CC-BY-3.0 CC-BY-4.0
    CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0 CDDL-1.0 CDDL-1.1 CPL-1.0 ECL-2.0 EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2 FTL
    GFDL-1.3-only GFDL-1.3-or-later GPL-1.0-only GPL-1.0-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only
    GPL-3.0-or-later HPND ICU IJG ISC LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only
    LGPL-3.0-or-later Libpng MIT MIT-0 MPL-1.1 MPL-2.0 MS-PL NCSA OFL-1.1 OLDAP-2.8 OpenSSL PHP-3.01 PostgreSQL
    PSF-2.0 Python-2.0 Ruby SSPL-1.0 TCL UPL-1.0 Unicode-DFS-2016 Unlicense Vim W3C WTFPL X11 Zlib ZPL-2.1 curl
    """,
    )
)
_EXCEPTIONS = frozenset(
    re.findall(
        r"\S+",
        """
    Autoconf-exception-3.0 Bison-exception-2.2 Classpath-exception-2.0 Font-exception-2.0 GCC-exception-2.0
    GCC-exception-3.1 LLVM-exception Linux-syscall-note OpenJDK-assembly-exception-1.0 openvpn-openssl-exception
    """,
    )
)
_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")
_LENGTH, _DEPTH = 1000, 20


def expression(text: str) -> str:
    """Return a licence expression in one spelling, or an empty text if it is not certainly one."""
    if len(text) > _LENGTH:
        return ""
    tokens = _TOKEN.findall(text)
    # Each parenthesis is one level of recursion in `_read`.
    if not tokens or tokens.count("(") > _DEPTH:
        return ""
    end = _read(tokens, 0)
    if end != len(tokens):
        return ""
    return " ".join(tokens).replace("( ", "(").replace(" )", ")")


def _read(tokens: list[str], at: int) -> int:
    """Return where the expression that begins at a token ends; -1 if none begins there."""
    while True:
        if at >= len(tokens):
            return -1
        if tokens[at] == "(":
            at = _read(tokens, at + 1)
            if at < 0 or at >= len(tokens) or tokens[at] != ")":
                return -1
            at += 1
        elif tokens[at] in _LICENSES:
            at += 1
            if tokens[at : at + 1] == ["WITH"]:
                if not set(tokens[at + 1 : at + 2]) & _EXCEPTIONS:
                    return -1
                at += 2
        else:
            return -1
        if at == len(tokens) or tokens[at] not in ("AND", "OR"):
            return at
        at += 1
