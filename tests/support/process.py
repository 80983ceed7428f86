"""Limits of this process that are set for the duration of a block; the end of other processes."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Make the kernel truncate a write at `limit` bytes of a file and refuse the next one, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def kill_session(leader: int) -> None:
    """Kill all processes of a session; timeout(1) takes what it starts out of the process group."""
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # PPID, process group and session are the fields after the name and the state (proc_pid_stat(5)).
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                os.kill(int(directory.name), signal.SIGKILL)
