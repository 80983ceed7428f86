"""The databases of dpkg and apk, which are text.

Sources: deb822(5) and dpkg(1), "PACKAGE STATES"; apk-tools, doc/apk-package(5), "installed database".
"""

import re
from collections.abc import Iterator

from osc_containers.inject.packages.record import APK, DEB, Record, field

# Lines of blanks may separate paragraphs as well (deb822(5)).
_EMPTY_LINES = re.compile(rb"\n[ \t]*\n\s*")


def dpkg(content: bytes) -> Iterator[Record]:
    """Yield the installed packages in a `status` file, or in one of `status.d`, which has no states."""
    for paragraph in _EMPTY_LINES.split(content):
        values: dict[bytes, bytes] = {}
        for line in paragraph.split(b"\n"):
            # Lines that begin with a blank continue a field, and no field that counts has several lines.
            key, colon, value = line.partition(b":")
            if colon and not key[:1].isspace():
                values.setdefault(key.lower(), value)
        # The field has three words: the wanted state, an error flag, and the state that counts.
        is_installed = values.get(b"status", b"installed").split()[-1:] == [b"installed"]
        if is_installed and values.get(b"package", b"").strip():
            yield Record(
                kind=DEB,
                name=field(values[b"package"]),
                version=field(values.get(b"version", b"")),
                arch=field(values.get(b"architecture", b"")),
            )


def apk(content: bytes) -> Iterator[Record]:
    """Yield the packages in an `installed` file."""
    for paragraph in content.split(b"\n\n"):
        values: dict[bytes, bytes] = {}
        for line in paragraph.split(b"\n"):
            if line[1:2] == b":":
                values.setdefault(line[:1], line[2:])
        if values.get(b"P", b"").strip():
            yield Record(
                kind=APK,
                name=field(values[b"P"]),
                version=field(values.get(b"V", b"")),
                arch=field(values.get(b"A", b"")),
                license=field(values.get(b"L", b"")),
            )
