"""Files that are opened below a directory, and nowhere else, wherever links in that directory lead."""

import errno
import os
from contextlib import ExitStack
from pathlib import Path

_LINK_LIMIT = 40
"""Symbolic links that are followed in one path, as in Linux (path_resolution(7))."""


class LeadsOutsideError(Exception):
    """A path, or a link in it, leads out of the directory."""


def open_beneath(directory: Path, path: Path, flags: int = os.O_RDONLY) -> int:
    """Open `path`, which may be relative to the working directory, if it is in `directory` and all links stay in it.

    A FIFO is opened without waiting. The kernel does not resolve the path, since it would follow the links. (openat2(2)
    would not, but Python does not offer it.)

    :raises LeadsOutsideError: it leads out of the directory. What is there was not touched.
    :raises OSError: it cannot be opened.
    """
    base = os.path.abspath(directory)
    # The components that are still to be resolved, the next one last. Those of a path outside begin with `..`, which
    # ends the loop below.
    pending = list(reversed(os.path.relpath(os.path.abspath(path), base).split("/")))
    link_count = 0
    with ExitStack() as stack:

        def enter(name: str, parent: int | None) -> int:
            # O_PATH needs no permission to read the directory. O_NOFOLLOW makes this fail if a link has taken its place
            # since it was looked at.
            descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=parent)
            stack.callback(os.close, descriptor)
            return descriptor

        branch = [os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
        stack.callback(os.close, branch[0])
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                # Back on the directories that were opened on the way, and not by `..` on the disk: the current one may
                # have been moved elsewhere meanwhile.
                branch.pop()
                if not branch:
                    raise LeadsOutsideError
                continue
            target = _link_target(name, branch[-1])
            if target is not None:
                link_count += 1
                if link_count > _LINK_LIMIT:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if target.startswith("/"):
                    raise LeadsOutsideError
                # The target of a link takes the place of its name in the path.
                pending += reversed(target.split("/"))
            elif pending:
                branch.append(enter(name, branch[-1]))
            else:
                return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=branch[-1])
        # The path ends in `.`, `..` or a slash, so it is the directory that was reached.
        return os.open(".", flags | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=branch[-1])


def _link_target(name: str, parent: int) -> str | None:
    """Return the target of a symbolic link; None if it is something else."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise
