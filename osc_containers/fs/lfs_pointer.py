"""Pointers of git-lfs: small text files in the place of large ones that were not downloaded.

Spec: git-lfs, docs/spec.md, "The Pointer".
"""

import os
import re
from contextlib import suppress
from pathlib import Path

LIMIT = 1024
"""Bytes of a pointer; git-lfs reads no more than that."""
WRONG = "is a git-lfs pointer, expected the file itself"
# The second host is from before git-lfs had its name; git-lfs accepts it, too (lfs/pointer.go).
_POINTER = re.compile(rb"version https?://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v[0-9]+\r?\n")
_SIZE = re.compile(rb"^size ([0-9]{1,18})\r?$", re.MULTILINE)


def is_pointer(content: bytes) -> bool:
    """Tell whether the beginning of a file, of at least 100 bytes or all of it, is that of a pointer."""
    return bool(_POINTER.match(content))


def is_pointer_file(path: Path) -> bool:
    """Tell whether a regular file is a pointer; False if it cannot be read."""
    with suppress(OSError):
        if path.is_file() and path.stat().st_size <= LIMIT:
            # A FIFO may have taken the place of the file, and opening one would wait for its writer.
            with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
                return is_pointer(file.read(LIMIT))
    return False


def size_of(pointer: bytes) -> int | None:
    """Return the size of the file that a pointer stands for; None if it does not say so."""
    match = _SIZE.search(pointer)
    return int(match[1]) if match else None


def problem(directory: Path) -> str:
    """Return what is wrong with a pointer in a directory, and how to get the file."""
    return f"{WRONG}; {advice(directory)}"


def advice(directory: Path) -> str:
    """Return how to get the files of the pointers in a directory.

    A clone gets them from git-lfs. Elsewhere the pointers come from OBS, which leaves the files out if `lfs=0` is in
    the URL of its clone (obs_scm_bridge).
    """
    path = directory.absolute()
    if any((each / ".git").exists() for each in (path, *path.parents)):
        return "run: git lfs pull"
    return "remove lfs=0 from the scmsync URL of the package, or run 'git lfs pull' where it was cloned"
