"""Untrusted JSON gives typed, bounded values, or an error with the path to the wrong value."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.formats import strict_json
from osc_containers.formats.strict_json import Fields
from tests.support.messages import assert_bounded, exactly
from tests.support.strategies import json_values

Access = Callable[[Fields], object]


@pytest.mark.parametrize(
    ("text", "access", "expected"),
    [
        ('{"a": "x"}', lambda f: f.text("a"), "x"),
        ('{"a": "x\\ny \\ud83d\\ude00"}', lambda f: f.text("a"), "x\ny \N{GRINNING FACE}"),
        ('{"a": null}', lambda f: f.text("a", "default"), "default"),
        ("{}", lambda f: f.text("a", ""), ""),
        ('{"a": ""}', lambda f: f.text("a", "default"), ""),
        ('{"a": "x \u00e9"}', lambda f: f.line("a"), "x \u00e9"),
        ("{}", lambda f: f.line("a", ""), ""),
        ('{"a": 0}', lambda f: f.size("a"), 0),
        ('{"a": 9223372036854775807}', lambda f: f.size("a"), 2**63 - 1),
        ('{"a": {"b": "x"}}', lambda f: f.member("a").text("b"), "x"),
        ('{"a": [{"b": 1}, {"b": 2}]}', lambda f: [item.size("b") for item in f.members("a")], [1, 2]),
        ("{}", lambda f: f.members("a"), ()),
        ('{"a": null}', lambda f: f.lines("a"), ()),
        ('{"a": ["x", ""]}', lambda f: f.lines("a"), ("x", "")),
        (
            '{"a": {"b": 1}, "c": {}}',
            lambda f: [(key, item.values) for key, item in f.items()],
            [("a", {"b": 1}), ("c", {})],
        ),
        ('{"a": 0, "b": null}', lambda f: ("a" in f, "b" in f, "c" in f), (True, False, False)),
        (" {} \n", lambda f: f.values, {}),
        (b'{"a": "\xc3\xa9"}', lambda f: f.text("a"), "\u00e9"),
    ],
)
def test_values_have_their_types(text: str | bytes, access: Access, expected: object) -> None:
    assert access(strict_json.load(text, "x")) == expected


def nested(depth: int) -> str:
    return '{"a": ' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON; Expecting value: line 1 column 1 (char 0)"),
        (b"\xff{}", "not valid JSON; 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ("{} {}", "not valid JSON; Extra data: line 1 column 4 (char 3)"),
        ('{"a": "x\0"}', "not valid JSON; Invalid control character at: line 1 column 9 (char 8)"),
        ('{"a": NaN}', "not valid JSON; NaN is not a JSON number"),
        ('{"a": -Infinity}', "not valid JSON; -Infinity is not a JSON number"),
        ('{"a": 1, "b": 2, "a": 1}', "not valid JSON; duplicate key 'a'"),
        ('{"b": {"\\ud800": 1, "\\uD800": 2}}', "not valid JSON; duplicate key '\\ud800'"),
        (f'{{"{"k" * 999}": 1, "{"k" * 999}": 2}}', f"not valid JSON; duplicate key '{'k' * 80}'"),
        (nested(strict_json.DEPTH_LIMIT), "nested too deeply, expected at most 256 levels"),
        ("[" * 100_000, "nested too deeply, expected at most 256 levels"),
        ('["]" ,' * 257, "nested too deeply, expected at most 256 levels"),
        ('["\\\\\\"]" ,' * 257, "nested too deeply, expected at most 256 levels"),
        ("[" * 256 + '"', "not valid JSON; Unterminated string starting at: line 1 column 257 (char 256)"),
        ("[]", "got an array, expected an object"),
        ("null", "got null, expected an object"),
        ('"{}"', "got a string, expected an object"),
        ("1e999", "got a number, expected an object"),
    ],
)
def test_anything_but_a_json_object_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=exactly(f"x: {message}")):
        strict_json.load(text, "x")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_bytes_in_another_encoding_are_refused(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"\Ax: not valid JSON; "):
        strict_json.load('{"a": "\u00e9"}'.encode(encoding), "x")


@pytest.mark.parametrize("unit", ["[]", "{}", "[\\", '[\\"', '{"'])
def test_only_nested_brackets_count_as_depth(unit: str) -> None:
    text = json.dumps({"a": [unit * 300] * 300, "b": [[{}]] * 300})
    assert strict_json.load(text, "x").lines("a") == (unit * 300,) * 300
    assert strict_json.load(nested(strict_json.DEPTH_LIMIT - 1), "x").values


@pytest.mark.parametrize("unit", ['"', r"\"", '"\\', "\\", '["', '[{"a": ', '["",'])
def test_depth_is_computed_in_reasonable_time(unit: str) -> None:
    with pytest.raises(ValueError, match=r"\Ax: (not valid JSON; |nested too deeply)"):
        strict_json.load("[" * 256 + "{}" + unit * 500_000, "x")


def test_an_integer_with_too_many_digits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\Ax: not valid JSON; Exceeds the limit \(4300 digits\)"):
        strict_json.load('{"a": ' + "1" * 5000 + "}", "x")


def test_duplicate_keys_are_detected_in_reasonable_time() -> None:
    keys = ", ".join(f'"{number}": 0' for number in range(100_000))
    with pytest.raises(ValueError, match=exactly("x: not valid JSON; duplicate key '99999'")):
        strict_json.load(f'{{{keys}, "99999": 0}}', "x")


@pytest.mark.parametrize(
    ("text", "access", "message"),
    [
        ("{}", lambda f: f.text("a"), "x: a: missing"),
        ('{"a": null}', lambda f: f.line("a"), "x: a: missing"),
        ('{"a": 1}', lambda f: f.text("a"), "x: a: got a number, expected a string"),
        ('{"a": true}', lambda f: f.text("a", ""), "x: a: got a boolean, expected a string"),
        ('{"a": "secret\\ud800"}', lambda f: f.text("a"), "x: a: got a lone surrogate, expected valid Unicode"),
        ('{"a": "b\\u001b[2J"}', lambda f: f.line("a"), "x: a: got 'b\\x1b[2J', expected printable characters"),
        ('{"a": "b\\u202ec"}', lambda f: f.line("a"), "x: a: got 'b\\u202ec', expected printable characters"),
        (
            '{"a": "\\n%s"}' % ("b" * 99),
            lambda f: f.line("a"),
            f"x: a: got '\\n{'b' * 79}', expected printable characters",
        ),
        ("{}", lambda f: f.size("a"), "x: a: missing"),
        ('{"a": false}', lambda f: f.size("a"), "x: a: got a boolean, expected a whole number"),
        ('{"a": 1.0}', lambda f: f.size("a"), "x: a: got a number, expected a whole number"),
        ('{"a": "1"}', lambda f: f.size("a"), "x: a: got a string, expected a whole number"),
        ('{"a": -1}', lambda f: f.size("a"), "x: a: got -1, expected a size in bytes"),
        (
            '{"a": 9223372036854775808}',
            lambda f: f.size("a"),
            "x: a: got 9223372036854775808, expected a size in bytes",
        ),
        ('{"a": %s}' % ("9" * 4000), lambda f: f.size("a"), f"x: a: got {'9' * 24}, expected a size in bytes"),
        ('{"a": []}', lambda f: f.member("a"), "x: a: got an array, expected an object"),
        ("{}", lambda f: f.member("a"), "x: a: missing"),
        ('{"a": {}}', lambda f: f.members("a"), "x: a: got an object, expected an array"),
        ('{"a": [{}, null]}', lambda f: f.members("a"), "x: a[1]: got null, expected an object"),
        ('{"a": [{}]}', lambda f: f.members("a")[0].text("b"), "x: a[0].b: missing"),
        ('{"a": "b"}', lambda f: f.lines("a"), "x: a: got a string, expected an array"),
        ('{"a": ["b", 1]}', lambda f: f.lines("a"), "x: a[1]: got a number, expected a string"),
        ('{"a": ["b", "\\n"]}', lambda f: f.lines("a"), "x: a[1]: got '\\n', expected printable characters"),
        ('{"a": {}, "b": 1}', lambda f: list(f.items()), "x: b: got a number, expected an object"),
        ('{"a": {"b": {}}}', lambda f: f.member("a").member("b").text("c"), "x: a.b.c: missing"),
        (
            '{"a": {"r.io/x:1": {}}}',
            lambda f: f.member("a").member("r.io/x:1").text("c"),
            "x: a['r.io/x:1'].c: missing",
        ),
        ('{"\\n: \\ud800": {}}', lambda f: f.member("\n: \ud800").text("c"), "x: ['\\n: \\ud800'].c: missing"),
        ('{"%s": {}}' % ("k" * 999), lambda f: f.member("k" * 999).text("c"), f"x: ['{'k' * 300}'].c: missing"),
    ],
)
def test_an_error_names_the_path_to_the_value(text: str, access: Access, message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        access(strict_json.load(text, "x"))


@given(st.text() | st.binary() | json_values.map(json.dumps))
def test_any_text_gives_an_object_or_an_error(text: str | bytes) -> None:
    try:
        fields = strict_json.load(text, "x")
    except ValueError as error:
        assert_bounded(error)
        return
    accesses = (Fields.text, Fields.line, Fields.size, Fields.member, Fields.members, Fields.lines)
    for key in [*fields.values, "missing"]:
        for access in accesses:
            try:
                access(fields, key)
            except ValueError as error:
                assert_bounded(error)
