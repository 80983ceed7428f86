"""Partial archives: files that survive an interrupted run, and show by themselves what they hold.

They are in the user's cache if that is on the file system of the target, so that a complete one can be renamed instead
of copied. Otherwise they have no name, or one beside the target, and are gone at the end of the run. Their state is
not recorded anywhere: a partial file starts as one hole, so what is not a hole was written. All of it is verified
before use.
"""

import errno
import hashlib
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from osc_containers.fs import atomic, ranges, user_cache

_SUFFIX = ".part"
_UNUSED_LIMIT = 14 * 24 * 3600
"""Seconds after which a file that no run used is removed from the cache."""
_SIZE_LIMIT = 8 << 30
"""Bytes that all partial files may have that the present run does not need."""
_NO_TRUNCATE = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}
_DESCRIPTORS = "/proc/self/fd"
_SECTOR = 512  # The unit of st_blocks (stat(2)).
_OPEN = os.O_RDWR | os.O_CREAT


@contextmanager
def part(target: Path, key: str, size: int, owner: str = "") -> Iterator[int]:
    """Open a partial file of `size` bytes, which is renamed to `target`, with mode 0644, if the block succeeds.

    `key` identifies the content: a file that an earlier run left for the same key is continued. `owner` stands for the
    package (see `tidy`). If the block fails, a file in the cache stays there, and one beside the target is removed.
    After an interrupt, the descriptor stays open.
    """
    cached = _open_cached(target, key, size, owner)
    name, descriptor = cached or _open_beside(target)
    is_cached = cached is not None
    # There may be thousands of these blocks, and an ExitStack would take a kilobyte in each.
    try:
        if not is_cached:
            with atomic.naming(target):
                _set_size(descriptor, size)
        yield descriptor
        with atomic.naming(target), _cache_directory(is_cached) as directory:
            if not name:
                _give_name(descriptor, target)
            elif user_cache.is_at(name, descriptor, directory):
                atomic.set_mode(descriptor, 0o644)
                os.rename(name, target, src_dir_fd=directory)
            else:
                # Somebody cleared the cache, and another run may have created a file of the same name by now.
                with atomic.new_file(target) as copy:
                    ranges.copy_range(descriptor, 0, copy, 0, size)
    except BaseException as error:
        if not is_cached and name:
            with suppress(OSError):
                os.unlink(name)
        # After Ctrl-C, the run ends without waiting for the threads that write to the file. So it stays open: if not,
        # the next file to be opened could get its number, and they would write to that one.
        if not isinstance(error, KeyboardInterrupt):
            os.close(descriptor)
        raise
    os.close(descriptor)


def _open_cached(target: Path, key: str, size: int, owner: str) -> tuple[str, int] | None:
    """Open the file in the cache; None if another run uses it, or if anything is wrong there."""
    with suppress(OSError), ExitStack() as directories:
        directory = _open_cache_for(target)
        directories.callback(os.close, directory)
        name = f"{key}{'.' if owner else ''}{owner}{_SUFFIX}"
        with ExitStack() as own:
            descriptor = user_cache.open_file(name, _OPEN, directory)
            own.callback(os.close, descriptor)
            if user_cache.try_lock(descriptor) and user_cache.is_at(name, descriptor, directory):
                _set_size(descriptor, size)
                own.pop_all()
                return name, descriptor
    return None


def _adopt(name: str, own: str, directory: int) -> bool:
    """Rename the partial file of another package to `own`, if no run uses it, and return whether that was done."""
    descriptor = user_cache.open_file(name, os.O_RDWR, directory)
    try:
        is_unused = user_cache.try_lock(descriptor) and user_cache.is_at(name, descriptor, directory)
        if is_unused:
            os.rename(name, own, src_dir_fd=directory, dst_dir_fd=directory)
        return is_unused
    finally:
        os.close(descriptor)


def _key_of(name: str) -> str:
    return name.partition(".")[0] if name.endswith(_SUFFIX) else ""


@contextmanager
def _cache_directory(is_cached: bool) -> Iterator[int | None]:
    """Open the cache again: a descriptor of it for each of a thousand files would be too many."""
    directory = None
    if is_cached:
        with suppress(OSError):
            directory = user_cache.open_directory(create=False)
    try:
        yield directory
    finally:
        if directory is not None:
            os.close(directory)


