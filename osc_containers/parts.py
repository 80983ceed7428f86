"""Archives in the making: files that survive a run that was broken off, and know by themselves what they hold.

They are in the user's cache where that is on the file system of the target, so that a finished one is moved and not
copied; elsewhere they are beside the target and go with the run. Nothing is written down about their state: a part
starts sparse, so what is no hole was written, and everything is verified before it counts.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from osc_containers import files

_SUFFIX = ".part"
_KEPT = 14 * 24 * 3600
"""Seconds after which what no run used is removed."""
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

Range = tuple[int, int]
"""The offsets of a first byte and of the byte after the last."""


@contextmanager
def part(target: Path, key: str, size: int) -> Iterator[int]:
    """Open the part for `target`, of `size` bytes; it takes that name, with mode 0644, when the block ends well.

    `key` says what the content will be: a part that was left over for the same key is gone on with. When the block
    fails, a part in the cache stays, and one beside the target is removed.
    """
    cache = _cache_for(target)
    path = cache / f"{key}{_SUFFIX}" if cache else _beside(target)
    with files.naming(target):
        descriptor = os.open(path, _OPEN, 0o600)
        if cache and not _hold(descriptor, path):
            os.close(descriptor)  # another run makes the same archive
            cache, path = None, _beside(target)
            descriptor = os.open(path, _OPEN, 0o600)
    try:
        # A new file is not cut to nothing first: ext4 would then write all of it when it is closed (auto_da_alloc).
        if os.fstat(descriptor).st_size not in (0, size):
            os.ftruncate(descriptor, 0)
        os.ftruncate(descriptor, size)
        yield descriptor
        os.fchmod(descriptor, 0o644)
        path.replace(target)
    except BaseException:
        if cache is None:
            with suppress(OSError):
                path.unlink()
        raise
    finally:
        os.close(descriptor)


def _beside(target: Path) -> Path:
    return Path(files.temporary_name(target))


def _cache_for(target: Path) -> Path | None:
    """Return the directory for parts in the user's cache, if a file can be moved from there to `target`."""
    directory = platformdirs.user_cache_path("osc-containers")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_dev != target.parent.stat().st_dev or not os.access(directory, os.W_OK):
            return None
    except OSError:
        return None
    return directory


def remove_stale() -> None:
    """Remove what no run used for two weeks from the cache: parts, and sums of files."""
    cache = platformdirs.user_cache_path("osc-containers")
    with suppress(OSError):
        for path in (*cache.glob(f"*{_SUFFIX}"), *cache.glob("sums/*")):
            if path.stat().st_mtime < time.time() - _KEPT:
                _remove_unused(path)


def _remove_unused(path: Path) -> None:
    """Remove a file unless a run has it: the clock may have jumped since that began."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _hold(descriptor, path):
            path.unlink()
    finally:
        os.close(descriptor)


def _hold(descriptor: int, path: Path) -> bool:
    """Lock an open part; False where another run has it, or moved it away in the meantime."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def written(descriptor: int, start: int, stop: int) -> list[Range]:
    """Return what an earlier run seems to have written of the bytes from `start` to `stop`; verify before use.

    File systems keep holes in blocks, so a block at the edge of a hole may be written in part: it does not count.
    """
    block = os.fstat(descriptor).st_blksize
    found = []
    for first, end in _extents(descriptor, start, stop):
        begin = start if first <= start else first + block
        finish = stop if end >= stop else end - block
        if begin < finish:
            found.append((begin, finish))
    return found


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
