"""Lookup of archives, and of blobs in them, in a package: as separate files or inside a cpio archive.

Unless a function says otherwise, the content is not verified.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from osc_containers.archive.layout import Layout, lay_out
from osc_containers.formats import cpio, tar
from osc_containers.fs.ranges import FileSlice
from osc_containers.obs.package import Package
from osc_containers.oci import chain
from osc_containers.oci.chain import Claim
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import CONFIG_LIMIT, Descriptor


class ArchiveLocation(NamedTuple):
    """The position of an archive: `size` bytes of the file `path`, starting at `offset`."""

    path: Path
    offset: int
    size: int


def find_archive(package: Package, claim: Claim, name: str) -> ArchiveLocation | None:
    """Return the location of the archive of an image, or None if the package does not have it.

    It is the file `name`. In a cpio archive, members have the paths of an overlay, so an archive is recognized there by
    its size and headers.
    """
    path = package.find(name)
    if path:
        return ArchiveLocation(path=path, offset=0, size=path.stat().st_size)
    path = package.find(cpio.FILE_NAME)
    if path is None:
        return None
    layout = layout_of(claim)
    with path.open("rb") as file:
        for member in cpio.members(file):
            if member.size == layout.size and has_parts(FileSlice(file.fileno(), member.offset), layout.frame()):
                return ArchiveLocation(path=path, offset=member.offset, size=member.size)
    return None


def layout_of(claim: Claim) -> Layout:
    """Return the layout of the archive of an image."""
    return lay_out(claim.image, claim.reference, claim.arch)


def matches_claim(package: Package, claim: Claim, name: str) -> bool:
    """Return whether the package has the archive of an image, and its documents prove what is claimed of the image.

    The documents are verified; layers are not read.
    """
    location = find_archive(package, claim, name)
    if location is None:
        return False
    with suppress(OSError, ValueError), location.path.open("rb") as file:
        archive = FileSlice(file.fileno(), location.offset)
        chain.check(claim, document_reader(archive, layout_of(claim)))
        return True
    return False


def document_reader(archive: FileSlice, layout: Layout) -> Callable[[Descriptor], bytes]:
    """Return the function that reads a document of an archive, for `oci.chain.check`.

    It raises ValueError for a document that is larger than any may be.
    """
    offsets = {member.digest: member.offset for member in layout.blobs()}

    def read(descriptor: Descriptor) -> bytes:
        # The size comes from an untrusted lock file, and the document is read into memory.
        if descriptor.size > CONFIG_LIMIT:
            raise ValueError(f"{descriptor.digest}: got {descriptor.size} bytes, expected at most {CONFIG_LIMIT}")
        return archive.at(offsets[descriptor.digest]).read(0, descriptor.size)

    return read


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
