"""Files that are opened once and then used by their descriptor, so that they cannot be exchanged between two uses."""

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from osc_containers.fs import atomic

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class SourceFile(NamedTuple):
    """An open regular file; `status` is that of the file when it was opened."""

    path: Path
    descriptor: int
    status: os.stat_result

    @property
    def is_changeable(self) -> bool:
        """Whether other users can change the content."""
        return self.status.st_uid != os.geteuid() or bool(self.status.st_mode & _WRITABLE_BY_OTHERS)


def open_source(path: Path, stack: ExitStack) -> SourceFile:
    """Open a regular file until `stack` is closed.

    :raises OSError: it cannot be opened, or it is a symbolic link or a special file.
    """
    with atomic.naming(path):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return open_below(directory, path.name, path, stack)
        finally:
            os.close(directory)


def open_below(directory: int, name: str, path: Path, stack: ExitStack) -> SourceFile:
    """Open the regular file `name` of an open directory until `stack` is closed; `path` is for messages and links.

    :raises OSError: as `open_source`.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "got a symbolic link, expected a file; replace it with the file") from None
        raise
    stack.callback(os.close, descriptor)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "got a special file, expected a regular file; remove it")
    return SourceFile(path=path, descriptor=descriptor, status=status)
