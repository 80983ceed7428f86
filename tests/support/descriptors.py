"""What a test leaves open, and nobody else does."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def all_closed() -> Iterator[None]:
    """Check that no descriptor is open after the block that was not before; what earlier tests left may be closed."""
    gc.collect()
    before = _opened()
    yield
    assert _opened() <= before


def _opened() -> set[tuple[int, int, int]]:
    """Return descriptors with what they are open on: the number of one that is closed meanwhile may be used again."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the list itself
            status = os.fstat(int(name))
            found.add((int(name), status.st_dev, status.st_ino))
    return found
