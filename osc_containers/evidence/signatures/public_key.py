"""Public keys in PEM: the kinds that podman accepts, and one exact encoding of each.

OpenSSL reads more than podman does: other curves and kinds of keys, compressed points, and sloppy encodings. So the key
is taken apart here, and OpenSSL gets it in the one encoding that is left. Nothing here computes anything with a key.

Sources: RFC 7468 (PEM), RFC 5280 and 5480 (SubjectPublicKeyInfo), RFC 8017 (RSAPublicKey), RFC 8410 (Ed25519). PEM is
read as by Go's `encoding/pem`, which skips what is not a block.
"""

import hashlib
import re
import textwrap
from base64 import b64encode
from typing import NamedTuple

from osc_containers.evidence import json_object

_LIMIT = 64 << 10
"""Bytes of a file with a public key; an RSA key of 16,384 bits needs less than 3 KiB."""
RSA, EC, ED25519 = "RSA", "EC", "Ed25519"

_SEQUENCE, _INTEGER, _BITS, _NULL, _OID = 0x30, 0x02, 0x03, 0x05, 0x06
_OIDS = {
    bytes.fromhex("2a864886f70d010101"): RSA,
    bytes.fromhex("2a8648ce3d0201"): EC,
    bytes.fromhex("2b6570"): ED25519,
}
_CURVES = {  # the bytes of a coordinate
    bytes.fromhex("2b81040021"): 28,  # P-224
    bytes.fromhex("2a8648ce3d030107"): 32,  # P-256
    bytes.fromhex("2b81040022"): 48,  # P-384
    bytes.fromhex("2b81040023"): 66,  # P-521
}
# Go refuses keys of fewer bits since 1.24 and larger exponents (crypto/rsa, checkPub), and OpenSSL keys of more bits.
_RSA_BITS = (1024, 16384)
_EXPONENT_LIMIT = 1 << 31


class PublicKey(NamedTuple):
    """A key of one of the three kinds; `der` is its SubjectPublicKeyInfo."""

    kind: str
    der: bytes

    @property
    def id(self) -> str:
        """The name of the key in a lock: the hash of its SubjectPublicKeyInfo."""
        return f"sha256:{hashlib.sha256(self.der).hexdigest()}"

    @property
    def pem(self) -> bytes:
        """The key in PEM."""
        body = "\n".join(textwrap.wrap(b64encode(self.der).decode(), 64))
        return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n".encode()

    def fits(self, signature: bytes) -> bool:
        """Return whether a signature has the form of one by this key: exactly that many bytes, in the exact encoding.

        `openssl dgst` reads no more bytes than a signature can have, and would not notice others behind it.
        """
        if self.kind == ED25519:
            return len(signature) == 64
        if self.kind == RSA:
            info, _ = _element(self.der, 0, _SEQUENCE)
            bits, _ = _element(info, _element(info, 0, _SEQUENCE)[1], _BITS)
            # The first byte of a bit string is the number of bits that are not used.
            modulus, _ = _integer(_element(bits, 1, _SEQUENCE)[0], 0)
            return len(signature) == (modulus.bit_length() + 7) // 8
        try:
            body, end = _element(signature, 0, _SEQUENCE)
            _, at = _integer(body, 0)
            _, at = _integer(body, at)
        except ValueError:
            return False
        return end == len(signature) and at == len(body)


def parse_pem(text: bytes) -> PublicKey:
    """Parse the first PEM block in `text`.

    :raises ValueError: there is none, or it is not a key that podman accepts.
    """
    if len(text) > _LIMIT:
        raise ValueError(f"got more than {_LIMIT} bytes, expected a public key in PEM")
    label, der = _first_block(text)
    if label == "PUBLIC KEY":
        return parse_der(der)
    if label == "RSA PUBLIC KEY":
        return PublicKey(RSA, _rsa_info(der))
    if label:
        raise ValueError(f"got a PEM block {label[:40]!r}, expected 'PUBLIC KEY'")
    raise ValueError("got no PEM block, expected '-----BEGIN PUBLIC KEY-----'")


