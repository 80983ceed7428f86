"""Checks for leaked file descriptors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def all_closed() -> Iterator[None]:
    """Check that the block leaves no descriptor open. Descriptors of earlier tests may be closed in it."""
    before = _opened()
    yield
    assert _opened() <= before


def _opened() -> set[tuple[int, int, int]]:
    """Return the open descriptors with device and inode, because the number of a closed one may be reused."""
    descriptors = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of this listing
            status = os.fstat(int(name))
            descriptors.add((int(name), status.st_dev, status.st_ino))
    return descriptors
