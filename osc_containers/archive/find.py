"""What a package holds already: archives, and the blobs in them; as files of their own or inside a cpio archive.

Nothing that is found here is verified.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

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
    """`size` bytes of a file from `offset` on."""

    path: Path
    offset: int
    size: int


def find_archive(package: Package, reference: Reference, locked: LockedImage) -> ArchiveLocation | None:
    """Find the archive of an image: the file of its name, else what looks like it in the package's cpio archive."""
    path = package.find(locked.archive.name)
    if path:
        return ArchiveLocation(path=path, offset=0, size=path.stat().st_size)
    path = package.find(cpio.FILE_NAME)
    if path is None:
        return None
    layout = lay_out(locked.image, reference)
    with path.open("rb") as file:
        for member in cpio.members(file):
            if member.size == layout.size and looks_right(FileSlice(file.fileno(), member.offset), layout.frame()):
                return ArchiveLocation(path=path, offset=member.offset, size=member.size)
    return None


def confirms(package: Package, reference: Reference, locked: LockedImage) -> bool:
    """Tell whether the archive of an image is there, and manifest and config in it say of it what the lock says."""
    location = find_archive(package, reference, locked)
    manifest, config = locked.image.manifest, locked.image.config
    if location is None or manifest.size > MANIFEST_LIMIT or config.size > CONFIG_LIMIT:
        return False
    offsets = {member.digest: member.offset for member in lay_out(locked.image, reference).blobs()}
    with suppress(OSError, ValueError), location.path.open("rb") as file:
        place = FileSlice(file.fileno(), location.offset)
        raw, text = (place.at(offsets[blob.digest]).read(0, blob.size) for blob in (manifest, config))
        if not manifest.digest.matches(raw) or not config.digest.matches(text):
            return False
        parsed, created = parse_document(raw, manifest.media_type, ""), created_of(text, "")
        return isinstance(parsed, Manifest) and (Image.from_manifest(parsed), created) == (locked.image, locked.created)
    return False


def looks_right(place: FileSlice, frame: Iterable[tuple[int, bytes]]) -> bool:
    """Tell whether the bytes of `frame` are in the file, each at its offset from `place`."""
    return all(place.read(at, at + len(part)) == part for at, part in frame)


def blobs(paths: Iterable[Path], stack: ExitStack) -> Mapping[Digest, FileSlice]:
    """Find the blobs in archives and cpio archives, by the names of their members; the files stay open in `stack`."""
    places: dict[Digest, FileSlice] = {}
    for path in paths:
        file = stack.enter_context(path.open("rb"))
        for start in _archives_in(path, file):
            for name, offset in _files_in(file, start):
                digest = _blob_of(name)
                if digest:
                    places.setdefault(digest, FileSlice(file.fileno(), offset))
    return places


def _archives_in(path: Path, file: BinaryIO) -> Iterator[int]:
    if path.name.endswith(cpio.FILE_NAME):
        yield from [member.offset for member in cpio.members(file) if member.size]
    else:
        yield 0


def _files_in(file: BinaryIO, start: int) -> Iterator[tuple[str, int]]:
    """Yield name and offset of each file in a tar; what cannot be read holds nothing for us."""
    file.seek(start)
    with suppress(ValueError):
        for member in tar.members(file):
            if member.isreg():
                yield member.name, member.offset_data


def _blob_of(name: str) -> Digest | None:
    directory, _, rest = name.partition("/")
    if directory != "blobs":
        return None
    try:
        return Digest.parse(rest.replace("/", ":", 1))
    except ValueError:
        return None


def is_archive(location: ArchiveLocation, locked: ArchiveFile) -> bool:
    """Tell whether a location is the archive that a lock says: its size and its SHA-256."""
    if location.size != locked.size:
        return False
    with suppress(OSError), location.path.open("rb") as file:
        return FileSlice(file.fileno(), location.offset).sha256(location.size) == locked.sha256
    return False
