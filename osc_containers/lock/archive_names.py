"""File names: of archives and blobs in the package, and of archives and units in the image.

The name of an archive depends on its reference only, so adding another container does not change it. The exception is
that two references of a package would get the same name: then a short hash is appended to both.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference

ARCHIVE_SUFFIX = ".ociarchive"
BLOB_SUFFIX = ".blob"
_LENGTH = 160
"""Characters of a flattened reference; a hash, architecture, backend and suffixes then fit in NAME_MAX (255)."""
_HASH_LENGTHS = (0, 8, 32)
"""Characters of the hash: none usually, more if names clash. Hashes of the last length never clash in practice."""


def flatten(references: Iterable[Reference]) -> Mapping[Reference, str]:
    """Map each reference to a distinct name of letters, digits, `.`, `-` and `_`, not beginning with a dot.

    Names are distinct even if case is ignored, because a package may be checked out on such a file system.
    """
    # A name that has to be cut gets a hash from the start, which stands for the part that is missing.
    levels = {reference: int(len(str(reference)) > _LENGTH) for reference in sorted(set(references), key=str)}
    # Each round gives longer hashes to all names that clash, until no two are equal.
    while True:
        flat = {reference: _name(reference, _HASH_LENGTHS[level]) for reference, level in levels.items()}
        counts = Counter(name.lower() for name in flat.values())
        # Names with a hash may clash, too: by chance, or because the tag of one image looks like the hash of another.
        clashing = [r for r, name in flat.items() if counts[name.lower()] > 1 and levels[r] < len(_HASH_LENGTHS) - 1]
        if not clashing:
            return flat
        for reference in clashing:
            levels[reference] += 1


def _name(reference: Reference, digits: int) -> str:
    plain = re.sub(r"[^A-Za-z0-9.-]", "_", str(reference))[:_LENGTH]
    return f"{plain}-{Digest.of(str(reference).encode()).hex[:digits]}" if digits else plain


def archive(flat: str, arch: str) -> str:
    """Return the file name of an archive, by the flattened reference and the kiwi architecture."""
    return f"{flat}.{arch}{ARCHIVE_SUFFIX}"


def blob(digest: Digest) -> str:
    """Return the file name of a blob."""
    return f"{digest.algorithm}-{digest.hex}{BLOB_SUFFIX}"


def digest_of_blob(name: str) -> Digest | None:
    """Return the digest in the file name of a blob, or None for any other name."""
    if not name.endswith(BLOB_SUFFIX):
        return None
    # OBS names the output of a service `_service:SERVICE:FILE`.
    name = name.rpartition(":")[2] if name.startswith("_service:") else name
    try:
        return Digest.parse(name.removesuffix(BLOB_SUFFIX).replace("-", ":", 1))
    except ValueError:
        return None