def parse_der(der: bytes) -> PublicKey:
    """Parse a SubjectPublicKeyInfo.

    :raises ValueError: it is not a key that podman accepts.
    """
    info, end = _element(der, 0, _SEQUENCE)
    if end != len(der):
        raise ValueError("got bytes after the key")
    algorithm, at = _element(info, 0, _SEQUENCE)
    bits, _ = _element(info, at, _BITS)
    oid, at = _element(algorithm, 0, _OID)
    parameters = algorithm[at:]
    if not bits or bits[0]:
        raise ValueError("got a key of incomplete bytes")
    key = bits[1:]
    kind = _OIDS.get(oid)
    if kind == RSA:
        if parameters != bytes((_NULL, 0)):
            raise ValueError("got an RSA key with parameters, expected none")
        return PublicKey(RSA, _rsa_info(key))
    if kind == EC:
        curve, end = _element(parameters, 0, _OID)
        if curve not in _CURVES or end != len(parameters):
            raise ValueError("got another elliptic curve, expected P-224, P-256, P-384 or P-521")
        # 4 is for an uncompressed point, of which both coordinates follow (RFC 5480, section 2.2).
        if len(key) != 1 + 2 * _CURVES[curve] or key[0] != 4:
            raise ValueError("got a compressed or incomplete point, expected an uncompressed one")
        return PublicKey(EC, _info(oid, parameters, key))
    if kind == ED25519:
        if parameters or len(key) != 32:
            raise ValueError("got an Ed25519 key of another form, expected 32 bytes without parameters")
        return PublicKey(ED25519, _info(oid, b"", key))
    raise ValueError("got another kind of key, expected RSA, ECDSA or Ed25519")


def _rsa_info(key: bytes) -> bytes:
    body, _ = _element(key, 0, _SEQUENCE)
    modulus, at = _integer(body, 0)
    exponent, _ = _integer(body, at)
    if not _RSA_BITS[0] <= modulus.bit_length() <= _RSA_BITS[1] or not modulus & 1:
        raise ValueError(f"got an RSA key of {modulus.bit_length()} bits, expected at least {_RSA_BITS[0]}")
    if not 2 <= exponent < _EXPONENT_LIMIT or not exponent & 1:
        raise ValueError("got an RSA key with an unusual exponent")
    oid = next(oid for oid, kind in _OIDS.items() if kind == RSA)
    return _info(oid, bytes((_NULL, 0)), _encode(_SEQUENCE, _encode_integer(modulus) + _encode_integer(exponent)))


def _info(oid: bytes, parameters: bytes, key: bytes) -> bytes:
    return _encode(_SEQUENCE, _encode(_SEQUENCE, _encode(_OID, oid) + parameters) + _encode(_BITS, b"\0" + key))


def _encode(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _encode_integer(value: int) -> bytes:
    # The highest bit is the sign, so a number that has it gets a zero byte in front.
    return _encode(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _element(data: bytes, at: int, tag: int) -> tuple[bytes, int]:
    """Return the content of a DER element, and where the next one begins; only the shortest lengths are valid."""
    if len(data) < at + 2 or data[at] != tag:
        raise ValueError("not a public key in DER")
    size, at = data[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        length = data[at : at + count]
        size, at = int.from_bytes(length, "big"), at + count
        # Three bytes of length are enough for `_LIMIT`.
        if not 1 <= count <= 3 or len(length) != count or not length[0] or size < 0x80:
            raise ValueError("not a public key in DER: bad length")
    if at + size > len(data):
        raise ValueError("not a public key in DER: cut off")
    return data[at : at + size], at + size


def _integer(data: bytes, at: int) -> tuple[int, int]:
    content, end = _element(data, at, _INTEGER)
    # There must be a byte, no sign, and no zero byte in front that is not needed.
    if not content or content[0] & 0x80 or (len(content) > 1 and not content[0] and not content[1] & 0x80):
        raise ValueError("not a public key in DER: bad integer")
    return int.from_bytes(content, "big"), end


def _first_block(text: bytes) -> tuple[str, bytes]:
    """Return label and content of the first PEM block; what is not a complete block is skipped."""
    # A mark counts only at the start of a line; the line break makes the first line one like all others.
    text, begin_mark, end_mark = b"\n" + text, b"\n-----BEGIN ", b"\n-----END "
    at = 0
    while (begin := text.find(begin_mark, at)) >= 0:
        # If this is no block, the search goes on at the line break before `body`, which belongs to the next mark.
        line, body = _line(text, begin + len(begin_mark))
        at = body - 1
        if not line.endswith(b"-----"):
            continue
        label, has_headers = line[:-5], False
        while b":" in (line := _line(text, body)[0]):
            body, has_headers = _line(text, body)[1], True
        at = body - 1
        # The line break before the end is missing if nothing is in front of it.
        if not has_headers and text.startswith(end_mark[1:], body):
            end, trailer = body, body + len(end_mark) - 1
        else:
            end = text.find(end_mark, body)
            trailer = end + len(end_mark)
        if end < 0 or _line(text, trailer)[0] != label + b"-----":
            continue
        try:
            content = json_object.base64(re.sub(rb"[ \t]", b"", text[body:end]).decode("latin-1"), "PEM")
        except ValueError:
            continue
        return label.decode("latin-1"), content
    return "", b""


def _line(text: bytes, at: int) -> tuple[bytes, int]:
    """Return a line without its end and the blanks before that, and where the next line begins."""
    end = text.find(b"\n", at)
    line, following = (text[at:], len(text)) if end < 0 else (text[at:end], end + 1)
    return line.removesuffix(b"\r").rstrip(b" \t"), following
