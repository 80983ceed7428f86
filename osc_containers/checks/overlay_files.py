"""The files in kiwi's overlay directories, and in an archive that obs-build unpacks into one.

None of them is outside the package, wherever links lead.
"""

import bz2
import errno
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from osc_containers.errors import Error
from osc_containers.formats import tar
from osc_containers.fs import plain_file

_ARCHIVE_LIMIT = 256 << 20
"""Bytes of an archive that are read, unpacked."""
_OPENERS: dict[bytes, Callable[[Path, str], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
"""How to open an archive, by its first bytes."""
_MAGIC_LENGTH = max(map(len, _OPENERS))
_DAMAGES = (zlib.error, lzma.LZMAError)
"""Errors for damaged archives that are neither OSError nor ValueError nor EOFError."""


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


def read_archive(
    archive: Path, starts: tuple[str, ...], is_wanted: Callable[[PurePosixPath], bool], limit: int
) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield path and text of the wanted files below the directories `starts` that have at most `limit` bytes.

    An archive that cannot be read has none. Of a large one, only the beginning is read.
    """
    # It could lead out of the package, or to a device.
    if archive.is_symlink() or not archive.is_file():
        return
    # What the build cannot unpack, it reports.
    with suppress(ValueError, OSError, EOFError, *_DAMAGES), ExitStack() as stack:
        with archive.open("rb") as start:
            magic = start.read(_MAGIC_LENGTH)
        opener = next((each for first, each in _OPENERS.items() if magic.startswith(first)), open)
        file = cast(BinaryIO, _Beginning(stack.enter_context(cast(BinaryIO, opener(archive, "rb")))))
        for member in tar.members(file):
            path = PurePosixPath(member.name.removeprefix("./").lstrip("/"))
            if not member.isreg() or member.issparse() or not str(path).startswith(starts):
                continue
            if is_wanted(path) and member.size <= limit:
                file.seek(member.offset_data)
                yield path, file.read(member.size).decode("utf-8", "replace")


class _Beginning:
    """The first `_ARCHIVE_LIMIT` bytes of a file that may be compressed, from the first one to the last.

    To go back, the file would have to be unpacked again from its beginning.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))
        if position > _ARCHIVE_LIMIT:
            raise EOFError(f"got more than {_ARCHIVE_LIMIT} bytes")
        # A compressed file is unpacked up to this position, and may end before it.
        self._position = self._file.seek(position)
        return self._position

    def read(self, size: int) -> bytes:
        content = self._file.read(max(0, min(size, _ARCHIVE_LIMIT - self._position)))
        self._position += len(content)
        return content
