"""Slices of files that are in memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from osc_containers.fs import ranges
from osc_containers.fs.ranges import FileSlice


@contextmanager
def slice_of(content: bytes) -> Iterator[FileSlice]:
    """Yield a file in memory that has `content` behind 7 other bytes, and is writable."""
    with open(os.memfd_create("slice"), "w+b") as file:
        ranges.write_all(file.fileno(), b"1234567" + content, 0)
        yield FileSlice(file.fileno(), 7)
