"""Shell commands for messages: each of them works in the directory of the package.

osc refuses its own commands in a work tree of git (osc/store.py, `git_is_unsupported`), and its services where it does
not know to which project and package a directory belongs.
"""

import os
import shlex
from collections.abc import Collection, Iterable, Mapping
from enum import Enum, auto
from pathlib import Path

from osc_containers.lock.archive_names import ARCHIVE_SUFFIX, BLOB_SUFFIX
from osc_containers.obs import git, osc, working_copy
from osc_containers.obs.parameters import PREFETCH
from osc_containers.obs.service_file import Entry
from osc_containers.obs.working_copy import System

_LARGE = (ARCHIVE_SUFFIX, BLOB_SUFFIX)
"""The ends of the names of files that hold images."""

_RUNS = {"manual": "osc service manualrun", "disabled": "osc service disabledrun", "localonly": "osc service run"}
"""The commands that run services of these modes."""


class Place(Enum):
    """What a directory is to osc."""

    PACKAGE = auto()
    """The working copy of a package."""
    PROJECT = auto()
    """The working copy of a project; packages are in directories below it."""
    GIT_PACKAGE = auto()
    """A work tree of git, for which `git-obs meta` has recorded project and package."""
    GIT = auto()
    """Any other work tree of git."""
    NONE = auto()
    """A directory without version control."""


_UNCOMMITTABLE: Mapping[Place, tuple[str, ...]] = {
    Place.NONE: (),
    Place.PROJECT: ("osc mkpac NAME  # this directory is the project; move the files of the package to NAME",),
}


def place_of(directory: Path) -> Place:
    """Return what a directory is to osc."""
    system = working_copy.system_of(directory)
    if system is System.OSC:
        # Only the store of a package names one.
        has = {name for name in ("_project", "_package") if (directory / osc.STORE / name).is_file()}
        return Place.PROJECT if has == {"_project"} else Place.PACKAGE
    if system is System.GIT:
        return Place.GIT_PACKAGE if git.has_obs_metadata(directory) else Place.GIT
    return Place.NONE


def own(directory: Path, words: str) -> str:
    """Return a command of ours, with its arguments in `words`.

    Under the name of osc it needs osc's configuration, which users of git alone may not have.
    """
    return f"osc-containers {words}" if place_of(directory) in (Place.GIT, Place.NONE) else f"osc containers {words}"


def prefetch(directory: Path, entries: Iterable[Entry] = ()) -> str:
    """Return the command that runs the prefetch: that of osc if `_service` has an entry which it runs here."""
    modes = [entry.mode for entry in entries if entry.name == PREFETCH and entry.mode in _RUNS]
    if modes and place_of(directory) in (Place.PACKAGE, Place.GIT_PACKAGE):
        return _RUNS[modes[0]]
    return own(directory, "prefetch")


def add(directory: Path, names: Collection[str]) -> str:
    """Return the command that adds files to version control; empty if there is none or nothing to add."""
    place = place_of(directory)
    if not names or place in (Place.NONE, Place.PROJECT):
        return ""
    words = [_word(name) for name in names if not name.endswith(_LARGE)]
    for suffix in _LARGE:
        group = [name for name in names if name.endswith(suffix)]
        # The shell replaces the pattern with names, which may begin with a dash if others put such files there.
        pattern = f"./*{suffix}" if any(directory.glob(f"-*{suffix}")) else f"*{suffix}"
        words += map(_word, group) if len(group) < 2 else [pattern]
    if place is Place.PACKAGE:
        command = "osc add"
    else:
        command = "git add --force" if working_copy.excludes(directory, list(names)) else "git add"
    return " ".join([command, *words])


def lfs(directory: Path, names: Collection[str]) -> str:
    """Return what git-lfs needs to know of large files; empty without git, or if it seems to know."""
    suffixes = [suffix for suffix in _LARGE if any(name.endswith(suffix) for name in names)]
    attributes = directory / ".gitattributes"
    known = attributes.read_text("utf-8", "replace") if attributes.is_file() else ""
    suffixes = [suffix for suffix in suffixes if f"*{suffix} " not in known]
    if not suffixes or place_of(directory) not in (Place.GIT, Place.GIT_PACKAGE):
        return ""
    patterns = " ".join(f"'*{suffix}'" for suffix in suffixes)
    return f"if the repository keeps large files in git-lfs, first run: git lfs track {patterns}"


def commit(directory: Path, names: Collection[str]) -> tuple[str, ...]:
    """Return the commands that commit files of a package; none without version control."""
    place = place_of(directory)
    if place in _UNCOMMITTABLE:
        return _UNCOMMITTABLE[place]
    if place is Place.PACKAGE:  # osc commits changed files by itself, and warns if they are added
        names = working_copy.untracked(directory, names)
    command = add(directory, names)
    return (*([command] if command else []), "osc commit" if place is Place.PACKAGE else "git commit")


def commit_all(directory: Path) -> tuple[str, ...]:
    """Return the commands that commit a package with whatever is new in it; none without version control."""
    place = place_of(directory)
    if place in _UNCOMMITTABLE:
        return _UNCOMMITTABLE[place]
    return ("osc addremove", "osc commit") if place is Place.PACKAGE else ("git add .", "git commit")


def removal_of(directory: Path, name: str) -> str:
    """Return the command that removes a file from a package, whether or not it was ever committed."""
    command = "osc rm --force" if place_of(directory) is Place.PACKAGE else "rm"
    return f"{command} {_word(name)}"


def _word(name: str) -> str:
    """Return a file name as a word of a shell command that is no option and has no unprintable characters."""
    path = f"./{name}" if name.startswith("-") else name
    if path.isprintable():
        return shlex.quote(path)
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    # Shells read octal escapes in $'…' as bytes, so that the command is printable and still names the file.
    octal = (c if c.isprintable() else "".join(f"\\{byte:03o}" for byte in os.fsencode(c)) for c in escaped)
    return f"$'{''.join(octal)}'"
