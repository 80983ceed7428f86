"""Reads of files that somebody else may have made or named: regular files only, at most a given size."""

import errno
import os
import stat
from pathlib import Path

from osc_containers.errors import Error
from osc_containers.fs import atomic
from osc_containers.fs.ranges import FileSlice

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a pipe or a device could block, or do what the device does when it is opened.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read(directory: Path, name: str, limit: int) -> bytes | None:
    """Return the content of the file `name`, which may be in a subdirectory, or None if it does not exist.

    `directory` itself may be a link. No component of `name` may be one.

    :raises Error: it is something other than a regular file, or has more than `limit` bytes.
    :raises OSError: it cannot be read.
    """
    path = directory / name
    *parents, last = Path(name).parts
    with atomic.naming(path):
        # One directory after the other is opened, because O_NOFOLLOW is about the last component of a path only.
        parent = os.open(directory, _DIRECTORY & ~os.O_NOFOLLOW)
        try:
            for part in parents:
                child = os.open(part, _DIRECTORY, dir_fd=parent)
                os.close(parent)
                parent = child
            descriptor = os.open(last, _FILE, dir_fd=parent)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            # In this order: a link, a link or a file in the place of a directory, and a socket (open(2)).
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise Error(f"{path}: got a symlink or a special file, expected a file; remove it") from None
            raise
        finally:
            os.close(parent)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Error(f"{path}: got a directory or a special file, expected a file; remove it")
            # One byte more than the limit shows that the file is larger, whatever its size was a moment ago.
            content = FileSlice(descriptor, 0).read(0, limit + 1)
        finally:
            os.close(descriptor)
    if len(content) > limit:
        raise Error(f"{path}: got more than {limit} bytes, expected at most that many")
    return content


def read_linked(path: Path, limit: int) -> bytes:
    """Return the content of a file that a configuration names, possibly through links.

    :raises ValueError: it is something other than a regular file, or has more than `limit` bytes, or no file can have
        this name.
    :raises OSError: it cannot be read.
    """
    descriptor = os.open(path, _FILE & ~os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("got a directory or a special file, expected a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"got more than {limit} bytes")
    return content
