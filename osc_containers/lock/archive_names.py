"""File names made from references: of archives in the package, of archives and units in the image.

A name is made of the reference alone, so that it does not change with the company it is in; only where two references
of one package would get the same name does each of them get a short hash as well.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference

ARCHIVE_SUFFIX = ".ociarchive"
_LENGTH = 160
"""Characters of a flattened reference at most, without its hash; with architecture, backend and suffixes it then fits
NAME_MAX (255)."""
_HASHES = (0, 8, 32)
"""Characters of the hash: most names need none, and no two references share the longest."""


def flatten(references: Iterable[Reference]) -> Mapping[Reference, str]:
    """Map each reference to a distinct name of letters, digits, `.`, `-` and `_`, not beginning with a dot.

    Names that differ in nothing but case count as one: a package may be checked out where they are one file.
    """
    levels = {reference: int(len(str(reference)) > _LENGTH) for reference in sorted(set(references), key=str)}
    while True:
        flat = {reference: _name(reference, _HASHES[level]) for reference, level in levels.items()}
        count = Counter(name.lower() for name in flat.values())
        # A hash may clash too, by chance or because somebody tags an image like the hashed name of another.
        clashing = [r for r, name in flat.items() if count[name.lower()] > 1 and levels[r] < len(_HASHES) - 1]
        if not clashing:
            return flat
        for reference in clashing:
            levels[reference] += 1


def _name(reference: Reference, digits: int) -> str:
    plain = re.sub(r"[^A-Za-z0-9.-]", "_", str(reference))[:_LENGTH]
    return f"{plain}-{Digest.of(str(reference).encode()).hex[:digits]}" if digits else plain


def archive(flat: str, arch: str) -> str:
    """Return the file name of the archive of a flattened reference for a kiwi architecture."""
    return f"{flat}.{arch}{ARCHIVE_SUFFIX}"
