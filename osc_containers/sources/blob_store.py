"""Named files in a directory or in an uncompressed tar archive.

A file is read at the offset where its bytes are, so nothing is unpacked. That is why compressed archives are not
supported.
"""

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from osc_containers.errors import RegistryError
from osc_containers.formats import tar
from osc_containers.fs import lfs_pointer
from osc_containers.sources.local import open_file

_LINK_LIMIT = 8

Opener = Callable[[Path, int], int]
"""Opens a file with flags of open(2), and returns the descriptor."""


class StoredFileStream:
    """The stream of a range of a file (`interface.Stream`)."""

    ignores_range = False

    def __init__(self, descriptor: int, offset: int, start: int, stop: int, where: str) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._position = start
        self._where = where
        self._stop = stop

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the start of `buffer` and return the number of bytes; 0 at the end of the range.

        :raises RegistryError: the file is shorter than expected, or cannot be read.
        """
        # In an archive, other files follow, so a read must end with the range.
        wanted = min(len(buffer), self._stop - self._position)
        if not wanted:
            return 0
        try:
            count = os.preadv(self._descriptor, [buffer[:wanted]], self._offset + self._position)
        except OSError as error:
            raise RegistryError(f"{self._where}: {error.strerror}") from None
        if not count:
            raise RegistryError(f"{self._where}: ends after {self._position} bytes, expected {self._stop}")
        self._position += count
        return count


class StoredFile(NamedTuple):
    """The position of a stored file: `size` bytes of the file `path`, starting at `offset`."""

    path: Path
    offset: int
    size: int
    opener: Opener = open_file

    @contextmanager
    def open(self, start: int = 0, stop: int | None = None) -> Iterator[StoredFileStream]:
        """Open the bytes from `start` to before `stop` (default: the end).

        :raises RegistryError: it cannot be read.
        """
        descriptor = _open(self.path, self.opener)
        try:
            end = self.size if stop is None else stop
            yield StoredFileStream(descriptor, self.offset, start, end, str(self.path))
        finally:
            os.close(descriptor)

    def read(self, limit: int) -> bytes:
        """Return the whole content.

        :raises RegistryError: it is larger than `limit` bytes, or cannot be read.
        """
        if self.size > limit:
            raise RegistryError(f"{self.path}: got {self.size} bytes, expected at most {limit}")
        buffer = memoryview(bytearray(self.size))
        position = 0
        with self.open() as stream:
            while count := stream.readinto(buffer[position:]):
                position += count
        return bytes(buffer)


class BlobStore(Protocol):
    """Files by name."""

    path: Path

    def find(self, name: str) -> StoredFile | None:
        """Return the file `name`, a relative path, or None if there is none."""


class Directory:
    """Files below `path`."""

    def __init__(self, path: Path, opener: Opener = open_file) -> None:
        self.path = path
        self._opener = opener

    def find(self, name: str) -> StoredFile | None:
        """See `BlobStore`. The caller builds `name` from a digest, so it cannot lead out of the directory."""
        path = self.path / name
        try:
            # O_PATH opens nothing: a FIFO does not block, and a device is not touched before its type is known.
            descriptor = self._opener(path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RegistryError(f"{path}: {error.strerror}") from None
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        return StoredFile(path=path, offset=0, size=status.st_size, opener=self._opener)


class Tar:
    """The members of an uncompressed tar archive."""

    def __init__(self, path: Path, opener: Opener = open_file) -> None:
        """Read the headers of all members.

        :raises RegistryError: it is not an uncompressed tar archive, or has too many members.
        """
        self.path = path
        self._opener = opener
        self._files: dict[str, StoredFile] = {}
        self._links: dict[str, str] = {}
        try:
            with os.fdopen(_open(path, opener), "rb") as file:
                for member in tar.members(file):
                    self._add(member)
        except ValueError as error:
            raise RegistryError(f"{path}: {error}") from None

    def _add(self, member: tarfile.TarInfo) -> None:
        # `tar` may have written names with './' in front; `find` is asked for names without it.
        name = os.path.normpath(member.name)
        # The bytes of a sparse file are not stored in one piece, so they cannot be read at an offset.
        if member.isreg() and not member.sparse:
            self._files[name] = StoredFile(
                path=self.path, offset=member.offset_data, size=member.size, opener=self._opener
            )
        elif member.islnk():
            self._links[name] = os.path.normpath(member.linkname)
        elif member.issym():
            # `docker save` stores a layer that occurs twice as a symbolic link to the first one.
            self._links[name] = os.path.normpath(Path(name).parent / member.linkname)

    def find(self, name: str) -> StoredFile | None:
        """See `BlobStore`; links are followed within the archive."""
        # Two links may point to each other, so their number is limited.
        for _ in range(_LINK_LIMIT):
            if name in self._files:
                return self._files[name]
            name = self._links.get(name, "")
        return None


def _open(path: Path, opener: Opener) -> int:
    try:
        descriptor = opener(path, os.O_RDONLY)
        try:
            _check(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise RegistryError(f"{path}: {error.strerror}") from None
    return descriptor


def _check(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise RegistryError(f"{path}: not a file")
    # Otherwise a pointer would be reported as damage, without the command that gets the file.
    if lfs_pointer.is_pointer(os.pread(descriptor, lfs_pointer.LIMIT, 0)):
        raise RegistryError(f"{path}: {lfs_pointer.problem(path.parent)}")
