"""Every sentence of docs/guarantees.md is held up by tests that there are."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/guarantees.md").read_text()
_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
NAMED = sorted({(file, name) for file, name in _TEST.findall(PAGE)})


def promises() -> list[str]:
    """Return the items of the lists, without those of what is not promised."""
    text = PAGE.partition("## What is not promised")[0]
    return [" ".join(item.split()) for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


@pytest.mark.parametrize(("file", "name"), NAMED, ids="::".join)
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("promise", promises(), ids=lambda promise: str(promise[:40]))
def test_a_promise_names_its_test(promise: str) -> None:
    said, _, named = promise.partition("`tests/")
    assert named
    assert said.rstrip(" (").count(". ") == 0, "one sentence, one item"


def test_there_is_a_word_for_what_is_not_promised() -> None:
    assert "## What is not promised" in PAGE
