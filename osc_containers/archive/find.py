"""Lookup of archives, and of blobs in them, in a package: as separate files or inside a cpio archive.

Unless a function says otherwise, the content is not verified.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from osc_containers.archive.layout import lay_out
from osc_containers.formats import cpio, tar
from osc_containers.fs.ranges import FileSlice
from osc_containers.lock.lockfile import ArchiveFile, LockedImage
from osc_containers.obs.package import Package
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import CONFIG_LIMIT, MANIFEST_LIMIT, Manifest, created_of, parse_document
from osc_containers.oci.reference import Reference


class ArchiveLocation(NamedTuple):
    """The position of an archive: `size` bytes of the file `path`, starting at `offset`."""

    path: Path
    offset: int
    size: int


def find_archive(package: Package, reference: Reference, locked: LockedImage) -> ArchiveLocation | None:
    """Return the location of the archive of an image, or None if the package does not have it.

    In a cpio archive, members have the paths of an overlay. So an archive is recognized there by its size and headers.
    """
    path = package.find(locked.archive.name)
    if path:
        return ArchiveLocation(path=path, offset=0, size=path.stat().st_size)
    path = package.find(cpio.FILE_NAME)
    if path is None:
        return None
    layout = lay_out(locked.image, reference)
    with path.open("rb") as file:
        for member in cpio.members(file):
            if member.size == layout.size and has_parts(FileSlice(file.fileno(), member.offset), layout.frame()):
                return ArchiveLocation(path=path, offset=member.offset, size=member.size)
    return None


def matches_lock(package: Package, reference: Reference, locked: LockedImage) -> bool:
    """Return whether the package has the archive of an image, and its manifest and config agree with the lock.

    Both are verified; layers are not read.
    """
    location = find_archive(package, reference, locked)
    manifest, config = locked.image.manifest, locked.image.config
    # The sizes come from an untrusted lock file, and both blobs are read into memory.
    if location is None or manifest.size > MANIFEST_LIMIT or config.size > CONFIG_LIMIT:
        return False
    offsets = {member.digest: member.offset for member in lay_out(locked.image, reference).blobs()}
    with suppress(OSError, ValueError), location.path.open("rb") as file:
        archive = FileSlice(file.fileno(), location.offset)
        raw, text = (archive.at(offsets[blob.digest]).read(0, blob.size) for blob in (manifest, config))
        if not manifest.digest.matches(raw) or not config.digest.matches(text):
            return False
        document, created = parse_document(raw, manifest.media_type, ""), created_of(text, "")
        return isinstance(document, Manifest) and (
            (Image.from_manifest(document), created) == (locked.image, locked.created)
        )
    return False


def has_parts(file: FileSlice, parts: Iterable[tuple[int, bytes]]) -> bool:
    """Return whether a file has each of these parts at its offset."""
    return all(file.read(offset, offset + len(part)) == part for offset, part in parts)


def blobs(paths: Iterable[Path], stack: ExitStack) -> Mapping[Digest, FileSlice]:
    """Return the blobs in archives and cpio archives by digest, as far as names of members tell.

    The files stay open until `stack` is closed.
    """
    slices: dict[Digest, FileSlice] = {}
    for path in paths:
        file = stack.enter_context(path.open("rb"))
        is_cpio = path.name.endswith(cpio.FILE_NAME)
        starts = [member.offset for member in cpio.members(file)] if is_cpio else [0]
        for start in starts:
            file.seek(start)
            # Other members of a cpio archive are no tar archives, and a damaged archive is used up to the damage.
            with suppress(ValueError):
                for member in tar.members(file):
                    digest = _digest_of_path(member.name) if member.isreg() else None
                    if digest:
                        slices.setdefault(digest, FileSlice(file.fileno(), member.offset_data))
    return slices


def _digest_of_path(path: str) -> Digest | None:
    """Return the digest in a path `blobs/ALGORITHM/HEX`, or None for any other path."""
    directory, _, rest = path.partition("/")
    if directory != "blobs":
        return None
    try:
        return Digest.parse(rest.replace("/", ":", 1))
    except ValueError:
        return None


def has_content(location: ArchiveLocation, locked: ArchiveFile) -> bool:
    """Return whether the archive at `location` has the locked size and SHA-256."""
    if location.size != locked.size:
        return False
    with suppress(OSError), location.path.open("rb") as file:
        return FileSlice(file.fileno(), location.offset).sha256(location.size) == locked.sha256
    return False
