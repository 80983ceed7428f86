"""JSON as containers/image reads policies and signed payloads: exact fields, each at most once.

`formats/strict_json` is stricter, and that would be wrong here: podman accepts a payload whose optional part has
unknown content, and we must accept and refuse the same signatures.
"""

import binascii
import json
import math
import re
from collections.abc import Collection
from typing import NamedTuple, NoReturn

from osc_containers.formats import strict_json

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


class Object(NamedTuple):
    """A JSON object with its members as written, duplicates included."""

    members: tuple[tuple[str, object], ...]


def decode(text: bytes, where: str) -> object:
    """Decode JSON; objects become `Object`s. Bytes that are not UTF-8 become U+FFFD, as in Go.

    :raises ValueError: it is not JSON, or nested deeper than 256 levels.
    """
    decoded = text.decode("utf-8", "replace")
    if strict_json.depth(decoded) > strict_json.DEPTH_LIMIT:
        raise ValueError(f"{where}: nested too deeply, expected at most {strict_json.DEPTH_LIMIT} levels")
    try:
        return json.loads(
            decoded,
            object_pairs_hook=lambda pairs: Object(tuple(pairs)),
            parse_constant=_reject_constant,
            parse_float=_number,
            parse_int=_number,
        )
    except ValueError as error:
        raise ValueError(f"{where}: not valid JSON; {error}") from None


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _number(text: str) -> float:
    # Go reads numbers without a declared type as float64, and refuses those that are too large.
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def fields(
    value: object, where: str, known: Collection[str] | None, required: Collection[str] = ()
) -> dict[str, object]:
    """Return the members of an object; with None as `known`, any member is allowed.

    :raises ValueError: it is not an object, or a member is unknown, is there twice, or is required but missing.
    """
    if not isinstance(value, Object):
        raise ValueError(f"{where}: got {kind(value)}, expected an object")
    result: dict[str, object] = {}
    for name, member in value.members:
        if name in result:
            raise ValueError(f"{where}: got {name[:80]!r} twice")
        if known is not None and name not in known:
            raise ValueError(f"{where}: got the unknown field {name[:80]!r}, expected {' or '.join(sorted(known))}")
        result[name] = member
    for name in required:
        if name not in result:
            raise ValueError(f"{where}: {name} is missing")
    return result


def text(value: object, where: str) -> str:
    """Return a string. As in Go, null is an empty one.

    :raises ValueError: the value has another type.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where}: got {kind(value)}, expected a string")
    return value


def data(value: object, where: str) -> bytes | None:
    """Return bytes in base64, or None for null. Like Go, it skips line breaks and accepts a list of bytes.

    :raises ValueError: the value has another type, or is not base64.
    """
    if value is None:
        return None
    if isinstance(value, list):
        # A fraction is in no range.
        if all(each is None or (isinstance(each, float) and each in range(256)) for each in value):
            return bytes(int(each or 0) for each in value)
        raise ValueError(f"{where}: got an array, expected base64")
    return base64(text(value, where), where)


def base64(value: str, where: str) -> bytes:
    """Decode base64 as Go does: strict about the alphabet and the padding, but without regard to line breaks.

    :raises ValueError: it is not base64.
    """
    value = value.replace("\r", "").replace("\n", "")
    if not _BASE64.fullmatch(value):
        raise ValueError(f"{where}: not valid base64")
    return binascii.a2b_base64(value)


def kind(value: object) -> str:
    """Return the type of a value, for messages."""
    names = {Object: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
