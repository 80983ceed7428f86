"""File names made from references: of archives in the package, of archives and units in the image.

A name is made of the reference alone, so that it does not change with the company it is in; only where two references
of one package would get the same name does each of them get a short hash as well.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from osc_containers.digest import Digest
from osc_containers.reference import Reference

ARCHIVE_SUFFIX = ".ociarchive"
_LENGTH = 160
"""Characters of a flattened reference at most; with architecture, backend and suffixes it then fits NAME_MAX (255)."""


def flatten(references: Iterable[Reference]) -> Mapping[Reference, str]:
    """Map each reference to a distinct name of letters, digits, `.`, `-` and `_`, not beginning with a dot."""
    plain = {
        reference: re.sub(r"[^A-Za-z0-9.-]", "_", str(reference)) for reference in sorted(set(references), key=str)
    }
    count = Counter(name[:_LENGTH].lower() for name in plain.values())
    return {
        reference: name if count[name[:_LENGTH].lower()] == 1 and len(name) <= _LENGTH else _hashed(reference, name)
        for reference, name in plain.items()
    }


def _hashed(reference: Reference, name: str) -> str:
    return f"{name[:_LENGTH]}-{Digest.of(str(reference).encode()).hex[:8]}"


def archive(flat: str, arch: str) -> str:
    """Return the file name of the archive of a flattened reference for a kiwi architecture."""
    return f"{flat}.{arch}{ARCHIVE_SUFFIX}"
