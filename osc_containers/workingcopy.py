"""The version control that a package is in: what to add to it, and what it has committed."""

import shlex
from collections.abc import Collection
from enum import Enum
from pathlib import Path

from osc_containers.names import ARCHIVE_SUFFIX


class System(Enum):
    """What keeps the revisions of a package."""

    OSC = "osc"
    GIT = "git"


def system_of(directory: Path) -> System | None:
    """Return what the directory is a working copy of, or None where it is none."""
    if (directory / ".osc").is_dir():
        return System.OSC
    path = directory.resolve()
    return System.GIT if any((each / ".git").exists() for each in (path, *path.parents)) else None


def commands_for(directory: Path, names: Collection[str]) -> tuple[str, ...]:
    """Return the shell commands that commit files of a package, osc's where it is in no version control yet."""
    program = (system_of(directory) or System.OSC).value
    shown = [shlex.quote(name) for name in names if not name.endswith(ARCHIVE_SUFFIX)]
    archives = [name for name in names if name.endswith(ARCHIVE_SUFFIX)]
    return (
        " ".join([program, "add", *shown, *(archives if len(archives) < 2 else [f"*{ARCHIVE_SUFFIX}"])]),
        f"{program} commit",
    )
