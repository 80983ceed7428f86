"""Every sentence of docs/guarantees.md names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/guarantees.md").read_text()
_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
NAMED = sorted({(file, name) for file, name in _TEST.findall(PAGE)})


def guarantees() -> list[str]:
    """Return the items of the lists, without those of the last section."""
    text = PAGE.partition("## What is not guaranteed")[0]
    return [" ".join(item.split()) for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


@pytest.mark.parametrize(("file", "name"), NAMED, ids="::".join)
def test_a_named_test_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("guarantee", guarantees(), ids=lambda guarantee: str(guarantee[:40]))
def test_a_guarantee_names_its_test(guarantee: str) -> None:
    said, _, named = guarantee.partition("`tests/")
    assert named
    assert said.rstrip(" (").count(". ") == 0, "one sentence, one item"


def test_the_page_says_what_is_not_guaranteed() -> None:
    assert "## What is not guaranteed" in PAGE
