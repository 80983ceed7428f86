"""What the boot tests share: the root that their machines are made from."""

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.machine import HERE, Machine, make_machine

CACHE = HERE.parent.parent / "build" / "e2e"


@pytest.fixture(scope="session")
def base() -> Path:
    """Give a small Debian (of $E2E_SUITE, else bookworm), made once and kept in build/ until `make-root` changes."""
    suite = os.environ.get("E2E_SUITE", "bookworm")
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
def make(base: Path, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Give a function that makes a machine for this test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(make_machine(base, tmp_path / "machine", **options))
