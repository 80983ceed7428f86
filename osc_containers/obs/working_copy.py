"""The version control that a package is in: what to add to it, and what it has committed."""

import logging
import os
import shlex
from collections.abc import Collection
from enum import Enum
from pathlib import Path

from osc_containers.errors import Error
from osc_containers.fs import program
from osc_containers.lock.archive_names import ARCHIVE_SUFFIX
from osc_containers.obs import git, osc

logger = logging.getLogger(__name__)


class System(Enum):
    """What keeps the revisions of a package."""

    OSC = "osc"
    GIT = "git"


def system_of(directory: Path) -> System | None:
    """Return what the directory is a working copy of, or None where it is none.

    git comes first: a merge request could add an `.osc` that hides what it changes. An `.osc` in a work tree of git
    only counts if git does not track it and the user's own configuration says that git must ignore it.
    """
    top, has_store = git.find_top(directory), _has_store(directory)
    if not top:
        return System.OSC if has_store else None
    return System.OSC if has_store and _is_ignored(top, directory) else System.GIT


def _has_store(directory: Path) -> bool:
    path = directory / osc.STORE
    return path.is_dir() and not path.is_symlink()


def _is_ignored(top: Path, directory: Path) -> bool:
    try:
        repository = git.open_repository(top, program.outside(directory, os.environ))
        return repository.ignores(directory.resolve() / osc.STORE)
    except Error:
        return False  # git reports it where its answer is needed


def commands_for(directory: Path, names: Collection[str]) -> tuple[str, ...]:
    """Return the shell commands that commit files of a package, osc's where it is in no version control yet."""
    system = system_of(directory) or System.OSC
    if system is System.OSC:  # which warns of files that it has already
        stores = (directory / osc.STORE / "sources", directory / osc.STORE)
        names = [name for name in names if not any((store / name).is_file() for store in stores)]
    archives = [name for name in names if name.endswith(ARCHIVE_SUFFIX)]
    words = [_word(name) for name in names if name not in archives]
    # The shell replaces the pattern with names, which may begin with a dash if others put such files there.
    pattern = f"./*{ARCHIVE_SUFFIX}" if any(directory.glob(f"-*{ARCHIVE_SUFFIX}")) else f"*{ARCHIVE_SUFFIX}"
    words += map(_word, archives) if len(archives) < 2 else [pattern]
    return (*([" ".join([system.value, "add", *words])] if words else []), f"{system.value} commit")


def commands_for_all(directory: Path) -> tuple[str, ...]:
    """Return the shell commands that commit a package with whatever is new in it."""
    if system_of(directory) is System.GIT:
        return "git add .", "git commit"
    return "osc addremove", "osc commit"


def removal_of(directory: Path, name: str) -> str:
    """Return the shell command that removes a file from a package, whether or not it was ever committed."""
    command = "osc rm --force" if system_of(directory) is System.OSC else "rm"
    return f"{command} {_word(name)}"


def _word(name: str) -> str:
    """Return a file name as a word of a shell command that is no option and has no unprintable characters."""
    path = f"./{name}" if name.startswith("-") else name
    if path.isprintable():
        return shlex.quote(path)
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    octal = (c if c.isprintable() else "".join(f"\\{byte:03o}" for byte in os.fsencode(c)) for c in escaped)
    return f"$'{''.join(octal)}'"


def committed(directory: Path, name: str, revision: str | None, limit: int) -> bytes | None:
    """Return a file as a revision has it (without one, the last that is known here), or None where it has none.

    Only a revision of osc needs a network: the file of the last one is kept in `.osc`.

    :raises Error: there is no such revision, no version control, or more than `limit` bytes in the file.
    """
    system = system_of(directory)
    if system is None:
        raise Error(f"{directory}: is no working copy of osc or git; name the file to compare with")
    environ = program.outside(directory, os.environ)
    top = git.find_top(directory)
    if system is System.GIT and top:
        if _has_store(directory):
            logger.warning(
                "%s: ignored, because it is in a work tree of git; to use it, add it to %s/.git/info/exclude",
                *(directory / osc.STORE, top),
            )
        return git.open_repository(top, environ).read(directory.resolve() / name, revision, limit)
    if revision is not None:
        return osc.read(directory, name, revision, limit, environ)
    return osc.kept(directory, name, limit)
