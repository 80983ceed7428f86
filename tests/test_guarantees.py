"""Every sentence of docs/guarantees.md names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/guarantees.md").read_text()
_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def guarantees() -> list[str]:
    """Return the items of the lists, without those of the last section."""
    text = PAGE.partition("## What is not guaranteed")[0]
    return [" ".join(item.split()) for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


def test_every_named_test_exists() -> None:
    named: dict[str, set[str]] = {}
    for file, name in _TEST.findall(PAGE):
        named.setdefault(file, set()).add(name)
    missing = {file: names - functions_of(ROOT / file) for file, names in named.items()}
    assert {file: names for file, names in missing.items() if names} == {}


def functions_of(path: Path) -> set[str]:
    """Return the names of the functions of a module; none if there is no such file."""
    tree = ast.parse(path.read_text() if path.exists() else "")
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("guarantee", guarantees(), ids=lambda guarantee: str(guarantee[:40]))
def test_a_guarantee_names_its_test(guarantee: str) -> None:
    said, _, named = guarantee.partition("`tests/")
    assert named
    assert said.rstrip(" (").count(". ") == 0, "one sentence, one item"


def test_the_page_says_what_is_not_guaranteed() -> None:
    assert "## What is not guaranteed" in PAGE