def _open_beside(target: Path) -> tuple[str, int]:
    """Open a new file on the file system of `target`.

    It has no name until it is complete, so that nobody adds it to git while it grows, and nothing is left of a run that
    is killed. Where the file system cannot do that, it has a temporary name beside `target`.
    """
    name = ""
    try:
        # Without /proc, `_give_name` could not give the file a name.
        if not os.path.exists(_DESCRIPTORS):
            raise FileNotFoundError(_DESCRIPTORS)
        descriptor = os.open(target.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        name = atomic.temporary_name(target)
        with atomic.naming(target):
            descriptor = os.open(name, _OPEN | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return name, descriptor


def _give_name(descriptor: int, target: Path) -> None:
    """Let a file without a name replace `target`."""
    atomic.set_mode(descriptor, 0o644)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # linkat(2) does not replace a file, but rename(2) does.
        with atomic.replacement(target.name, directory) as temporary:
            # Python follows the link only if a directory is given (linkat(2)).
            os.link(f"{_DESCRIPTORS}/{descriptor}", temporary, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def reusable_bytes(target: Path) -> Mapping[str, int]:
    """Return how many bytes of the disk the partial files that can be renamed to `target` have, by key."""
    return {_key_of(name): size for name, size in _files_for(target)}


def make_room(target: Path, keys: Collection[str], needed: int) -> None:
    """Remove partial files of other keys that no run uses, the oldest first, until `needed` bytes are free."""
    with suppress(OSError):
        directory = _open_cache_for(target)
        try:
            for entry in _by_age(directory):
                if not atomic.describe_shortage(target.parent, needed):
                    break
                if _key_of(entry.name) not in keys:
                    # A file that cannot be removed, or that another run removes meanwhile, must not keep others.
                    with suppress(OSError):
                        _remove_if_unused(entry.name, directory)
        finally:
            os.close(directory)


def _files_for(target: Path) -> Iterator[tuple[str, int]]:
    """Yield name and allocated bytes of each partial file that can be renamed to `target`."""
    with suppress(OSError):
        directory = _open_cache_for(target)
        try:
            for entry in _by_age(directory):
                yield entry.name, entry.stat(follow_symlinks=False).st_blocks * _SECTOR
        finally:
            os.close(directory)


def _set_size(descriptor: int, size: int) -> None:
    # A new file is not truncated to nothing first: ext4 would then write all of it when it is closed (auto_da_alloc).
    if os.fstat(descriptor).st_size not in (0, size):
        os.ftruncate(descriptor, 0)
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        # Some FUSE file systems (fusefat) cannot extend a file like this, but by writing beyond its end.
        if error.errno not in _NO_TRUNCATE or not size:
            raise
        os.pwrite(descriptor, b"\0", size - 1)


def _open_cache_for(target: Path) -> int:
    """Open the directory for partial files in the user's cache.

    :raises OSError: there is none, or files cannot be renamed from there to `target`.
    """
    directory = user_cache.open_directory()
    try:
        # Files cannot be renamed between two file systems, nor between two mounts of the same one. The kernel checks
        # that before it looks up the name, so a file that does not exist is enough to find out.
        missing = atomic.temporary_name(target)
        with suppress(FileNotFoundError):
            os.rename(os.path.basename(missing), missing, src_dir_fd=directory)
    except BaseException:
        os.close(directory)
        raise
    return directory


def owner_of(package: Path) -> str:
    """Return what stands for a package in the names of its partial files."""
    return hashlib.sha256(os.fsencode(os.path.realpath(package))).hexdigest()[:16]


def has_content(owner: str) -> bool:
    """Tell whether an interrupted run of `owner` left something that the next one can continue."""
    with suppress(OSError):
        directory = user_cache.open_directory(create=False)
        try:
            return any(
                entry.stat(follow_symlinks=False).st_blocks
                for entry in _by_age(directory)
                if entry.name.endswith(f".{owner}{_SUFFIX}")
            )
        finally:
            os.close(directory)
    return False


def tidy(owner: str, keys: Collection[str]) -> None:
    """Give partial files with one of `keys` to `owner`, and remove those that will hardly be used again.

    These are files of `owner` with other keys, what no run used for two weeks, and the oldest ones if all together have
    more than `_SIZE_LIMIT` bytes. Files that a run uses now are left alone. Old records of verified files go, too.
    """
    _remove_stale()
    with suppress(OSError):
        directory = user_cache.open_directory(create=False)
        try:
            size = 0
            entries = _by_age(directory)
            names = {entry.name for entry in entries}
            # The newest first, so that those beyond the limit are the oldest.
            for entry in reversed(entries):
                key = _key_of(entry.name)
                own = f"{key}.{owner}{_SUFFIX}"
                # As in `make_room`, a file that causes an error must not keep others.
                with suppress(OSError):
                    if key in keys:
                        # Of several that others left, the newest is the one that is continued.
                        if own not in names and _adopt(entry.name, own, directory):
                            names.add(own)
                        continue
                    size += entry.stat(follow_symlinks=False).st_blocks * _SECTOR
                    if entry.name == own or size > _SIZE_LIMIT:
                        _remove_if_unused(entry.name, directory)
        finally:
            os.close(directory)


def _by_age(directory: int) -> list["os.DirEntry[str]"]:
    """Return the partial files of a directory, the oldest first."""
    entries = []
    for entry in os.scandir(directory):
        # Another run may have removed it. The entry keeps its status, so later calls of `stat` do not fail.
        with suppress(OSError):
            if entry.name.endswith(_SUFFIX) and entry.stat(follow_symlinks=False):
                entries.append(entry)
    return sorted(entries, key=lambda entry: entry.stat(follow_symlinks=False).st_mtime)


def _remove_stale() -> None:
    """Remove what no run used for two weeks: partial files, and the state of verified files."""
    for name in ("", user_cache.VERIFIED):
        with suppress(OSError):
            directory = user_cache.open_directory(name, create=False)
            try:
                for entry in os.scandir(directory):
                    # A file that cannot be removed must not keep others.
                    with suppress(OSError):
                        _remove_if_stale(entry, directory)
            finally:
                os.close(directory)


def _remove_if_stale(entry: "os.DirEntry[str]", directory: int) -> None:
    is_ours = entry.name.endswith(_SUFFIX) or not entry.is_dir(follow_symlinks=False)
    if not is_ours or entry.stat(follow_symlinks=False).st_mtime >= time.time() - _UNUSED_LIMIT:
        return
    # A run may still use the file: the clock may have jumped since the run began.
    _remove_if_unused(entry.name, directory)


def _remove_if_unused(name: str, directory: int) -> None:
    # NFS locks only files that are open for writing (flock(2)).
    descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        try:
            is_unused = user_cache.try_lock(descriptor) and user_cache.is_at(name, descriptor, directory)
        except OSError:  # Without locks, no run has a partial file here.
            is_unused = True
        if is_unused:
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(descriptor)
