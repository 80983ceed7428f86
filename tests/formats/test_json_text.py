"""JSON as text for people, and how much of a document is in memory."""

import tracemalloc

import pytest

from osc_containers.formats import json_text


def test_keys_are_sorted_and_the_text_ends_with_a_newline() -> None:
    text = json_text.dumps({"b": ["ü"], "a": {}}, ensure_ascii=False).decode()
    assert text == '{\n  "a": {},\n  "b": [\n    "ü"\n  ]\n}\n'
    assert json_text.dumps("ü") == b'"\\u00fc"\n'


def part() -> object:
    return {"each": [f"{number}" for number in range(2000)]}


def test_one_part_at_a_time_is_in_memory() -> None:
    names = [f"{number}" for number in range(50)]
    tracemalloc.start()
    try:
        text = json_text.dumps(dict.fromkeys(names, part))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert text == json_text.dumps(dict.fromkeys(names, part()))
    assert peak - len(text) < 2_000_000, "all parts take 6 MB"


def test_what_is_not_json_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"^set is not JSON"):
        json_text.dumps({"a": set()})
