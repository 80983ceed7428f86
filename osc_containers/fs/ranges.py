"""Reading, copying and hashing byte ranges of open files. All offsets and sizes are in bytes."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

CHUNK = 1 << 20
"""Bytes that are read, hashed or written at a time."""


def write_all(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of `content` at `offset`, with as many system calls as that takes."""
    view = memoryview(content)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view = view[count:]
        offset += count


class FileSlice(NamedTuple):
    """A position in an open file, from which all offsets are counted."""

    descriptor: int
    offset: int

    def at(self, offset: int) -> "FileSlice":
        """Return the slice that starts `offset` bytes later."""
        return FileSlice(self.descriptor, self.offset + offset)

    def write(self, content: bytes | memoryview, offset: int = 0) -> None:
        """Write all of `content`."""
        write_all(self.descriptor, content, self.offset + offset)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`; fewer if the file is shorter."""
        return b"".join(bytes(chunk) for chunk in self.chunks(start, stop))

    def chunks(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes from `start` to `stop`, or to the end of the file.

        All chunks share one buffer: each step overwrites the previous chunk.
        """
        position, end = self.offset + start, self.offset + stop
        buffer = memoryview(bytearray(max(0, min(stop - start, CHUNK))))
        # `os.preadv` fills a buffer that exists; `os.pread` would allocate one for each chunk.
        while position < end and (count := os.preadv(self.descriptor, [buffer[: end - position]], position)):
            yield buffer[:count]
            position += count

    def copy(self, target: "FileSlice", size: int) -> None:
        """Copy the first `size` bytes to `target`, as `copy_range` does."""
        copy_range(self.descriptor, self.offset, target.descriptor, target.offset, size)

    def sha256(self, size: int) -> str:
        """Return the SHA-256 of the first `size` bytes, in hexadecimal."""
        return self.hash("sha256", size)

    def hash(self, algorithm: str, size: int) -> str:
        """Return the hash of the first `size` bytes, in hexadecimal."""
        hasher = hashlib.new(algorithm)
        for chunk in self.chunks(0, size):
            hasher.update(chunk)
        return hasher.hexdigest()


def copy_range(source: int, source_offset: int, target: int, target_offset: int, size: int) -> None:
    """Copy `size` bytes between two open files, inside the kernel if possible.

    Blocks are shared instead of copied on file systems that support it (btrfs, XFS), provided that both offsets have
    the same position within a block.

    :raises OSError: a file cannot be read or written, or the source is too short.
    """
    # File systems share whole blocks only. Copying up to the first block boundary separately lets them do that.
    block = os.fstat(target).st_blksize
    head = min(-source_offset % block, size) if source_offset % block == target_offset % block else size
    body = (size - head) // block * block
    for start, stop in ((0, head), (head, head + body), (head + body, size)):
        _copy(source, source_offset + start, target, target_offset + start, stop - start)


def _copy(source: int, source_offset: int, target: int, target_offset: int, size: int) -> None:
    use_kernel = True
    while size:
        count = 0
        if use_kernel:
            # The error for "not supported" depends on the file system, so every error leads to the fallback below. It
            # runs into the same error if the disk is the cause.
            with suppress(OSError):
                count = os.copy_file_range(source, target, size, source_offset, target_offset)
            # Some FUSE file systems report success but copy 0 bytes. Only a read tells that from the end of the file.
            use_kernel = count > 0
        if not use_kernel:
            chunk = os.pread(source, min(size, CHUNK), source_offset)
            write_all(target, chunk, target_offset)
            count = len(chunk)
        if not count:
            raise OSError(errno.EIO, "unexpected end of file while copying")
        source_offset, target_offset, size = source_offset + count, target_offset + count, size - count
