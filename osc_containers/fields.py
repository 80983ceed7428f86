"""Typed access to JSON that somebody else wrote.

Every value is asked for with its type, and an error names the path of keys to it, so that no `dict` of unknown shape
goes past the parsers (lock, manifests, token replies, credential files). Numbers, depth and duplicate keys are bounded
here, once.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn


def load(text: bytes | str, where: str) -> "Fields":
    """Decode a JSON object; `where` begins every error message about it.

    :raises ValueError: it is not JSON, not an object, nested too deeply, or names one key twice.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply") from None
    except ValueError as error:  # covers JSONDecodeError, UnicodeDecodeError and integers of too many digits
        raise ValueError(f"{where}: not valid JSON; {error}") from None
    return Fields.of(value, where)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)[:80]!r} is there twice")
    return result


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object together with where it stands."""

    values: dict[str, object]
    where: str

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
        """Return a string; without `default` it must be there."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise ValueError(f"{self._path(key)}: got {_kind(value)}, expected a string")
        return value

    def size(self, key: str) -> int:
        """Return a number of bytes: a whole number from 0 to 2**63 - 1."""
        value = self._value(key, None)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{self._path(key)}: got {_kind(value)}, expected a whole number")
        if not 0 <= value < 1 << 63:
            raise ValueError(f"{self._path(key)}: got {value}, expected a size in bytes")
        return value

    def member(self, key: str) -> "Fields":
        """Return an object that must be there."""
        return Fields.of(self._value(key, None), self._path(key))

    def members(self, key: str) -> tuple["Fields", ...]:
        """Return an array of objects; one that is not there is empty."""
        return tuple(Fields.of(value, f"{self._path(key)}[{i}]") for i, value in enumerate(self._array(key)))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return an array of strings; one that is not there is empty."""
        found = []
        for index, value in enumerate(self._array(key)):
            if not isinstance(value, str):
                raise ValueError(f"{self._path(key)}[{index}]: got {_kind(value)}, expected a string")
            found.append(value)
        return tuple(found)

    def items(self) -> Iterator[tuple[str, "Fields"]]:
        """Yield keys and the objects below them, for an object whose keys are data."""
        for key in self.values:
            yield key, self.member(key)

    def _array(self, key: str) -> list[object]:
        value = self._value(key, [])
        if not isinstance(value, list):
            raise ValueError(f"{self._path(key)}: got {_kind(value)}, expected an array")
        return value

    def _value(self, key: str, default: object) -> object:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise ValueError(f"{self._path(key)}: missing")
        return value

    def _path(self, key: str) -> str:
        return f"{self.where}: {key}" if ": " not in self.where else f"{self.where}.{key}"


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
