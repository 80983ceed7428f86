"""Writing into the tree of an image, without ever leaving it.

The tree may be hostile: links in it are followed as they would be in the running image, with the tree as `/`, component
by component on open directories, so that neither a link nor a race leads out of it.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from osc_containers.fs import atomic, ranges

_LINKS = 40
"""Symbolic links on one path at most, as in Linux (path_resolution(7))."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_HARD_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}
_MODES = {"/tmp": 0o1777, "/var/tmp": 0o1777}  # noqa: S108 - where they are made, they get the mode that they always have


class Tree(NamedTuple):
    """The tree below `root`; paths in it are absolute.

    With `keeps`, what is there and is something else than what shall be is an error; without, it is replaced. An
    `OSError` of any method names the path in the tree, not what was in the way of it.
    """

    root: Path
    keeps: bool = False

    def write(self, path: str, content: bytes, mode: int) -> None:
        """Make a file with exactly that mode, in place of whatever file or link has the name."""
        with self._parent(path) as (parent, name):
            self._expect(name, parent, lambda: _digest(name, parent) == hashlib.sha256(content).digest())
            with atomic.new_file(name, mode, parent) as descriptor:
                ranges.write_all(descriptor, content, 0)

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link, in place of whatever file or link has the name."""
        with self._parent(path) as (parent, name):
            self._expect(name, parent, lambda: _link_target(name, parent) == target)
            with atomic.beside(name, parent) as temporary:
                os.symlink(target, temporary, dir_fd=parent)

    def link(self, path: str, source: Path, *, own: bool = False) -> bool:
        """Make a file of mode 0644 that is `source` by hard link, or a copy where there can be no link.

        A source of another mode or, with `own`, of another owner than this process is copied: a link shares both.
        Return whether it is a link.
        """
        real = source.resolve(strict=True)
        with real.open("rb") as file, self._parent(path) as (parent, name):
            status = os.fstat(file.fileno())
            self._expect(name, parent, lambda: _digest(name, parent) == hashlib.file_digest(file, "sha256").digest())
            if _is_alike(status, own=own) and _hard_link(real, name, parent):
                return True
            with atomic.new_file(name, 0o644, parent) as copy:
                ranges.copy_range(file.fileno(), 0, copy, 0, status.st_size)
        return False

    def _expect(self, name: str, parent: int, is_same: Callable[[], bool]) -> None:
        if self.keeps and _is_there(name, parent) and not is_same():
            raise FileExistsError(errno.EEXIST, "is there already and is something else; rename or remove it")

    def can_link(self, source: Path, *, own: bool = False) -> bool:
        """Tell whether `link` needs no room for `source`, as far as file systems, mode and owner tell."""
        status = source.stat()
        return _is_alike(status, own=own) and status.st_dev == self.root.stat().st_dev

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the directory of `path`, made where it is missing."""
        pure = PurePosixPath(path)
        if not pure.is_absolute() or ".." in pure.parts or "\0" in path:
            raise ValueError(f"got the path {path[:300]!r}, expected an absolute one without '..'")
        with ExitStack() as stack:
            root = _open(self.root, None, stack)
            with atomic.naming(f"{self.root}{path}"):
                yield _walk(root, pure.parent, stack), pure.name


def _walk(root: int, directory: PurePosixPath, stack: ExitStack) -> int:
    """Return the open directory; what is missing on the way is made."""
    opened = [("", root)]
    pending = list(reversed(directory.parts[1:]))
    links = 0
    while pending:
        name = pending.pop()
        if name == "..":
            opened = opened[:-1] or opened
            continue
        here = "/".join(part for part, _ in opened) + "/" + name
        parent = opened[-1][1]
        target = _link_target(name, parent)
        if target is None:
            opened.append((name, _open_or_make(name, parent, here, stack)))
            continue
        links += 1
        if links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith("/"):
            opened = opened[:1]
        pending += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return opened[-1][1]


def _is_alike(status: os.stat_result, *, own: bool) -> bool:
    return stat.S_IMODE(status.st_mode) == 0o644 and (not own or status.st_uid == os.geteuid())


def _is_there(name: str, parent: int) -> bool:
    try:
        os.lstat(name, dir_fd=parent)
    except FileNotFoundError:
        return False
    return True


def _digest(name: str, parent: int) -> bytes | None:
    """Return the SHA-256 of a file, or None where there is no plain file."""
    if not stat.S_ISREG(os.lstat(name, dir_fd=parent).st_mode):
        return None
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent), "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _hard_link(real: Path, name: str, parent: int) -> bool:
    """Make a hard link, or return False where there can be none."""
    try:
        with atomic.beside(name, parent) as temporary:
            os.link(real, temporary, dst_dir_fd=parent)
    except OSError as error:
        if error.errno not in _NO_HARD_LINK:
            raise
        return False
    return True


def directory_mode(path: str) -> int:
    """Return the mode that a directory of the image gets where it is made."""
    return _MODES.get(path, 0o755)


def _open(path: str | Path, parent: int | None, stack: ExitStack) -> int:
    descriptor = os.open(path, _DIRECTORY, dir_fd=parent)
    stack.callback(os.close, descriptor)
    return descriptor


def _open_or_make(name: str, parent: int, here: str, stack: ExitStack) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return _open(name, parent, stack)
    descriptor = _open(name, parent, stack)
    os.fchmod(descriptor, directory_mode(here))
    return descriptor


def _link_target(name: str, parent: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
