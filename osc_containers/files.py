"""Writing files so that no half of one is ever seen under its name, and moving bytes between files."""

import errno
import hashlib
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import Error

_OTHER_FILES = 256
"""Files that a process has open besides: connections above all."""
CHUNK = 1 << 20
"""Bytes that are read, hashed or written at a time."""

_TEMPORARY = ".osc-containers"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_MODES = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Give `path` the content and exactly that mode, whatever the umask; it has the old content or the new, never half.

    A symbolic link there is replaced, not followed.
    """
    with naming(path), new_file(path, mode) as descriptor:
        write_all(descriptor, content, 0)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Let an `OSError` of the block name `path`, and not a temporary file or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def new_file(path: Path | str, mode: int = 0o644, directory: int | None = None) -> Iterator[int]:
    """Open a new file beside `path` for writing; it takes that name when the block ends well, else it is removed.

    A relative `path` starts at the open `directory` where that is given.
    """
    with beside(path, directory) as temporary:
        descriptor = os.open(temporary, _NEW, 0o600, dir_fd=directory)
        try:
            yield descriptor
            set_mode(descriptor, mode)
        finally:
            os.close(descriptor)


def set_mode(descriptor: int, mode: int) -> None:
    """Give an open file exactly that mode; where files have none of their own (vfat), its owner must get no less."""
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno not in _NO_MODES or mode & stat.S_IRWXU & ~os.fstat(descriptor).st_mode:
            raise


def flush(descriptor: int) -> None:
    """Let the file system say what it could not write: NFS and FUSE say it to who closes the file."""
    os.close(os.dup(descriptor))


def temporary_name(path: Path | str) -> str:
    """Return a name beside `path` that nobody can guess, and that `remove_abandoned` knows."""
    parent, name = os.path.split(path)
    return os.path.join(parent, f".{name[:48]}.{os.urandom(8).hex()}{_TEMPORARY}")


def remove_abandoned(directory: Path) -> None:
    """Remove the files that writers which were killed left under temporary names; none may be at work there."""
    for path in directory.glob(f".*.{'[0-9a-f]' * 16}{_TEMPORARY}"):
        with suppress(OSError):
            path.unlink()


@contextmanager
def beside(path: Path | str, directory: int | None = None) -> Iterator[str]:
    """Give out a name beside `path`; what is made under it takes the name `path` when the block ends well."""
    temporary = temporary_name(path)
    try:
        yield temporary
        os.rename(temporary, path, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        # Also after a rename: between two links to one file rename(2) does nothing and leaves both.
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)


def allow_open(count: int) -> None:
    """Let this process have `count` files open at a time, as far as its hard limit goes: the soft one is often 1024.

    :raises Error: it does not go that far.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Error(f"limit on open files: got {hard}, expected {count} and some more; raise it (ulimit -Hn)")
    needed = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


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


class Place(NamedTuple):
    """Where something begins in an open file; offsets are counted from there."""

    descriptor: int
    offset: int

    def at(self, offset: int) -> "Place":
        """Return another place in the same file."""
        return Place(self.descriptor, self.offset + offset)

    def write(self, content: bytes | memoryview, offset: int = 0) -> None:
        """Write all of `content`."""
        write_all(self.descriptor, content, self.offset + offset)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`; fewer where the file ends before."""
        return read(self.descriptor, self.offset + start, self.offset + stop)

    def chunks(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes as `chunks` does."""
        return chunks(self.descriptor, self.offset + start, self.offset + stop)

    def copy(self, target: "Place", size: int) -> None:
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
