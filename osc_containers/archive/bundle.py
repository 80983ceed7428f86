"""The bundle for `inject=source`: archives and overlay of one image in one cpio archive."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from osc_containers.archive.find import ArchiveLocation, has_content, has_parts
from osc_containers.formats import cpio
from osc_containers.fs.ranges import FileSlice
from osc_containers.lock.lockfile import ArchiveFile


class Bundle(NamedTuple):
    """A cpio archive whose texts are known and whose container archives may not be available yet."""

    layout: cpio.Layout
    texts: tuple[tuple[int, bytes], ...]
    """The contents of units and other small files, with their offsets."""

    def frame(self) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of everything except container archives."""
        yield from self.layout.frame
        yield from self.texts


def is_bundle(path: Path, bundle: Bundle, archives: Iterable[ArchiveFile]) -> bool:
    """Return whether a file equals a bundle with these archives, byte for byte."""
    with suppress(OSError):
        if path.stat().st_size != bundle.layout.size:
            return False
        with path.open("rb") as file:
            return has_parts(FileSlice(file.fileno(), 0), bundle.frame()) and all(
                has_content(ArchiveLocation(path=path, offset=bundle.layout.contents[item.name], size=item.size), item)
                for item in archives
            )
    return False
