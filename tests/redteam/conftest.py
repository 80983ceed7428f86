"""What every attack gets: a victim, and a registry that the attacker controls."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_registry import FaultRegistry, serve
from tests.support.victim import Victim


@pytest.fixture
def victim(tmp_path: Path) -> Victim:
    """Give a user with secrets."""
    return Victim(tmp_path)


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    """Give a registry that answers as the attack wants."""
    with serve() as registry:
        yield registry
