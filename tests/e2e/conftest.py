"""The root file system and the machines of the boot tests."""

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.e2e.machine import HERE, Machine, make_machine

CACHE = HERE.parents[2] / "build" / "e2e"


def make_root(suite: str) -> Path:
    """Return a small Debian root, which is kept in build/ until `make-root` changes."""
    recipe = HERE / "make-root"
    root = CACHE / f"{suite}-{hashlib.sha256(recipe.read_bytes()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            making = root.with_suffix(".making")
            subprocess.run(["rm", "-rf", making], check=True)
            subprocess.run([recipe, making, suite], check=True)
            making.rename(root)
    return root


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Return a function that creates a machine for this test; the default suite is $E2E_SUITE."""
    with ExitStack() as stack:

        def make(*, suite: str = os.environ.get("E2E_SUITE", "bookworm"), **options: int) -> Machine:
            return stack.enter_context(make_machine(make_root(suite), tmp_path / "machine", **options))

        yield make
