"""Finding and reading the files of descriptions, including those that a build would make first."""

import os
import posixpath
import re
from contextlib import suppress
from pathlib import Path

from osc_containers.errors import DescriptionError
from osc_containers.formats import cpio, xml_reader

_LEVELS, _DIRECTORIES = 2, 200
"""Directories above and below a directory without a description that are looked at for one."""
_GENERATED = re.compile(r"_service:([^:/]+):(?:[^:/]+:)*")
"""osc and the source server give this prefix to the files of a service, and obs-build removes it."""


def find(directory: Path) -> tuple[Path, ...]:
    """Return the descriptions of a package, every `*.kiwi` and `config.xml`, sorted.

    Symbolic links to another description are left out: obs-build makes a `config.xml` that is one, and some packages
    have one. So are copies that OBS made by running a service, `_service:NAME:appliance.kiwi`, if the original is
    there: a build uses only one of the two, and people edit the original.

    :raises DescriptionError: there is none.
    """
    with os.scandir(directory) as scan:
        entries = [e for e in scan if is_description(e.name) and not e.is_dir(follow_symlinks=False)]
    files = [entry.name for entry in entries if not entry.is_symlink()]
    # A link to anything else stays in the list, so that `load` refuses it with a message.
    names = sorted(files + [e.name for e in entries if e.is_symlink() and os.readlink(e) not in files])
    names = [name for name in names if not name.startswith("_service:") or name.rpartition(":")[2] not in files]
    if not names:
        raise DescriptionError(
            f"{directory}: no kiwi description, expected a file '*.kiwi' or 'config.xml'{_where_else(directory)}"
        )
    return tuple(directory / name for name in names)


def _where_else(directory: Path) -> str:
    """Return where a description may be if it is not in `directory`, as the end of a message."""
    if (directory / "_link").is_file():
        return "; this working copy has a link to another package: run 'osc update --expand-link'"
    path = directory.absolute()
    below = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    others = (*path.parents[:_LEVELS], *below[:_DIRECTORIES])
    found = next((each for each in others if _has_description(each)), None)
    return f"; there is one in the directory {os.path.relpath(found, path)!r}" if found else ""


def _has_description(directory: Path) -> bool:
    with suppress(OSError), os.scandir(directory) as scan:
        return any(is_description(entry.name) and entry.is_file() for entry in scan)
    return False


def maker_of(name: str) -> str:
    """Return the name of the service in `_service` that makes a file at every run; empty if it is the packager's."""
    match = _GENERATED.match(name)
    return match[1] if match else ""


def is_description(name: str) -> bool:
    """Tell whether a file is a description by its name, which may have the prefix of a service."""
    plain = _GENERATED.sub("", name, count=1)
    return plain == "config.xml" or (plain.endswith(".kiwi") and not plain.startswith("."))


def load(directory: Path, name: str) -> bytes:
    """Read a regular file of a package, and follow no symbolic links.

    Without such a file it is what obs-build makes before the build: a file that a service has made, without the prefix
    of its name, or a member of a `*.obscpio`.

    :raises ValueError: it is something else.
    """
    path = directory
    # O_NOFOLLOW is only about the last part of a path, but the directories before it may be links, too.
    for part in name.split("/"):
        path /= part
        if path.is_symlink():
            raise ValueError("is a symbolic link, expected a file of the package")
    try:
        return xml_reader.read(path, os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        content = made_for_build(directory, name)
        if content is None:
            raise
        return content


def made_for_build(directory: Path, name: str) -> bytes | None:
    """Return a file that is not in the package, but that obs-build makes before a build, or None; see `load`."""
    for other in sorted(os.listdir(directory)):
        path = directory / other
        if maker_of(other) and other.rpartition(":")[2] == name and not path.is_symlink():
            return xml_reader.read(path, os.O_NOFOLLOW)
        if other.endswith(cpio.SUFFIX) and path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                for member in cpio.members(file):
                    # A member may be called ./FILE, as find(1) prints names for cpio.
                    if posixpath.normpath(member.path) == name:
                        file.seek(member.offset)
                        # One byte more than is allowed, so that the parser refuses the file.
                        return file.read(min(member.size, xml_reader.SIZE_LIMIT + 1))
    return None
