"""Which files were verified before, kept in the user's cache: what is unchanged is not read again.

A file is identified by what the kernel changes with it: device, inode, size, and the times of the last changes of its
content and inode. One that changed within the last seconds is not kept: another change in the same tick would not show.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from osc_containers.fs import atomic, ranges, user_cache
from osc_containers.fs.ranges import FileSlice
from osc_containers.prefetch.plan import OutputFile

_SETTLED = 2_000_000_000
"""Nanoseconds without a change after which the state of a file is kept."""
_KEY_LIMIT = 1 << 10


def holds(path: Path, expected: OutputFile) -> bool:
    """Return whether a file has exactly the expected content; it is read only if the cache does not know it.

    :raises OSError: it cannot be read.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size != expected.size:
            return False
        # A file of the cache is named after the state of a file, and its content is the key of what that file holds.
        key, name = expected.key, _name(status)
        if _lookup(name) == key:
            return True
        with atomic.naming(path):
            is_same = expected.matches(FileSlice(file.fileno(), 0))
        # What changed while it was read is not kept either.
        is_settled = _name(os.fstat(file.fileno())) == name and status.st_ctime_ns < time.time_ns() - _SETTLED
        if is_same and is_settled:
            _keep(name, key)
        return is_same


def _lookup(name: str) -> str:
    with suppress(OSError, ValueError):
        directory = user_cache.open_directory(user_cache.VERIFIED, create=False)
        try:
            descriptor = user_cache.open_file(name, os.O_RDONLY, directory)
            try:
                key = FileSlice(descriptor, 0).read(0, _KEY_LIMIT).decode("ascii")
                os.utime(descriptor)  # It is removed two weeks after its last use.
                return key
            finally:
                os.close(descriptor)
        finally:
            os.close(directory)
    return ""


def _keep(name: str, key: str) -> None:
    with suppress(OSError):
        directory = user_cache.open_directory(user_cache.VERIFIED)
        try:
            with atomic.new_file(name, 0o600, directory) as descriptor:
                ranges.write_all(descriptor, key.encode(), 0)
        finally:
            os.close(directory)


def _name(status: os.stat_result) -> str:
    fields = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return "-".join(f"{field:x}" for field in fields)
