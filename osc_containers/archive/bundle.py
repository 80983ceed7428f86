"""The bundle: archives and overlay of one image in one cpio archive, for `inject` = `source`."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from osc_containers.archive.find import ArchiveLocation, is_archive, looks_right
from osc_containers.formats.cpio import Layout
from osc_containers.fs.ranges import FileSlice
from osc_containers.lock.lockfile import ArchiveFile


class Bundle(NamedTuple):
    """A cpio archive: its form, and the texts that go into it by their place."""

    layout: Layout
    texts: tuple[tuple[int, bytes], ...]

    def frame(self) -> Iterator[tuple[int, bytes]]:
        """Yield everything in it that is not an archive, by its place."""
        yield from self.layout.frame
        yield from self.texts


def is_bundle(path: Path, bundle: Bundle, archives: Iterable[ArchiveFile]) -> bool:
    """Tell whether a file is a bundle, byte for byte, with the archives that a lock says."""
    if path.stat().st_size != bundle.layout.size:
        return False
    with suppress(OSError), path.open("rb") as file:
        return looks_right(FileSlice(file.fileno(), 0), bundle.frame()) and all(
            is_archive(ArchiveLocation(path=path, offset=bundle.layout.contents[each.name], size=each.size), each)
            for each in archives
        )
    return False
