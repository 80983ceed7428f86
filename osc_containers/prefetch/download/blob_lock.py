"""Locks on blobs that are being downloaded, so that two runs of a user do not download the same blob at the same time.

A lock is a file in the user's cache that is named after a blob. A run keeps it locked while it downloads the blob, and
writes to it where the blob goes: its process ID, and the inode of a file, an offset in it, and its path. The next run
that gets the lock copies from there what it finds, and downloads the rest. It does so, too, if the first run was
killed, because the kernel then releases the lock. What is copied is verified like everything else.
"""

import os
import time
from contextlib import ExitStack, suppress
from typing import NamedTuple

from osc_containers.fs import user_cache
from osc_containers.fs.ranges import FileSlice
from osc_containers.oci.digest import Digest

PATIENCE = 90
"""Seconds after which a run that receives nothing is no longer waited for: longer than registries take to restart."""
_NO_FILE_PATIENCE = 1
"""The same for a run whose file cannot be opened, so that nothing can be copied from it."""
# Bytes of a lock, more than three numbers and the longest path (PATH_MAX) take.
_LIMIT = 8 << 10
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class _Location(NamedTuple):
    """Where a run writes a blob."""

    pid: int
    inode: int
    offset: int
    path: bytes

    def open(self) -> int | None:
        """Open the file, unless it is gone."""
        with suppress(OSError):
            descriptor = os.open(self.path, _OPEN)
            # Another file may have this path by now.
            if os.fstat(descriptor).st_ino == self.inode:
                return descriptor
            os.close(descriptor)
        return None


class BlobLock:
    """The lock on a blob that is to be downloaded to `target`; only one thread may use it at a time."""

    def __init__(self, digest: Digest, target: FileSlice) -> None:
        self.other: FileSlice | None = None
        """Where another run has written some of the blob, or all of it."""
        self.pid = 0
        """The process of that run."""
        self.is_stalled = False
        """Whether that run has the lock, but is not waited for any longer."""
        self._name = f"{digest.algorithm}-{digest.hex}"
        self._target = target
        self._descriptor: int | None = None
        self._location: _Location | None = None
        self._activity = 0
        self._active_at = 0.0

    def acquire(self) -> bool:
        """Return whether the blob should be downloaded now, because no other run does that, or one that hangs.

        If not, try again after a while. Without a cache, or without locks in it, nothing is waited for.
        """
        with suppress(OSError), ExitStack() as stack:
            directory = user_cache.open_directory(user_cache.DOWNLOADS)
            stack.callback(os.close, directory)
            descriptor = user_cache.open_file(self._name, os.O_RDWR | os.O_CREAT, directory)
            unlock = stack.enter_context(ExitStack())
            # Closing the descriptor gives up the lock, unless `pop_all` below keeps it open.
            unlock.callback(os.close, descriptor)
            is_free = user_cache.try_lock(descriptor)
            self._open_other(descriptor)
            if not is_free:
                self.is_stalled = self._has_stalled()
                return self.is_stalled
            # Another run has removed the file between its opening and the lock, so others would not see the lock.
            if not user_cache.is_at(self._name, descriptor, directory):
                return False
            self._write_location(descriptor)
            unlock.pop_all()
            self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let other runs have the lock; they still find out where the blob is."""
        descriptors = self._descriptor, self.other.descriptor if self.other else None
        self._descriptor = self.other = None
        for descriptor in descriptors:
            if descriptor is not None:
                with suppress(OSError):  # some file systems report here that they could not write; no download needs it
                    os.close(descriptor)

    def _open_other(self, descriptor: int) -> None:
        """Open the file that the lock names, and keep it open: it will be renamed when it is complete."""
        location = _read_location(descriptor)
        if location is None or location == self._location:
            return
        # A run that was killed may have had the file that this one continues.
        if location.inode == os.fstat(self._target.descriptor).st_ino or (other := location.open()) is None:
            return
        if self.other:
            os.close(self.other.descriptor)
        self.other, self.pid, self._location = FileSlice(other, location.offset), location.pid, location

    def _has_stalled(self) -> bool:
        """Tell whether the other run has written nothing for too long."""
        now = time.monotonic()
        # Any write to the file of the other run shows that it is alive, also one of another blob in the same file.
        activity = os.fstat(self.other.descriptor).st_mtime_ns if self.other else 0
        if activity != self._activity or not self._active_at:
            self._activity, self._active_at = activity, now
        return now - self._active_at >= (PATIENCE if self.other else _NO_FILE_PATIENCE)

    def _write_location(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{self._target.descriptor}")
        if not os.path.exists(path):  # A file without a name can be opened as long as this process lives.
            path = f"/proc/{os.getpid()}/fd/{self._target.descriptor}"
        inode = os.fstat(self._target.descriptor).st_ino
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, os.fsencode(f"{os.getpid()} {inode} {self._target.offset} {path}"), 0)


def _read_location(descriptor: int) -> _Location | None:
    with suppress(ValueError):
        pid, inode, offset, path = os.pread(descriptor, _LIMIT, 0).split(b" ", 3)
        if path.startswith(b"/") and b"\0" not in path:
            return _Location(pid=int(pid), inode=int(inode), offset=int(offset), path=path)
    return None


def tidy() -> None:
    """Remove locks that no run has and that lead to no file any more."""
    with suppress(OSError):
        directory = user_cache.open_directory(user_cache.DOWNLOADS, create=False)
        try:
            for name in os.listdir(directory):
                with suppress(OSError):
                    _remove_if_useless(name, directory)
        finally:
            os.close(directory)


def _remove_if_useless(name: str, directory: int) -> None:
    descriptor = user_cache.open_file(name, os.O_RDWR, directory)
    try:
        location = _read_location(descriptor)
        file = location.open() if location else None
        if file is not None:
            os.close(file)
        elif _is_unused(descriptor) and user_cache.is_at(name, descriptor, directory):
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(descriptor)


def _is_unused(descriptor: int) -> bool:
    try:
        return user_cache.try_lock(descriptor)
    except OSError:  # Without locks, no run waits for another.
        return True
