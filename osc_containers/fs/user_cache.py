"""The user's cache. It only saves time: if anything is wrong with it, the run goes on without it.

Somebody who can change a file here can change an archive. So directories and files are used only if they belong to the
user, and if others can neither write to them nor reach them by another name.
"""

import fcntl
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

import platformdirs

from osc_containers.fs import user_directory

logger = logging.getLogger(__name__)

VERIFIED = "verified"
"""The directory for the state of files that were verified (see `verified_files`)."""
DOWNLOADS = "downloads"
"""The directory for locks on blobs that are being downloaded (see `blob_lock`)."""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def directory() -> Path:
    """Return the path of our directory in the user's cache; it may not exist.

    :raises OSError: the user has no cache.
    """
    return user_directory.find(platformdirs.user_cache_path)


def note_if_unusable() -> None:
    """Log why there is no cache, if there is none."""
    try:
        os.close(open_directory())
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        logger.debug("no cache, so that interrupted downloads cannot be resumed: %s", reason)


def open_directory(name: str = "", *, create: bool = True) -> int:
    """Open our directory in the cache, or the directory `name` in it, and return the descriptor.

    With `create` it is created with mode 0700 if it does not exist.

    :raises OSError: there is no such directory, or others can write to it.
    """
    path = directory()
    if create:
        user_directory.create(path.parent)
    descriptor = _open_own(path, None, create=create)
    if not name:
        return descriptor
    try:
        return _open_own(name, descriptor, create=create)
    finally:
        os.close(descriptor)


def _open_own(path: Path | str, parent: int | None, *, create: bool) -> int:
    if create:
        with suppress(FileExistsError):
            os.mkdir(path, 0o700, dir_fd=parent)
    descriptor = os.open(path, _OPEN_DIRECTORY, dir_fd=parent)
    try:
        # The open directory is checked, and not its name, which may belong to another one by now.
        status = os.fstat(descriptor)
        _refuse_others(status, str(path))
        # Others could only read, so the content can be trusted; from now on they cannot read either.
        if status.st_mode & _FOR_OTHERS:
            os.fchmod(descriptor, 0o700)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_file(name: str, flags: int, parent: int) -> int:
    """Open, or create with mode 0600, a file in the open directory `parent`, and return the descriptor.

    :raises OSError: it is not a regular file of the user's, or others can change it.
    """
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        status = os.fstat(descriptor)
        _refuse_others(status, name)
        _refuse_other_names(status, name)
        if status.st_mode & _FOR_OTHERS:
            os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_lock(descriptor: int) -> bool:
    """Lock an open file; return False if another run has it.

    :raises OSError: the file system has no locks (some NFS).
    """
    try:
        # Not lockf(3): a process loses such a lock when it closes any other descriptor of the file.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(name: str, descriptor: int, directory: int | None) -> bool:
    """Tell whether an open file still has this name in an open directory: another run may rename or remove it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=directory, follow_symlinks=False))
    except OSError:
        return False


def _refuse_others(status: os.stat_result, name: str) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & _WRITABLE_BY_OTHERS:
        raise PermissionError(f"{name}: others can change it")


def _refuse_other_names(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise PermissionError(f"{name}: got a special file or a file with several names, expected a plain file")
