"""One run at a time changes a package, and none while another reads it.

flock(2) only needs an open file, so anybody who can read a file or directory can hold a lock on it for as long as they
like. Therefore the lock that counts is on a file that no other user can open. It is outside the package, because osc
and git would show it, and named after device and inode of the directory. The runs of other users lock the directory
itself; a lock there is only reported, because it may be anybody's.

The last run removes the file. To do so safely, a reader needs an exclusive lock for a moment, which looks like that of
a run that changes the package. So such a run writes something to the file, which is empty otherwise.
"""

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import Error
from osc_containers.fs import user_directory

logger = logging.getLogger(__name__)

# flock(2) fails like this on file systems without locks. EBADF is for NFS, where only a file that is open for writing
# can have an exclusive lock, and a directory never is.
_NO_LOCKS = {errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_INTERVAL = 0.1
"""Seconds between attempts to get a lock while others read the package."""
_MOMENT = 0.01
"""The same while another reader is removing the lock file."""
_ATTEMPTS = 10
"""Attempts to get a lock, or to find out who has it, while the runs that have it come and go."""
_CHANGING = b"changing\n"


class _Holder(NamedTuple):
    """Who has a lock on a file: `name` is "process 7", or "another process" if that is all that is known."""

    name: str
    is_reader: bool


_UNKNOWN = _Holder(name="another process", is_reader=False)


@contextmanager
def hold(directory: Path) -> Iterator[bool]:
    """Keep other runs of this user out of a package; yield whether runs of other users are excluded too.

    Runs that read the package are waited for. Where the lock file cannot be created or locked, a warning is logged, and
    other runs are not kept out.

    :raises Error: another run of this user is changing the package; the message names it.
    :raises OSError: the package cannot be opened.
    """
    with ExitStack() as stack:
        package = os.open(directory, _DIRECTORY)
        stack.callback(os.close, package)
        status = os.fstat(package)
        try:
            holder = _lock_file(status, fcntl.LOCK_EX, stack)
            if holder and holder.is_reader:
                logger.info("%s: waiting for %s, which is reading it", directory, holder.name)
            # flock(2) could wait by itself, but it would also wait for a writer, which is an error here.
            while holder and holder.is_reader:
                time.sleep(_INTERVAL)
                holder = _lock_file(status, fcntl.LOCK_EX, stack)
            if holder:
                raise Error(f"{directory}: in use by {holder.name}; wait until it has ended")
        except OSError as error:
            reason = f"{error.filename or 'lock file'}: {error.strerror}"
            logger.warning("%s: cannot be locked against a second run at the same time: %s", directory, reason)
        # Anybody can hold this second lock. Without it, the run goes on, but removes no temporary files.
        is_alone = False
        try:
            is_alone = _flock(package, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        else:
            if not is_alone:
                name = (_holder(status) or _UNKNOWN).name
                logger.warning("%s: %s has a lock on this directory, which is ignored", directory, name)
        yield is_alone


@contextmanager
def share(directory: Path) -> Iterator[None]:
    """Let runs of this user that would change a package wait; others may read it at the same time.

    Where the lock file cannot be created or locked, nobody waits.

    :raises Error: a run of this user is changing the package; the message names it.
    :raises OSError: the package cannot be opened.
    """
    with ExitStack() as stack:
        status = os.stat(directory)
        try:
            while (holder := _lock_file(status, fcntl.LOCK_SH, stack)) and holder.is_reader:
                time.sleep(_MOMENT)
        except OSError as error:
            logger.debug("%s: cannot be locked: %s: %s", directory, error.filename or "lock file", error.strerror)
        except ImportError:
            pass  # A build root has no platformdirs, and nothing else in it changes the package.
        else:
            if holder:
                raise Error(
                    f"{directory}: {holder.name} is changing it, as prefetch and init do; wait until it has ended"
                )
        yield


def find_writer(directory: Path) -> str | None:
    """Return which run of this user is changing a package, if one does."""
    with suppress(OSError, ImportError), ExitStack() as stack:
        holder = _lock_file(os.stat(directory), fcntl.LOCK_SH, stack, create=False)
        return holder.name if holder and not holder.is_reader else None
    return None


def _lock_file(package: os.stat_result, operation: int, stack: ExitStack, *, create: bool = True) -> _Holder | None:
    """Lock the file for a package for the duration of `stack`; return who has it if that is impossible."""
    with ExitStack() as attempt:
        directory = _open_directory(attempt, create=create)
        name = f"{package.st_dev:x}-{package.st_ino}"
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        while True:
            descriptor = os.open(name, flags, 0o600, dir_fd=directory)
            attempt.callback(_close, descriptor)
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise OSError(errno.EPERM, "it is not a file that only this user can open; remove it", name)
            try:
                if holder := _try_lock(descriptor, status, operation):
                    return holder
                # A run that was killed may have left it, and a reader must not look like that run when it ends.
                os.ftruncate(descriptor, 0)
                if operation == fcntl.LOCK_EX:
                    with suppress(OSError):  # On a full disk, others wait for this run instead of ending.
                        os.pwrite(descriptor, _CHANGING, 0)
            except OSError:
                # Where files cannot be locked, no run would ever remove this one.
                _remove(name, directory)
                raise
            # Another run may have removed the file since it was opened. Then a new one is needed.
            try:
                if os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == status.st_ino:
                    # Callbacks run in reverse order, so the file is removed while it is still locked.
                    attempt.callback(_remove_unless_shared, name, directory, descriptor)
                    stack.push(attempt.pop_all())
                    return None
            except FileNotFoundError:
                continue


def _try_lock(descriptor: int, status: os.stat_result, operation: int) -> _Holder | None:
    """Lock an open lock file; return who has it if that is impossible."""
    for _ in range(_ATTEMPTS):
        if _flock(descriptor, operation):
            return None
        # A holder that is not listed has just ended, or is in another PID namespace.
        if holder := _holder(status):
            break
    else:
        holder = _UNKNOWN
    return holder._replace(is_reader=holder.is_reader or not os.pread(descriptor, 1, 0))


def _close(descriptor: int) -> None:
    with suppress(OSError):  # Some file systems report here that they could not write.
        os.close(descriptor)


def _remove_unless_shared(name: str, directory: int, descriptor: int) -> None:
    """Remove the file of a lock that is about to be released, unless others have the lock, too."""
    with suppress(OSError):
        # The kernel may drop a lock before it converts it (flock(2)). Here it is about to be released anyway.
        if _flock(descriptor, fcntl.LOCK_EX):
            _remove(name, directory)


def _remove(name: str, directory: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=directory)


def _open_directory(stack: ExitStack, *, create: bool) -> int:
    # Build roots do not have it, and do not need it.
    import platformdirs

    path = user_directory.find(platformdirs.user_state_path) / "locks"
    if create:
        user_directory.create(path)
    descriptor = os.open(path, _DIRECTORY | os.O_NOFOLLOW)
    stack.callback(os.close, descriptor)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise OSError(errno.EPERM, "it is not a directory that only this user can write to; remove it", str(path))
    return descriptor


def _flock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(status: os.stat_result) -> _Holder | None:
    """Return who has the lock on a file: /proc/locks has `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`."""
    try:
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except OSError:
        lines = []
    for fields in map(str.split, lines):
        # Only the inode is compared. On btrfs, stat(2) returns another device number than the kernel lists here.
        if "FLOCK" in fields and any(field.endswith(f":{status.st_ino}") for field in fields):
            kind, process = fields[fields.index("FLOCK") + 2 :][:2]
            return _Holder(name=f"process {process}", is_reader=kind == "READ")
    return None
