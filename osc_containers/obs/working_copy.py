"""The version control that a package is in: what to add to it, and what it has committed."""

import logging
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path

from osc_containers.errors import Error
from osc_containers.fs import lfs_pointer, program
from osc_containers.obs import git, osc

logger = logging.getLogger(__name__)

_COMPARED = 1 << 20
"""Bytes of a file that is compared with its committed content."""


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
    # A link leads to the store of another working copy.
    return path.is_dir() and not path.is_symlink()


def _is_ignored(top: Path, directory: Path) -> bool:
    try:
        repository = git.open_repository(top, program.outside(directory, os.environ))
        return repository.ignores(directory.resolve() / osc.STORE)
    except Error:
        return False  # git reports it where its answer is needed


def service_error(directory: Path) -> str:
    """Return the error of services that the OBS server ran, as osc last heard of it; empty if there was none."""
    return osc.service_error(directory) if system_of(directory) is System.OSC else ""


def untracked(directory: Path, names: Collection[str]) -> list[str]:
    """Return those of the files `names` of a package that version control does not know; none without version control.

    :raises Error: git is not installed, or does not trust the owner of the repository.
    """
    system, top = system_of(directory), git.find_top(directory)
    if system is System.GIT and top:
        repository = git.open_repository(top, program.outside(directory, os.environ))
        return repository.untracked(directory.resolve(), list(names))
    return osc.untracked(directory, names) if system is System.OSC else []


def excludes(directory: Path, names: Sequence[str]) -> bool:
    """Tell whether git would refuse to add one of the files without --force; False if it cannot tell."""
    system, top = system_of(directory), git.find_top(directory)
    if system is System.GIT and top:
        with suppress(Error):
            repository = git.open_repository(top, program.outside(directory, os.environ))
            return repository.excludes(directory.resolve(), names)
    return False


def add(directory: Path, names: Sequence[str]) -> None:
    """Add files of a package to its version control.

    :raises Error: it cannot be done here, or only by a program that the repository configures.
    """
    system, top = system_of(directory), git.find_top(directory)
    environ = program.outside(directory, os.environ)
    if system is System.GIT and top:
        git.open_repository(top, environ).add(directory.resolve(), names)
    elif system is System.OSC:
        osc.add(directory, names, environ)


def uncommitted(directory: Path, names: Collection[str]) -> list[str]:
    """Return those of the files `names` of a package that are not committed as they are, or may not be.

    Of large files, only the sizes are compared. Without version control, no file is committed.
    """
    return [name for name in names if not _is_committed(directory, name)]


def _is_committed(directory: Path, name: str) -> bool:
    size = (directory / name).stat().st_size
    try:
        if size > _COMPARED:
            return _committed_size(directory, name) == size
        content = committed(directory, name, None, _COMPARED)
    except (Error, OSError):
        return False
    # git only has the pointer of a file in git-lfs, which says how large the file is.
    if content is not None and lfs_pointer.is_pointer(content):
        return lfs_pointer.size_of(content) == size
    return content == (directory / name).read_bytes()


def _committed_size(directory: Path, name: str) -> int | None:
    """Return the size of a file in the last revision that is known here, also if git-lfs keeps it elsewhere."""
    system, top = system_of(directory), git.find_top(directory)
    if system is System.GIT and top:
        repository = git.open_repository(top, program.outside(directory, os.environ))
        path = directory.resolve() / name
        size = repository.size(path)
        # The file itself is large, so such a small one can only be its pointer, or an older version.
        if size is not None and size <= lfs_pointer.LIMIT:
            return lfs_pointer.size_of(repository.read(path, None, lfs_pointer.LIMIT) or b"")
        return size
    return osc.kept_size(directory, name) if system is System.OSC else None


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
