"""Writes into the directory tree of an image that never leave that tree.

The tree may be hostile. Symbolic links in it are followed as in the running image, where the tree is `/`. Each path is
resolved component by component on open directories, so neither a link nor a race leads out of the tree.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from osc_containers.errors import VerificationError
from osc_containers.fs import atomic, ranges
from osc_containers.fs.ranges import FileSlice
from osc_containers.fs.source_file import SourceFile, open_below

_LINK_LIMIT = 40
"""Symbolic links that are followed in one path, as in Linux (path_resolution(7))."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A source that was deleted meanwhile, another file system, a file system without hard links or a kernel that forbids
# them, and too many links to the source.
_NO_HARD_LINK = {errno.ENOENT, errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}
_MODES = {"/tmp": 0o1777, "/var/tmp": 0o1777}  # noqa: S108 - directories of the image, which any user may write to


Part: TypeAlias = bytes | tuple[FileSlice, int]
"""A part of a file: known bytes, or that many bytes of another file."""


class Tree(NamedTuple):
    """The directory tree below `root`. Paths in it are absolute; missing parent directories are created for new files.

    Existing files and links are replaced. With `keeps`, only those that already have the requested content are; any
    other is an error.

    All methods raise `OSError`, with the path inside the tree, if that path cannot be written, and `ValueError` if it
    is not absolute or contains `..`.
    """

    root: Path
    keeps: bool = False

    def write(self, path: str, content: bytes, mode: int) -> None:
        """Write a file with exactly this mode, whatever the umask."""
        with self._parent(path) as (parent, name):
            self._check_existing(name, parent, lambda: _sha256(name, parent) == hashlib.sha256(content).hexdigest())
            with atomic.new_file(name, mode, parent) as descriptor:
                ranges.write_all(descriptor, content, 0)

    def symlink(self, path: str, target: str) -> None:
        """Create a symbolic link."""
        with self._parent(path) as (parent, name):
            self._check_existing(name, parent, lambda: _link_target(name, parent) == target)
            with atomic.replacement(name, parent) as temporary:
                os.symlink(target, temporary, dir_fd=parent)

    def link(self, path: str, source: SourceFile) -> bool:
        """Create a file of mode 0644 with the content of `source`: a hard link if possible, otherwise a copy.

        A hard link shares mode and owner with its source, and every later change. So the source is copied if it has
        another mode.

        :returns: whether it is a hard link.
        """
        content, size = FileSlice(source.descriptor, 0), source.status.st_size
        with self._parent(path) as (parent, name):
            self._check_existing(name, parent, lambda: _sha256(name, parent) == content.sha256(size))
            if stat.S_IMODE(source.status.st_mode) == 0o644:
                try:
                    with atomic.replacement(name, parent) as temporary:
                        _hard_link(source, temporary, parent)
                except OSError as error:
                    if error.errno not in _NO_HARD_LINK:
                        raise
                else:
                    return True
            _assemble([(content, size)], name, parent)
        return False

    def copy(self, path: str, content: FileSlice, size: int, check: Callable[[FileSlice], None] | None = None) -> None:
        """Create a file with the first `size` bytes of `content`, as `assemble` does."""
        self.assemble(path, [(content, size)], check)

    def assemble(self, path: str, parts: Sequence[Part], check: Callable[[FileSlice], None] | None = None) -> None:
        """Create a file of mode 0644 of these parts, in this order.

        File systems that share blocks do that (btrfs, XFS). If other users can change the parts, pass `check`, which
        raises ValueError for a wrong copy: they may have been changed after their verification.

        :raises VerificationError: the copy is wrong; it is removed again.
        """
        with self._parent(path) as (parent, name):
            self._check_existing(name, parent, lambda: _sha256(name, parent) == _sha256_of(parts))
            _assemble(parts, name, parent, check)

    def open(self, path: str, stack: ExitStack) -> SourceFile:
        """Open an existing regular file until `stack` is closed; nothing is created."""
        with self._parent(path, create=False) as (parent, name):
            return open_below(parent, name, self.root / path.removeprefix("/"), stack)

    def _check_existing(self, name: str, parent: int, is_same: Callable[[], bool]) -> None:
        if not self.keeps:
            return
        try:
            os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return
        if not is_same():
            raise FileExistsError(errno.EEXIST, "already exists with different content; rename or remove it")

    @contextmanager
    def _parent(self, path: str, *, create: bool = True) -> Iterator[tuple[int, str]]:
        """Yield the open parent directory of `path`, created if it is missing and `create`, and the last component."""
        pure = PurePosixPath(path)
        if not pure.is_absolute() or ".." in pure.parts or "\0" in path:
            raise ValueError(f"got path {path[:300]!r}, expected an absolute path without '..'")
        with ExitStack() as stack:
            # The root is opened first, so that an error about it names the root and not the path.
            root = _open(self.root, None, stack)
            with atomic.naming(f"{self.root}{path}"):
                yield _open_directory(root, pure.parent, stack, create=create), pure.name


