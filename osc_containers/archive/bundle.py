"""The bundle for `inject=source`: archives and overlay of one image in one cpio archive."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from osc_containers.archive.layout import Layout, has_parts
from osc_containers.archive.verify import check_content
from osc_containers.formats import cpio
from osc_containers.fs.ranges import FileSlice


class Bundle(NamedTuple):
    """A cpio archive whose texts are known and whose container archives may not be available yet."""

    layout: cpio.Layout
    texts: tuple[tuple[int, bytes], ...]
    """The contents of units and other small files, with their offsets."""

    def frame(self) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of everything except container archives."""
        yield from self.layout.frame
        yield from self.texts


def is_bundle(path: Path, pack: Callable[[Mapping[str, str]], Bundle], archives: Mapping[str, Layout]) -> bool:
    """Return whether a file equals a bundle with these archives, by name, byte for byte.

    `pack` computes the bundle from the SHA-256 of each archive.
    """
    with suppress(OSError, ValueError):
        draft = pack({}).layout
        with path.open("rb") as file:
            if path.stat().st_size != draft.size:
                return False
            content = FileSlice(file.fileno(), 0)
            for name, layout in archives.items():
                check_content(content.at(draft.contents[name]), layout.size, layout)
            sums = {name: content.at(draft.contents[name]).sha256(layout.size) for name, layout in archives.items()}
            return has_parts(content, pack(sums).frame())
    return False
