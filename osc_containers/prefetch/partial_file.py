"""Archives in the making: files that survive a run that was broken off, and know by themselves what they hold.

They are in the user's cache where that is on the file system of the target, so that a finished one is moved and not
copied; elsewhere they are beside the target and go with the run. Nothing is written down about their state: a part
starts sparse, so what is no hole was written, and everything is verified before it counts.
"""

import errno
import fcntl
import os
import struct
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from osc_containers.fs import atomic, ranges
from osc_containers.prefetch import cache

_SUFFIX = ".part"
_KEPT = 14 * 24 * 3600
"""Seconds after which what no run used is removed."""
_SECTOR = 512  # what stat(2) counts blocks in
_FICLONE = 0x40049409  # linux/fs.h; Python has no name for it
_UNRESVSP = 0x40305829  # FS_IOC_UNRESVSP of linux/falloc.h, with its `struct space_resv`
_SPACE = struct.Struct("=hh4xqq24x")
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

Range = tuple[int, int]
"""The offsets of a first byte and of the byte after the last."""


@contextmanager
def part(target: Path, key: str, size: int) -> Iterator[int]:
    """Open the part for `target`, of `size` bytes; it takes that name, with mode 0644, when the block ends well.

    `key` says what the content will be: a part that was left over for the same key is gone on with. When the block
    fails, a part in the cache stays, and one beside the target is removed.
    """
    kept = _open_kept(target, key, size)
    path, descriptor = kept or _open_beside(target)
    try:
        if not kept:
            with atomic.naming(target):
                _give_size(descriptor, size)
        yield descriptor
        with atomic.naming(target):
            if _is_at(path, descriptor):
                atomic.set_mode(descriptor, 0o644)
                path.replace(target)
            else:  # somebody cleared the cache, and another run may have a part of that name by now
                with atomic.new_file(target) as copy:
                    ranges.copy_range(descriptor, 0, copy, 0, size)
    except BaseException:
        with suppress(OSError):
            if kept:
                _give_back(descriptor, size)
            else:
                path.unlink()
        raise
    finally:
        os.close(descriptor)


def _open_kept(target: Path, key: str, size: int) -> tuple[Path, int] | None:
    """Open the part in the cache, unless another run has it or anything is wrong there."""
    if (directory := _cache_for(target)) is None:
        return None
    path = directory / f"{key}{_SUFFIX}"
    with suppress(OSError), ExitStack() as stack:
        descriptor = os.open(path, _OPEN, 0o600)
        stack.callback(os.close, descriptor)
        if _hold(descriptor, path):
            _give_size(descriptor, size)
            stack.pop_all()
            return path, descriptor
    return None


def _open_beside(target: Path) -> tuple[Path, int]:
    path = Path(atomic.temporary_name(target))
    with atomic.naming(target):
        return path, os.open(path, _OPEN, 0o600)


def reusable_bytes(target: Path, key: str) -> int:
    """Return how many bytes of the disk the part for `target` has already, if an earlier run left one over."""
    directory = _cache_for(target)
    return _room(directory / f"{key}{_SUFFIX}") if directory else 0


def stale_bytes(target: Path, keys: Collection[str]) -> tuple[Path, int] | None:
    """Return where runs left parts on the disk of `target`, and how many bytes those of other keys have there."""
    if (directory := _cache_for(target)) is None:
        return None
    return directory, sum(_room(path) for path in directory.glob(f"*{_SUFFIX}") if path.stem not in keys)


def _room(path: Path) -> int:
    try:
        return path.lstat().st_blocks * _SECTOR
    except FileNotFoundError:
        return 0


def _give_size(descriptor: int, size: int) -> None:
    # A new file is not cut to nothing first: ext4 would then write all of it when it is closed (auto_da_alloc).
    if os.fstat(descriptor).st_size not in (0, size):
        os.ftruncate(descriptor, 0)
    os.ftruncate(descriptor, size)
    _reserve(descriptor, size)


def _reserve(descriptor: int, size: int) -> None:
    """Have the file system find the place for a new file at once, where it can do that and have it remain a hole.

    To find it for each page that is written takes a tenth of all processor time. What shares blocks with another file
    (ioctl_ficlone(2)) needs no place.
    """
    block = os.fstat(descriptor).st_blksize
    if size <= block or not _is_hole(descriptor, size) or supports_reflink(descriptor):
        return
    # Where the file system does not know how to, glibc writes to each block instead (posix_fallocate(3)).
    with suppress(OSError):
        os.posix_fallocate(descriptor, 0, block)
        if _is_hole(descriptor, block):
            os.posix_fallocate(descriptor, block, size - block)
            return
    # Perhaps for want of space: who writes says that better, and nothing is kept for what does not come.
    os.ftruncate(descriptor, 0)
    os.ftruncate(descriptor, size)