def _hard_link(source: SourceFile, name: str, directory: int) -> None:
    # The path may lead to another file by now, so the link is made from the descriptor. A build root may lack /proc,
    # but it has no other users.
    by_descriptor = f"/proc/self/fd/{source.descriptor}"
    if os.path.exists(by_descriptor):
        os.link(by_descriptor, name, dst_dir_fd=directory, follow_symlinks=True)
    else:
        os.link(source.path, name, dst_dir_fd=directory, follow_symlinks=False)


def _assemble(
    parts: Iterable[Part], name: str, directory: int, check: Callable[[FileSlice], None] | None = None
) -> None:
    with atomic.new_file(name, 0o644, directory) as descriptor:
        target = FileSlice(descriptor, 0)
        for part in parts:
            content, size = (None, len(part)) if isinstance(part, bytes) else part
            if content:
                content.copy(target, size)
            elif isinstance(part, bytes):
                target.write(part)
            target = target.at(size)
        try:
            if check:
                check(FileSlice(descriptor, 0))
        except ValueError as error:
            raise VerificationError(f"{name}: changed after its verification: {error}; run again") from None


def _sha256_of(parts: Iterable[Part]) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        for chunk in [part] if isinstance(part, bytes) else part[0].chunks(0, part[1]):
            hasher.update(chunk)
    return hasher.hexdigest()


def directory_mode(path: str) -> int:
    """Return the mode of a newly created directory, by its path in the image."""
    return _MODES.get(path, 0o755)


def _open_directory(root: int, directory: PurePosixPath, stack: ExitStack, *, create: bool) -> int:
    """Open a directory of the tree; with `create`, what is missing of its path is created.

    The kernel must not resolve the path, because it would follow absolute links and `..` out of the tree. (openat2(2)
    would not, but Python does not offer it.) So this function keeps a stack of the open directories on the way down,
    from which `..` removes the last one.
    """
    branch = [("", root)]
    pending = list(reversed(directory.parts[1:]))
    link_count = 0
    while pending:
        name = pending.pop()
        if name == "..":
            branch = branch[:-1] or branch  # in `/`, `..` is `/`
            continue
        parent = branch[-1][1]
        target = _link_target(name, parent)
        if target is None:
            # The mode depends on where the directory really is, and not on the links that lead there.
            path = "/".join(part for part, _ in branch) + "/" + name
            mode = directory_mode(path)
            child = _open_or_create(name, parent, mode, stack) if create else _open(name, parent, stack)
            branch.append((name, child))
            continue
        link_count += 1
        if link_count > _LINK_LIMIT:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith("/"):
            # In the running image, this is `/`.
            branch = branch[:1]
        pending += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return branch[-1][1]


def _open_or_create(name: str, parent: int, mode: int, stack: ExitStack) -> int:
    # Until the directory has its final mode, no other user can put anything into it.
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        # If a link has taken its place meanwhile, O_NOFOLLOW makes this fail.
        return _open(name, parent, stack)
    descriptor = _open(name, parent, stack)
    os.fchmod(descriptor, mode)  # unlike mkdir(2), this ignores the umask
    return descriptor


def _open(path: str | Path, parent: int | None, stack: ExitStack) -> int:
    descriptor = os.open(path, _DIRECTORY, dir_fd=parent)
    stack.callback(os.close, descriptor)
    return descriptor


def _sha256(name: str, parent: int) -> str | None:
    """Return the SHA-256 of a file in hexadecimal, or None if it is not a regular file."""
    # Opening a device may have an effect, so the type is checked first.
    if not stat.S_ISREG(os.lstat(name, dir_fd=parent).st_mode):
        return None
    with ExitStack() as stack:
        # Another file may have taken its place meanwhile: this neither waits for a FIFO, nor reads one.
        found = open_below(parent, name, Path(name), stack)
        return FileSlice(found.descriptor, 0).sha256(found.status.st_size)


def _link_target(name: str, parent: int) -> str | None:
    """Return the target of a symbolic link, or None if there is no link of this name."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):  # no link, or nothing at all
            return None
        raise
