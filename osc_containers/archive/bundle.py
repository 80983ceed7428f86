"""The bundle for `inject=source`: the overlay of one image in one cpio archive, with each blob once."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from osc_containers.archive.layout import Layout, has_parts
from osc_containers.formats import cpio
from osc_containers.fs.ranges import FileSlice
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor


class Bundle(NamedTuple):
    """A cpio archive of which everything but the blobs is known.

    `texts` are the contents of units and other small files, with their offsets. `archives` are the container archives
    in it (`fetch_only`), and `loaded` the blobs of containers that are loaded, each with its offset.
    """

    layout: cpio.Layout
    texts: tuple[tuple[int, bytes], ...]
    archives: tuple[tuple[int, Layout], ...]
    loaded: tuple[tuple[int, Descriptor], ...]

    @property
    def size(self) -> int:
        """The size of the cpio archive in bytes."""
        return self.layout.size

    def frame(self) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of everything except blobs."""
        yield from self.layout.frame
        yield from self.texts
        for start, archive in self.archives:
            yield from ((start + offset, content) for offset, content in archive.frame())

    def blobs(self) -> Iterator[tuple[int, int, Digest]]:
        """Yield offset, size and digest of each copy of a blob.

        There is one for all containers that are loaded, and one in each container archive.
        """
        for offset, blob in self.loaded:
            yield offset, blob.size, blob.digest
        for start, archive in self.archives:
            yield from ((start + member.offset, member.size, member.digest) for member in archive.blobs())

    def is_in(self, path: Path) -> bool:
        """Return whether a file equals this bundle, byte for byte."""
        with suppress(OSError), path.open("rb") as file:
            content = FileSlice(file.fileno(), 0)
            return (
                os.fstat(file.fileno()).st_size == self.size
                and has_parts(content, self.frame())
                and all(
                    content.at(offset).hash(digest.algorithm, size) == digest.hex
                    for offset, size, digest in self.blobs()
                )
            )
        return False
