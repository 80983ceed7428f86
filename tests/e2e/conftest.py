"""The root file system and the machines of the boot tests."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.e2e.machine import Machine, make_machine, make_root


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Return a function that creates a machine for this test; the default suite is $E2E_SUITE."""
    with ExitStack() as stack:

        def make(*, suite: str = os.environ.get("E2E_SUITE", "bookworm"), **options: int) -> Machine:
            return stack.enter_context(make_machine(make_root(suite), tmp_path / "machine", **options))

        yield make
