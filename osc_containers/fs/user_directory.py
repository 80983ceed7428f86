"""Directories in the user's home, for state and cache.

A home that does not exist is not created: a service account has one like /nonexistent.
"""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def find(of_user: Callable[[str], Path]) -> Path:
    """Return the path of our directory, by a function of platformdirs; it may not exist.

    :raises FileNotFoundError: the user has no home directory.
    """
    try:
        path = of_user("osc-containers")
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, str(error), "home directory") from None
    # Old versions of platformdirs return "~/.cache" for a user without a home directory.
    if not path.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "there is none", "home directory")
    return path


def create(path: Path) -> None:
    """Create a directory with mode 0700 if it does not exist.

    :raises FileNotFoundError: it would be in a home directory that does not exist.
    :raises OSError: it cannot be created.
    """
    # As platformdirs does: without HOME, this is the directory that the user database has.
    home = Path(os.path.expanduser("~"))
    if path.is_relative_to(home) and not home.is_dir():
        raise FileNotFoundError(errno.ENOENT, "it does not exist", str(home))
    # The mode is the one that the XDG Base Directory Specification asks for.
    path.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
