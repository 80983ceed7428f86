"""The SHA-256 of files that were hashed before, kept in the user's cache.

A file is identified by what the kernel changes with it: device, inode, size, and the times of the last changes of its
content and inode. One that changed within the last seconds is not kept: another change in the same tick would not show.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from osc_containers.fs import atomic, ranges
from osc_containers.fs.ranges import FileSlice
from osc_containers.prefetch import cache

DIRECTORY = "sums"
_SETTLED = 2_000_000_000
"""Nanoseconds without a change after which the checksum of a file is kept."""
_DIGITS = 64


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; the file is read only if the cache does not have it."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if checksum := _lookup(_name(status)):
            return checksum
        with atomic.naming(path):
            checksum = FileSlice(file.fileno(), 0).sha256(status.st_size)
        if _name(os.fstat(file.fileno())) == _name(status) and status.st_ctime_ns < time.time_ns() - _SETTLED:
            _keep(_name(status), checksum)
        return checksum


def _lookup(name: str) -> str:
    with suppress(OSError, ValueError):
        directory = cache.open_directory(DIRECTORY, create=False)
        try:
            descriptor = cache.open_file(name, os.O_RDONLY, directory)
            try:
                checksum = FileSlice(descriptor, 0).read(0, _DIGITS + 1).decode("ascii")
                if len(checksum) == _DIGITS:
                    os.utime(descriptor)  # It is removed two weeks after its last use.
                    return checksum
            finally:
                os.close(descriptor)
        finally:
            os.close(directory)
    return ""


def _keep(name: str, checksum: str) -> None:
    with suppress(OSError):
        directory = cache.open_directory(DIRECTORY)
        try:
            with atomic.new_file(name, 0o600, directory) as descriptor:
                ranges.write_all(descriptor, checksum.encode(), 0)
        finally:
            os.close(directory)


def _name(status: os.stat_result) -> str:
    fields = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return "-".join(f"{field:x}" for field in fields)
