"""Reading, copying and hashing byte ranges of open files."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

CHUNK = 1 << 20
"""Bytes that are read, hashed or written at a time."""


def write_all(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of `content` at `offset`."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def chunks(descriptor: int, start: int, end: int) -> Iterator[memoryview]:
    """Yield the bytes from `start` to `end` through one buffer, which each step overwrites; a short file ends it."""
    buffer = memoryview(bytearray(max(0, min(end - start, CHUNK))))
    while start < end and (count := os.preadv(descriptor, [buffer[: end - start]], start)):
        yield buffer[:count]
        start += count


def read(descriptor: int, start: int, end: int) -> bytes:
    """Return the bytes from `start` to `end`; fewer where the file ends before."""
    return b"".join(bytes(chunk) for chunk in chunks(descriptor, start, end))


class FileSlice(NamedTuple):
    """Where something begins in an open file; offsets are counted from there."""

    descriptor: int
    offset: int

    def at(self, offset: int) -> "FileSlice":
        """Return another place in the same file."""
        return FileSlice(self.descriptor, self.offset + offset)

    def write(self, content: bytes | memoryview, offset: int = 0) -> None:
        """Write all of `content`."""
        write_all(self.descriptor, content, self.offset + offset)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`; fewer where the file ends before."""
        return read(self.descriptor, self.offset + start, self.offset + stop)

    def chunks(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes as `chunks` does."""
        return chunks(self.descriptor, self.offset + start, self.offset + stop)

    def copy(self, target: "FileSlice", size: int) -> None:
        """Copy `size` bytes to another place."""
        copy_range(self.descriptor, self.offset, target.descriptor, target.offset, size)

    def sha256(self, size: int) -> str:
        """Return the SHA-256 of `size` bytes, in hexadecimal."""
        hasher = hashlib.sha256()
        for chunk in self.chunks(0, size):
            hasher.update(chunk)
        return hasher.hexdigest()


def copy_range(source: int, source_offset: int, target: int, target_offset: int, size: int) -> None:
    """Copy `size` bytes between two open files, in the kernel where it can.

    Whole blocks at the same place of a block are shared where the file system does that (btrfs, XFS).

    :raises OSError: also when the source ends early.
    """
    block = os.fstat(target).st_blksize
    head = min(-source_offset % block, size) if source_offset % block == target_offset % block else size
    body = (size - head) // block * block
    for start, stop in ((0, head), (head, head + body), (head + body, size)):
        _copy(source, source_offset + start, target, target_offset + start, stop - start)


def _copy(source: int, source_offset: int, target: int, target_offset: int, size: int) -> None:
    by_kernel = True
    while size:
        count = 0
        if by_kernel:
            # Which errors say that it cannot do it depends on the file system; what is wrong with a disk shows again.
            with suppress(OSError):
                count = os.copy_file_range(source, target, size, source_offset, target_offset)
            by_kernel = count > 0
        if not by_kernel:
            chunk = os.pread(source, min(size, CHUNK), source_offset)
            write_all(target, chunk, target_offset)
            count = len(chunk)
        if not count:
            raise OSError(errno.EIO, "the file ended early while it was copied")
        source_offset, target_offset, size = source_offset + count, target_offset + count, size - count