def _give_back(descriptor: int, size: int) -> None:
    """Give back what was found for bytes that did not come; they are a hole all the same."""
    reached = 0
    for first, end in (*_extents(descriptor, 0, size), (size, size)):
        if reached < first:
            fcntl.ioctl(descriptor, _UNRESVSP, _SPACE.pack(0, os.SEEK_SET, reached, first - reached))
        reached = end


def _is_hole(descriptor: int, size: int) -> bool:
    return not any(_extents(descriptor, 0, size))


def supports_reflink(descriptor: int) -> bool:
    """Tell whether the file system lets two files have the same blocks (btrfs, XFS)."""
    try:
        fcntl.ioctl(descriptor, _FICLONE, descriptor)
    except OSError as error:
        return error.errno != errno.EOPNOTSUPP
    return True


def _cache_for(target: Path) -> Path | None:
    """Return the directory for parts in the user's cache, if a file can be moved from there to `target`."""
    try:
        directory = cache.directory()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_dev != target.parent.stat().st_dev or not os.access(directory, os.W_OK):
            return None
        # Two mounts of one file system are one device, and yet no file is moved from one to the other. The kernel says
        # that before it looks for the name.
        nothing = Path(atomic.temporary_name(target))
        with suppress(FileNotFoundError):
            os.rename(directory / nothing.name, nothing)
    except OSError:
        return None
    return directory


def remove_stale() -> None:
    """Remove what no run used for two weeks from the cache: parts, and sums of files."""
    with suppress(OSError):
        directory = cache.directory()
        for path in (*directory.glob(f"*{_SUFFIX}"), *directory.glob("sums/*")):
            with suppress(OSError):  # one that cannot be removed keeps no other
                if path.stat().st_mtime < time.time() - _KEPT:
                    _remove_unused(path)


def _remove_unused(path: Path) -> None:
    """Remove a file unless a run has it: the clock may have jumped since that began."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            is_unused = _hold(descriptor, path)
        except OSError:  # without locks no run has a part here
            is_unused = True
        if is_unused:
            path.unlink()
    finally:
        os.close(descriptor)


def _hold(descriptor: int, path: Path) -> bool:
    """Lock an open part; False where another run has it, or moved it away in the meantime.

    :raises OSError: the file system has no locks (some NFS).
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return _is_at(path, descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def written_ranges(descriptor: int, start: int, stop: int) -> list[Range]:
    """Return what an earlier run seems to have written of the bytes from `start` to `stop`; verify before use.

    File systems keep holes in blocks, so a block at the edge of a hole may be written in part: it does not count. Nor
    does one that the bytes share with their neighbours, unless there is more in it of them than zeros.
    """
    block = os.fstat(descriptor).st_blksize
    head = min(start + -start % block, stop)
    tail = max(stop - stop % block, start)
    found = []
    for first, end in _extents(descriptor, start, stop):
        begin = max(first + block, head) if first > start else start if _is_more(descriptor, start, head) else head
        finish = min(end - block, tail) if end < stop else stop if _is_more(descriptor, tail, stop) else tail
        if begin < finish:
            found.append((begin, finish))
    return found


def is_full(descriptor: int, start: int, stop: int) -> bool:
    """Tell whether there is no hole between `start` and `stop`."""
    reached = start
    for first, end in _extents(descriptor, start, stop):
        if first > reached:
            return False
        reached = end
    return reached >= stop


def _is_more(descriptor: int, start: int, stop: int) -> bool:
    """Tell whether there is more than zeros between `start` and `stop`; there is no less than nothing."""
    return start == stop or any(os.pread(descriptor, stop - start, start))


def _extents(descriptor: int, start: int, stop: int) -> Iterator[Range]:
    position = start
    while position < stop:
        try:
            first = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            return
        # What holds `position` may begin before it, and SEEK_DATA does not say where.
        end = os.lseek(descriptor, first, os.SEEK_HOLE)
        if first < stop:
            yield first, end
        position = end
