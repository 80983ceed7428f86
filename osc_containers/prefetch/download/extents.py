"""Which ranges of a file are written, and whether two files can share them.

A partial file starts as one hole, so what is not a hole was written (lseek(2), SEEK_DATA).
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from typing import TypeAlias

_FICLONE = 0x40049409  # From linux/fs.h; Python has no name for it.

Range: TypeAlias = tuple[int, int]
"""The offsets of the first byte and of the byte after the last."""


def written_ranges(descriptor: int, start: int, stop: int) -> list[Range]:
    """Return the ranges between `start` and `stop` that an earlier run seems to have written; verify before use.

    Holes consist of whole blocks, so a block beside a hole may be written only in part, and does not count. A block
    that the range shares with its neighbours counts only if the range has more than zeros in it.
    """
    block = os.fstat(descriptor).st_blksize
    # The first and the last block boundary in the range. What is before and behind them is in blocks that the range
    # shares with its neighbours.
    head = min(start + -start % block, stop)
    tail = max(stop - stop % block, start)
    written = []
    for first, end in _extents(descriptor, start, stop):
        at_start = start if _has_data(descriptor, start, head) else head
        at_end = stop if _has_data(descriptor, tail, stop) else tail
        begin = at_start if first <= start else max(first + block, head)
        finish = at_end if end >= stop else min(end - block, tail)
        if begin < finish:
            written.append((begin, finish))
    return written


def is_full(descriptor: int, start: int, stop: int) -> bool:
    """Tell whether there is no hole between `start` and `stop`."""
    position = start
    for first, end in _extents(descriptor, start, stop):
        if first > position:
            return False
        position = end
    return position >= stop


def _has_data(descriptor: int, start: int, stop: int) -> bool:
    """Tell whether there is anything but zeros between `start` and `stop`; an empty range counts as data."""
    return start == stop or any(os.pread(descriptor, stop - start, start))


def _extents(descriptor: int, start: int, stop: int) -> Iterator[Range]:
    """Yield the extents with data that overlap the range; the first one may begin before what is yielded."""
    position = start
    while position < stop:
        try:
            first = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole follows.
            return
        end = os.lseek(descriptor, first, os.SEEK_HOLE)
        if first < stop:
            yield first, end
        position = end


def supports_reflink(descriptor: int) -> bool:
    """Tell whether two files can share blocks on this file system (btrfs, XFS)."""
    try:
        # Cloning a file onto itself changes nothing. Where blocks can be shared, it may fail as well, but not with this
        # error (ioctl_ficlone(2)).
        fcntl.ioctl(descriptor, _FICLONE, descriptor)
    except OSError as error:
        return error.errno != errno.EOPNOTSUPP
    return True
