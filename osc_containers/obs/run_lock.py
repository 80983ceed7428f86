"""One run at a time in a package.

flock(2) only needs an open file, so anybody who can read a file or directory can hold a lock on it for as long as they
like. Therefore the lock that counts is on a file that no other user can open. It is outside the package, because osc
and git would show it, and named after device and inode of the directory. The runs of other users lock the directory
itself; a lock there is only reported, because it may be anybody's.
"""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from osc_containers.errors import Error

logger = logging.getLogger(__name__)

_NO_LOCKS = {errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def hold(directory: Path) -> Iterator[bool]:
    """Keep other runs of this user out of a package; yield whether runs of other users are excluded too.

    Where the lock file cannot be created or locked, a warning is logged, and other runs are not kept out.

    :raises Error: another run of this user is in the package; the message names it.
    :raises OSError: the package cannot be opened.
    """
    with ExitStack() as stack:
        package = os.open(directory, _DIRECTORY)
        stack.callback(os.close, package)
        status = os.fstat(package)
        try:
            if (holder := _lock_file(f"{status.st_dev:x}-{status.st_ino}", stack)) is not None:
                raise Error(f"{directory}: in use by {holder}; wait until it has ended")
        except OSError as error:
            reason = f"{error.filename or 'lock file'}: {error.strerror}"
            logger.warning("%s: cannot be locked against a second run at the same time: %s", directory, reason)
        is_alone = False
        try:
            is_alone = _flock(package)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        else:
            if not is_alone:
                holder = _holder(status)
                logger.warning("%s: %s has a lock on this directory, which is ignored", directory, holder)
        yield is_alone


def _lock_file(name: str, stack: ExitStack) -> str | None:
    """Create and lock a file for the duration of `stack`; return who has the lock if it is not this process."""
    directory = _open_directory(stack)
    while True:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        stack.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise OSError(errno.EPERM, "it is not a file that only this user can open; remove it", name)
        try:
            if not _flock(descriptor):
                return _holder(status)
        except OSError:
            _remove(name, directory)
            raise
        # Releasing the lock removes the file. If that happened since it was opened, a new one is needed.
        try:
            if os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == status.st_ino:
                stack.callback(_remove, name, directory)
                return None
        except FileNotFoundError:
            continue


def _remove(name: str, directory: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=directory)


def _open_directory(stack: ExitStack) -> int:
    # Build roots do not have it, and do not need it: only the network half locks a package.
    import platformdirs

    try:
        path = platformdirs.user_state_path("osc-containers") / "locks"
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, str(error), "home directory") from None
    if not path.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "there is none", "home directory")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, _DIRECTORY | os.O_NOFOLLOW)
    stack.callback(os.close, descriptor)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise OSError(errno.EPERM, "it is not a directory that only this user can write to; remove it", str(path))
    return descriptor


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(status: os.stat_result) -> str:
    """Return who has the lock on a file: /proc/locks has `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`."""
    try:
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except OSError:
        return "another process"
    for fields in map(str.split, lines):
        if "FLOCK" in fields and any(field.endswith(f":{status.st_ino}") for field in fields):
            return f"process {fields[fields.index('FLOCK') + 3]}"
    return "another process"
