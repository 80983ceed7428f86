"""The SHA-256 of files that were hashed before, remembered in the user's cache.

A file is known by what the kernel changes with it: device, inode, size, and the times of the last change of content and
of inode. One that changed within the last seconds is not remembered: a change in the same tick would not show.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from osc_containers.fs import atomic
from osc_containers.fs.ranges import FileSlice
from osc_containers.prefetch import cache

_SETTLED = 2_000_000_000
"""Nanoseconds without a change after which a file is remembered."""
_DIGITS = 64


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; its bytes are read only if it is not known."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        with suppress(OSError, ValueError):
            memory = _memory(status)
            known = memory.read_text("ascii")
            if len(known) == _DIGITS:
                os.utime(memory)
                return known
        with atomic.naming(path):
            found = FileSlice(file.fileno(), 0).sha256(status.st_size)
        if _name(os.fstat(file.fileno())) == _name(status) and status.st_ctime_ns < time.time_ns() - _SETTLED:
            with suppress(OSError):
                memory = _memory(status)
                memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                atomic.write_atomically(memory, found.encode(), 0o600)
        return found


def _memory(status: os.stat_result) -> Path:
    return cache.directory() / "sums" / _name(status)


def _name(status: os.stat_result) -> str:
    fields = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return "-".join(f"{field:x}" for field in fields)
