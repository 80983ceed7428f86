"""The evidence in a lock: signatures that a policy accepted when the image was pinned, and the keys that made them.

    "signatures": [{"type": "sigstore" or "simple", "identity", "key", "payload", "signature"}]     of an image
    "keys": {"sha256:…" or an OpenPGP fingerprint: the key in base64}                               of the lock

`payload` is text, or `base64:…` if it is not UTF-8; an OpenPGP signature has its payload inside.
"""

import binascii
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple

from osc_containers.formats.strict_json import Fields

TYPES = ("sigstore", "simple")
COUNT_LIMIT = 16
"""Signatures of one image that are recorded; a policy has one requirement or two."""
_BASE64_PAYLOAD = "base64:"
# The hash of a public key, or an OpenPGP fingerprint: 40 digits in version 4, 64 in version 6 (RFC 9580, 5.5.4).
_KEY_ID = re.compile("sha256:[0-9a-f]{64}|[0-9A-F]{40}|[0-9A-F]{64}")


class RecordedSignature(NamedTuple):
    """One signature: its format, the name it was made for, the id of the key, and the bytes that prove it."""

    type: str
    identity: str
    key: str
    payload: bytes
    signature: bytes


def short_key(key: str) -> str:
    """Return the beginning of the id of a key, for display."""
    return key.removeprefix("sha256:")[:12]


def dump(signature: RecordedSignature) -> dict[str, object]:
    """Return the JSON of a signature."""
    payload = {} if signature.type == "simple" else {"payload": _payload_text(signature.payload)}
    return {
        "type": signature.type,
        "identity": signature.identity,
        "key": signature.key,
        "signature": b64encode(signature.signature).decode(),
        **payload,
    }


def load(item: Fields) -> RecordedSignature:
    """Read a signature.

    :raises ValueError: it is not one.
    """
    type_ = item.line("type")
    if type_ not in TYPES:
        raise ValueError(f"{item.path('type')}: got {type_[:40]!r}, expected {' or '.join(TYPES)}")
    known = {"type", "identity", "key", "signature", *(("payload",) if type_ == "sigstore" else ())}
    for key in item.values:
        if key not in known:
            raise ValueError(f"{item.path(key)}: unknown")
    payload = b""
    if type_ == "sigstore":
        text = item.text("payload")
        is_data = text.startswith(_BASE64_PAYLOAD)
        path = item.path("payload")
        payload = _base64(text.removeprefix(_BASE64_PAYLOAD), path) if is_data else text.encode()
        if _payload_text(payload) != text:
            raise ValueError(f"{path}: got base64 of plain text, expected the text")
    return RecordedSignature(
        type=type_,
        identity=item.line("identity"),
        key=check_key_id(item.line("key"), item.path("key")),
        payload=payload,
        signature=_base64(item.text("signature"), item.path("signature")),
    )


def dump_keys(keys: Mapping[str, bytes]) -> dict[str, object]:
    """Return the JSON of the keys."""
    return {name: b64encode(key).decode() for name, key in keys.items()}


def load_keys(item: Fields) -> dict[str, bytes]:
    """Read the keys.

    :raises ValueError: they are not keys by their ids.
    """
    return {check_key_id(name, item.path(name)): _base64(item.text(name), item.path(name)) for name in item.values}


def check_key_id(text: str, where: str) -> str:
    """Return the id of a key.

    :raises ValueError: it is not one.
    """
    if not _KEY_ID.fullmatch(text):
        raise ValueError(f"{where}: got {text[:80]!r}, expected the id of a key")
    return text


def _payload_text(payload: bytes) -> str:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return _BASE64_PAYLOAD + b64encode(payload).decode()
    # A text that begins like base64 would be decoded when it is read.
    return text if not text.startswith(_BASE64_PAYLOAD) else _BASE64_PAYLOAD + b64encode(payload).decode()


def _base64(text: str, where: str) -> bytes:
    """Decode base64 in its one canonical form, so that the same evidence has one text only."""
    try:
        data = binascii.a2b_base64(text.encode(), strict_mode=True)
    except ValueError:
        raise ValueError(f"{where}: not valid base64") from None
    # Strict mode ignores the unused bits of the last character: 'QQ==' and 'QR==' both mean the byte 'A'.
    if b64encode(data).decode() != text:
        raise ValueError(f"{where}: not canonical base64")
    return data
