"""The files in kiwi's overlay directories, of which none is outside the package, wherever links lead."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from osc_containers.errors import Error
from osc_containers.fs import plain_file


def list_below(directory: Path, start: str) -> Iterator[PurePosixPath]:
    """Yield each file below the directory `start` of an overlay directory, as its path in the image.

    Nothing is listed if one of the directories in these paths is a link.
    """
    top = PurePosixPath(start)
    # Unlike the method of `Path`, `islink` is also false for a name that is too long.
    if any(os.path.islink(directory / each) for each in (top, *top.parents)):
        return
    # Links below it are not followed.
    for parent, directories, names in os.walk(directory / top):
        directories.sort()
        inside = PurePosixPath(Path(parent).relative_to(directory))
        yield from (inside / name for name in sorted(names))


def read(directory: Path, path: PurePosixPath, limit: int) -> str | None:
    """Return the text of a file in an overlay directory.

    It is None if the file cannot be read, is a link, or has more than `limit` bytes.
    """
    try:
        content = plain_file.read(directory, str(path), limit)
    except (Error, OSError):
        return None
    return None if content is None else content.decode("utf-8", "replace")
