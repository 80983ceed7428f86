"""Atomic file creation: a file never appears under its name with partial content."""

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from osc_containers.errors import Error
from osc_containers.fs import ranges

_OTHER_FILES = 256
"""Descriptors that a process may need for everything else, mostly network connections."""
_FEW_FILES = 64
"""Descriptors that it needs at least."""

_SUFFIX = ".osc-containers"
# Temporary names are random, so whatever exists under one was put there by somebody else and must not be opened.
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHMOD_UNSUPPORTED = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace `path` with a file of this content and exactly this mode, whatever the umask.

    At any time `path` has either the old content or all of the new content. A symbolic link is replaced, not followed.

    :raises OSError: the file cannot be written; `path` is unchanged.
    """
    with naming(path), new_file(path, mode) as descriptor:
        ranges.write_all(descriptor, content, 0)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Make every `OSError` of the block name `path` instead of a temporary file or no file at all."""
    # Without this, a user would read the name of a temporary file, or none: a failed pwrite(2) knows only a descriptor.
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def new_file(path: Path | str, mode: int = 0o644, directory: int | None = None) -> Iterator[int]:
    """Yield the descriptor of a new file, which is renamed to `path` if the block succeeds and removed if it fails.

    A relative `path` starts at the open directory `directory` if that is given.
    """
    with replacement(path, directory) as temporary:
        # The mode is set last, so that no other user can open the file while it is incomplete.
        descriptor = os.open(temporary, _CREATE, 0o600, dir_fd=directory)
        try:
            yield descriptor
            set_mode(descriptor, mode)
        finally:
            os.close(descriptor)


def set_mode(descriptor: int, mode: int) -> None:
    """Set the mode of an open file, regardless of the umask.

    :raises OSError: the mode cannot be set. On file systems without modes, such as vfat, this is an error only if the
        owner lacks a permission that `mode` grants.
    """
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno not in _CHMOD_UNSUPPORTED or mode & stat.S_IRWXU & ~os.fstat(descriptor).st_mode:
            raise


def flush(descriptor: int) -> None:
    """Report write errors that were deferred, and keep the descriptor open."""
    # NFS and FUSE write back and report errors when any descriptor of the file is closed, so a duplicate is enough.
    os.close(os.dup(descriptor))


def temporary_name(path: Path | str) -> str:
    """Return an unpredictable name in the directory of `path`, in the form that `remove_abandoned` recognizes."""
    parent, name = os.path.split(path)
    # 48 characters are at most 192 bytes of UTF-8, so the result fits in NAME_MAX for every valid name.
    return os.path.join(parent, f".{name[:48]}.{os.urandom(8).hex()}{_SUFFIX}")


def remove_abandoned(directory: Path) -> None:
    """Remove temporary files that killed processes left behind; no other process may be writing to `directory`."""
    for path in directory.glob(f".*.{'[0-9a-f]' * 16}{_SUFFIX}"):
        # A file that remains does no harm, and the next run tries again.
        with suppress(OSError):
            path.unlink()


@contextmanager
def replacement(path: Path | str, directory: int | None = None) -> Iterator[str]:
    """Yield a temporary name; what the block creates there is renamed to `path` if the block succeeds."""
    temporary = temporary_name(path)
    try:
        yield temporary
        # There is no fsync(2) before: after a power cut, a file may be empty or cut off. `verify` finds such archives.
        os.rename(temporary, path, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        # This is needed after a rename, too: rename(2) leaves both names in place if they are links to the same file.
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)


def require_directory(path: Path) -> None:
    """Check that a path leads to a directory.

    :raises OSError: it does not.
    """
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def require_writable(directory: Path) -> None:
    """Check that files can be created in a directory, as far as that can be told without creating one.

    :raises OSError: they cannot.
    """
    require_directory(directory)
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(directory))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "no files can be created there", str(directory))


def require_symlinks(directory: Path) -> None:
    """Check that symbolic links can be created in a directory: exfat and vfat have none.

    :raises OSError: they cannot.
    """
    name = temporary_name(directory / "link")
    try:
        os.symlink("nowhere", name)
    except OSError as error:
        raise OSError(error.errno, "no symbolic links can be created there", str(directory)) from None
    os.unlink(name)


def describe_shortage(directory: Path, needed: int) -> str:
    """Return a message if the file system of `directory` has less than `needed` bytes free, else an empty string.

    Space that is reserved for root does not count as free. Some FUSE file systems report no size; they never run short.

    :raises OSError: the file system cannot be queried.
    """
    with naming(directory):
        info = os.statvfs(directory)
    free = info.f_bavail * info.f_frsize
    if needed <= free or not info.f_blocks:
        return ""
    return f"no space left; the archives need {needed} bytes, {free} are free"


def allow_open(count: int) -> None:
    """Raise the soft limit on open files, often 1024, so that this process can have `count` of them open at a time.

    :raises Error: the hard limit is lower than that.
    """
    # In Python, RLIM_INFINITY is -1, so it cannot be compared with a number of files.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Failing here is better than running out of descriptors in the middle of a download.
    least = count + _FEW_FILES
    if hard != resource.RLIM_INFINITY and hard < least:
        raise Error(f"limit on open files: got {hard}, expected at least {least}; raise it (ulimit -Hn)")
    needed = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
