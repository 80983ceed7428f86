"""The list of tests that only one release of Debian can run names tests that exist."""

from pathlib import Path

import pytest

from tests.support.releases import ONLY_ON

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("test", ONLY_ON)
def test_a_test_in_the_list_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert list((ROOT / path).glob("test_*.py")) if path.endswith("/") else f"def {name}(" in (ROOT / path).read_text()
