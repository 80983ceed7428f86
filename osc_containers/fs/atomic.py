"""Writing files so that no half of one is ever seen under its name, and moving bytes between files."""

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
"""Files that a process has open besides: connections above all."""

_TEMPORARY = ".osc-containers"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_MODES = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Give `path` the content and exactly that mode, whatever the umask; it has the old content or the new, never half.

    A symbolic link there is replaced, not followed.
    """
    with naming(path), new_file(path, mode) as descriptor:
        ranges.write_all(descriptor, content, 0)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Let an `OSError` of the block name `path`, and not a temporary file or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def new_file(path: Path | str, mode: int = 0o644, directory: int | None = None) -> Iterator[int]:
    """Open a new file beside `path` for writing; it takes that name when the block ends well, else it is removed.

    A relative `path` starts at the open `directory` where that is given.
    """
    with beside(path, directory) as temporary:
        descriptor = os.open(temporary, _NEW, 0o600, dir_fd=directory)
        try:
            yield descriptor
            set_mode(descriptor, mode)
        finally:
            os.close(descriptor)


def set_mode(descriptor: int, mode: int) -> None:
    """Give an open file exactly that mode; where files have none of their own (vfat), its owner must get no less."""
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno not in _NO_MODES or mode & stat.S_IRWXU & ~os.fstat(descriptor).st_mode:
            raise


def flush(descriptor: int) -> None:
    """Let the file system say what it could not write: NFS and FUSE say it to who closes the file."""
    os.close(os.dup(descriptor))


def temporary_name(path: Path | str) -> str:
    """Return a name beside `path` that nobody can guess, and that `remove_abandoned` knows."""
    parent, name = os.path.split(path)
    return os.path.join(parent, f".{name[:48]}.{os.urandom(8).hex()}{_TEMPORARY}")


def remove_abandoned(directory: Path) -> None:
    """Remove the files that writers which were killed left under temporary names; none may be at work there."""
    for path in directory.glob(f".*.{'[0-9a-f]' * 16}{_TEMPORARY}"):
        with suppress(OSError):
            path.unlink()


@contextmanager
def beside(path: Path | str, directory: int | None = None) -> Iterator[str]:
    """Give out a name beside `path`; what is made under it takes the name `path` when the block ends well."""
    temporary = temporary_name(path)
    try:
        yield temporary
        os.rename(temporary, path, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        # Also after a rename: between two links to one file rename(2) does nothing and leaves both.
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)


def allow_open(count: int) -> None:
    """Let this process have `count` files open at a time, as far as its hard limit goes: the soft one is often 1024.

    :raises Error: it does not go that far.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Error(f"limit on open files: got {hard}, expected {count} and some more; raise it (ulimit -Hn)")
    needed = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
