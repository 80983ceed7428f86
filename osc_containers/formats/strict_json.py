"""Typed access to JSON that somebody else wrote.

Every value is asked for with its type, and an error names the path of keys to it, so that no `dict` of unknown shape
goes past the parsers (lock, manifests, token replies, credential files). Numbers, depth and duplicate keys are bounded
here, once; so is what an error repeats of the document.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NoReturn

DEPTH_LIMIT = 256

_STRING_OR_PLAIN = re.compile(r'"[^"]*"?|[^]["{}]+')
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def load(text: bytes | str, where: str) -> "Fields":
    """Decode a JSON object; `where` begins every error message about it.

    Bytes must be UTF-8 without a mark (RFC 8259, section 8.1): what `json` guesses beyond that, other programs refuse.

    :raises ValueError: it is not JSON, not an object, nested too deeply, or names one key twice.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        deep = _depth(decoded) > DEPTH_LIMIT
        value = None if deep else json.loads(decoded, object_pairs_hook=_unique, parse_constant=_reject_constant)
    except ValueError as error:  # covers JSONDecodeError, UnicodeDecodeError and integers of too many digits
        raise ValueError(f"{where}: not valid JSON; {error}") from None
    if deep:
        raise ValueError(f"{where}: nested too deeply, expected at most {DEPTH_LIMIT} levels")
    return Fields.of(value, where)


def _depth(text: str) -> int:
    """Return how deeply `json` would nest its calls, or more.

    It must not be left to find out by RecursionError: what Python happens to finalize then finds no stack either.
    """
    if (opened := text.count("[") + text.count("{")) <= DEPTH_LIMIT:
        return opened
    brackets = _STRING_OR_PLAIN.sub("", text.replace(r"\\", "").replace(r"\"", ""))
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {twice[:80]!r} is there twice")
    return result


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class Fields:
    """A JSON object together with where it stands."""

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self.values = values
        self.where = where

    @classmethod
    def of(cls, value: object, where: str) -> "Fields":
        """Check that `value` is an object."""
        if not isinstance(value, dict):
            raise ValueError(f"{where}: got {_kind(value)}, expected an object")
        return cls(value, where)

    def __contains__(self, key: str) -> bool:
        """Tell whether there is a value other than null."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string that can be encoded; without `default` it must be there."""
        return _text(self._value(key, default), self.path(key))

    def line(self, key: str, default: str | None = None) -> str:
        """Return a string of printable characters, fit for any message; without `default` it must be there."""
        return _line(self._value(key, default), self.path(key))

    def size(self, key: str) -> int:
        """Return a number of bytes: a whole number from 0 to 2**63 - 1."""
        value = self._value(key, None)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{self.path(key)}: got {_kind(value)}, expected a whole number")
        if not 0 <= value < 1 << 63:
            raise ValueError(f"{self.path(key)}: got {str(value)[:24]}, expected a size in bytes")
        return value

    def member(self, key: str) -> "Fields":
        """Return an object that must be there."""
        return Fields.of(self._value(key, None), self.path(key))

    def members(self, key: str) -> tuple["Fields", ...]:
        """Return an array of objects; one that is not there is empty."""
        return tuple(Fields.of(value, f"{self.path(key)}[{i}]") for i, value in enumerate(self._array(key)))

    def lines(self, key: str) -> tuple[str, ...]:
        """Return an array of strings as `line` does; one that is not there is empty."""
        return tuple(_line(value, f"{self.path(key)}[{i}]") for i, value in enumerate(self._array(key)))

    def items(self) -> Iterator[tuple[str, "Fields"]]:
        """Yield keys and the objects below them, for an object whose keys are data."""
        for key in self.values:
            yield key, self.member(key)

    def path(self, key: str) -> str:
        """Return what begins a message about the value of `key`; a key that is not plain is quoted and cut."""
        step = key if _PLAIN_KEY.fullmatch(key) else f"[{key[:300]!r}]"
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
    except UnicodeEncodeError:  # JSON can escape half a character; the value may be a secret, so it is not shown
        raise ValueError(f"{path}: got a lone surrogate, expected whole characters") from None
    return value


def _line(value: object, path: str) -> str:
    text = _text(value, path)
    if not text.isprintable():
        raise ValueError(f"{path}: got {text[:80]!r}, expected printable characters")
    return text


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
