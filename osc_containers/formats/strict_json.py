"""Bounded, typed access to untrusted JSON.

Parsers (of locks, manifests, token replies, credential files) request each value with its type, so that no `dict` of
unknown shape leaves them. An error names the path of keys to the value and repeats only a limited part of the document.
Depth, numbers and duplicate keys are checked here, in one place.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NoReturn

DEPTH_LIMIT = 256
"""Levels of nested objects and arrays."""

# A string, even if its closing quote is missing, or a run of characters that are neither quotes nor brackets.
_STRING_OR_PLAIN = re.compile(r'"[^"]*"?|[^]["{}]+')
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def load(text: bytes | str, where: str) -> "Fields":
    """Decode a JSON object. Every error message about it starts with `where`.

    Bytes must be UTF-8 without a byte order mark (RFC 8259, section 8.1). `json` would also detect other encodings, but
    other programs that read the same file refuse them.

    :raises ValueError: the text is not JSON or not an object, is nested too deeply, or has a duplicate key.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        is_deep = depth(decoded) > DEPTH_LIMIT
        value = None if is_deep else json.loads(decoded, object_pairs_hook=_unique, parse_constant=_reject_constant)
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, or an integer with too many digits
        raise ValueError(f"{where}: not valid JSON; {error}") from None
    if is_deep:
        raise ValueError(f"{where}: nested too deeply, expected at most {DEPTH_LIMIT} levels")
    return Fields.of(value, where)


def is_object(content: bytes) -> bool:
    """Tell whether some bytes are a JSON object."""
    try:
        load(content, "")
    except ValueError:
        return False
    return True


def depth(text: str) -> int:
    """Return an upper bound of the nesting depth.

    Catching the RecursionError of `json` is no alternative: objects that Python finalizes at that moment run out of
    stack, too.
    """
    if (count := text.count("[") + text.count("{")) <= DEPTH_LIMIT:
        return count
    # Only brackets outside of strings count: drop escape sequences, then strings and everything else.
    # Escaped backslashes go before escaped quotes, because the quote in `\\"` ends a string.
    brackets = _STRING_OR_PLAIN.sub("", text.replace(r"\\", "").replace(r"\"", ""))
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Parsers differ in which of two values they use. We might verify one digest, and an engine load another one.
    result = dict(pairs)
    if len(result) != len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {key[:80]!r}")
    return result


def _reject_constant(name: str) -> NoReturn:
    # `json` accepts NaN and Infinity by default, other parsers refuse them.
    raise ValueError(f"{name} is not a JSON number")


class Fields:
    """A JSON object, and its location for error messages.

    A key whose value is null counts as missing. All methods that return a value raise `ValueError` if it has another
    type, or if it is missing and has no default.
    """

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self.values = values
        self.where = where

    @classmethod
    def of(cls, value: object, where: str) -> "Fields":
        """Wrap `value`.

        :raises ValueError: it is not an object.
        """
        if not isinstance(value, dict):
            raise ValueError(f"{where}: got {_kind(value)}, expected an object")
        return cls(value, where)

    def __contains__(self, key: str) -> bool:
        """Return whether the key has a value other than null."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string that can be encoded as UTF-8; required unless there is a `default`."""
        return _text(self._value(key, default), self.path(key))

    def line(self, key: str, default: str | None = None) -> str:
        """Return a string of printable characters, safe in messages; required unless there is a `default`."""
        return _line(self._value(key, default), self.path(key))

    def size(self, key: str) -> int:
        """Return a number of bytes, an integer from 0 to 2**63 - 1; required."""
        value = self._value(key, None)
        # In Python, a boolean is an integer.
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{self.path(key)}: got {_kind(value)}, expected a whole number")
        if not 0 <= value < 1 << 63:
            raise ValueError(f"{self.path(key)}: got {str(value)[:24]}, expected a size in bytes")
        return value

    def member(self, key: str) -> "Fields":
        """Return an object; required."""
        return Fields.of(self._value(key, None), self.path(key))

    def members(self, key: str) -> tuple["Fields", ...]:
        """Return an array of objects, empty by default."""
        return tuple(Fields.of(value, f"{self.path(key)}[{i}]") for i, value in enumerate(self._array(key)))

    def lines(self, key: str) -> tuple[str, ...]:
        """Return an array of strings of printable characters, empty by default."""
        return tuple(_line(value, f"{self.path(key)}[{i}]") for i, value in enumerate(self._array(key)))

    def items(self) -> Iterator[tuple[str, "Fields"]]:
        """Yield each key with the object below it, for objects whose keys are data."""
        for key in self.values:
            yield key, self.member(key)

    def path(self, key: str) -> str:
        """Return the location of a value for error messages; an unusual key is quoted and truncated."""
        step = key if _PLAIN_KEY.fullmatch(key) else f"[{key[:300]!r}]"
        # The first key follows the name of the file, `FILE: key`; the keys below it follow that, `FILE: key.below`.
        if ": " not in self.where:
            return f"{self.where}: {step}"
        return f"{self.where}.{step}" if step == key else self.where + step

    def _array(self, key: str) -> list[object]:
        value = self._value(key, [])
        if not isinstance(value, list):
            raise ValueError(f"{self.path(key)}: got {_kind(value)}, expected an array")
        return value

    def _value(self, key: str, default: object) -> object:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise ValueError(f"{self.path(key)}: missing")
        return value


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{path}: got {_kind(value)}, expected a string")
    try:
        value.encode()
    except UnicodeEncodeError:  # an escaped half of a surrogate pair; the value may be a secret, so it is not shown
        raise ValueError(f"{path}: got a lone surrogate, expected valid Unicode") from None
    return value


def _line(value: object, path: str) -> str:
    text = _text(value, path)
    # This excludes terminal escape sequences, line breaks and characters that change the direction of writing.
    if not text.isprintable():
        raise ValueError(f"{path}: got {text[:80]!r}, expected printable characters")
    return text


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
