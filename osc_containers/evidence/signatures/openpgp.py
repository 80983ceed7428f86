"""OpenPGP keyrings and messages, as far as packets go: armor, compression, fingerprints. Nothing is verified here.

gpgv reads binary keyrings only. Sources: RFC 4880, sections 4.2 (packets), 5.6 (compressed data), 6.2 (armor) and 12.2
(fingerprints).
"""

import bz2
import hashlib
import re
import zlib
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterator

_PUBLIC_KEY, _SIGNATURE, _COMPRESSED = 6, 2, 8
_OPEN_LENGTH = 3
"""The type of length in an old-format header of a packet that ends with the message."""
_COMPRESSION_LIMIT = 31
"""How often a message may be compressed; gpg refuses 32 times, and so podman does."""
# Types of subpackets (RFC 4880, section 5.2.3.1, and RFC 9580): after which time the key expires, and who signed.
_LIFETIME, _ISSUER, _FINGERPRINT = 9, 16, 33
# Four kinds of certification of a user ID, and a signature directly on a key (RFC 4880, section 5.2.1).
_SELF_SIGNATURES = (b"\x10", b"\x11", b"\x12", b"\x13", b"\x1f")
_ARMOR = re.compile(
    rb"^-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL | re.MULTILINE,
)


def keyring(text: bytes) -> bytes:
    """Return the keys in a file without armor; as with gpg's import, what is not a key is passed over."""
    blocks = [_unarmored(match[1]) for match in _ARMOR.finditer(text)]
    return b"".join(map(_keys, blocks if blocks else [text]))


def _keys(ring: bytes) -> bytes:
    """Return the keys with all that belongs to them, without what is in front of the first.

    Like gpg, it passes over the last key if other bytes follow it: parts of the key may be missing, such as the
    signature that says when it expires.
    """
    start = last = end = 0
    has_key = False
    for tag, at, after in _packets(ring):
        end = after
        if tag == _PUBLIC_KEY:
            start, last, has_key = start if has_key else at, at, True
    if end != len(ring):
        end = last
    return ring[start:end] if has_key else b""


def uncompressed(message: bytes, limit: int) -> bytes:
    """Return a message without compression around it.

    gpgv ignores damage at the end of compressed data, so the same signature would have many forms.

    :raises ValueError: it cannot be decompressed, or has more than `limit` bytes.
    """
    for _ in range(_COMPRESSION_LIMIT + 1):
        body = _compressed_body(message)
        if body is None:
            return message
        try:
            message = _decompress(body[:1], body[1:], limit)
        except (OSError, zlib.error, EOFError) as error:
            raise ValueError(f"the compressed OpenPGP message is damaged: {error}") from None
        if len(message) > limit:
            raise ValueError(f"the OpenPGP message has more than {limit} bytes")
    raise ValueError(f"the OpenPGP message is compressed more than {_COMPRESSION_LIMIT} times")


def _compressed_body(message: bytes) -> bytes | None:
    """Return what is in the compressed packet that a message begins with, or None if it begins with another."""
    # GnuPG writes compressed packets with an open length, and Sequoia with partial ones; `_header` reads neither.
    if message[:1] == bytes([0x80 | _COMPRESSED << 2 | _OPEN_LENGTH]):
        return message[1:]
    body, at = bytearray(), 1
    if message[:1] == bytes([0xC0 | _COMPRESSED]):
        while at < len(message) and 224 <= message[at] < 255:
            # A partial length is a power of two. The part is followed by another length.
            size = 1 << (message[at] & 0x1F)
            body += message[at + 1 : at + 1 + size]
            at += 1 + size
    header = _header(message[:1] + message[at:], 0) if at < len(message) else None
    if header is None:
        return bytes(body) or None
    tag, start, length = header
    # Here, the header begins one byte before `at`.
    start += at - 1
    return bytes(body + message[start : start + length]) if tag == _COMPRESSED else None


def _decompress(algorithm: bytes, data: bytes, limit: int) -> bytes:
    if algorithm == b"\0":
        return data
    if algorithm in (b"\1", b"\2"):
        # 1 (ZIP) is raw deflate data, and 2 (ZLIB) has a header and a checksum. One byte more than the limit is enough
        # to notice that there are too many.
        return zlib.decompressobj(-zlib.MAX_WBITS if algorithm == b"\1" else zlib.MAX_WBITS).decompress(data, limit + 1)
    if algorithm == b"\3":
        return bz2.BZ2Decompressor().decompress(data, limit + 1)
    raise ValueError(f"the OpenPGP message is compressed by the unknown algorithm {algorithm.hex() or 'of no byte'}")


def key_of(ring: bytes, fingerprint: str) -> bytes:
    """Return the one key in a keyring that has a fingerprint, with its user ids and signatures; else the whole ring."""
    starts = [start for tag, start, _ in _packets(ring) if tag == _PUBLIC_KEY]
    for start, end in zip(starts, [*starts[1:], len(ring)], strict=False):
        if _fingerprint(ring, start) == fingerprint:
            return ring[start:end]
    return ring


def expiry(ring: bytes) -> int | None:
    """Return when the first key in a keyring expires, in seconds since 1970; None if it does not.

    The last signature of the key on itself decides (RFC 4880, section 5.2.3.3). It is not verified: this is for a
    warning.
    """
    created = lifetime = None
    key_id = b""
    for tag, start, _ in _packets(ring):
        _, at, length = _header(ring, start) or (0, start, 0)
        body = ring[at : at + length]
        if tag == _PUBLIC_KEY and len(body) > 5:
            if created is not None:
                break
            created = int.from_bytes(body[1:5], "big")
            key_id = bytes.fromhex(_fingerprint(ring, start))[-8:]
        elif tag == _SIGNATURE and body[:1] == b"\4" and body[1:2] in _SELF_SIGNATURES:
            # Version, type and algorithms take four bytes. Subpackets follow the number of their bytes: first those
            # that the signature covers, then others.
            end = 6 + int.from_bytes(body[4:6], "big")
            covered = dict(_subpackets(body[6:end]))
            others = dict(_subpackets(body[end + 2 : end + 2 + int.from_bytes(body[end : end + 2], "big")]))
            # People who know the owner also sign keys, and say nothing about the lifetime.
            issuer = covered.get(_FINGERPRINT) or covered.get(_ISSUER) or others.get(_ISSUER) or key_id
            if issuer[-8:] == key_id:
                lifetime = int.from_bytes(covered.get(_LIFETIME, b""), "big")
    return created + lifetime if created is not None and lifetime else None


def _subpackets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the subpackets of a signature (RFC 4880, section 5.2.3.1)."""
    at = 0
    while at < len(data):
        octet = data[at]
        # Lengths are as in headers of packets, but none is partial.
        size = 1 if octet < 192 else 2 if octet < 255 else 5
        length = int.from_bytes(data[at + (size == 5) : at + size], "big")
        length = length - (192 << 8) + 192 if size == 2 else length
        at += size
        # The length counts the byte of the type as well. The highest bit only says that it must not be ignored.
        if length and at < len(data):
            yield data[at] & 0x7F, data[at + 1 : at + length]
        # A length of 0 is not valid, but the loop has to end.
        at += max(length, 1)


def _unarmored(body: bytes) -> bytes:
    lines = [line.strip() for line in body.splitlines()]
    # Headers end at the first empty line; the line of the checksum begins with '='.
    start = lines.index(b"") + 1 if b"" in lines else 0
    data = b"".join(line for line in lines[start:] if not line.startswith(b"="))
    try:
        return a2b_base64(data, strict_mode=True)
    except Base64Error:
        return b""


def _packets(ring: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield tag, start and end of each packet, up to the first bytes that are none."""
    at = 0
    while at < len(ring) and (header := _header(ring, at)):
        tag, body, length = header
        if body + length > len(ring):
            return
        yield tag, at, body + length
        at = body + length


def _header(ring: bytes, at: int) -> tuple[int, int, int] | None:
    """Return tag, start and length of a packet's body. Packets of keys have no partial and no open lengths."""
    first, at = ring[at], at + 1
    if not first & 0x80:
        return None
    if first & 0x40:
        # Bit 6 tells new headers from old ones. 224 stands for a partial length, which is refused like a missing one.
        tag, octet = first & 0x3F, ring[at] if at < len(ring) else 224
        size = 1 if octet < 192 else 2 if octet < 224 else 5
        if 224 <= octet < 255 or len(ring) < at + size:
            return None
        value = int.from_bytes(ring[at + (size == 5) : at + size], "big")
        # Two octets mean ((first - 192) << 8) + second + 192 (RFC 4880, section 4.2.2.2).
        return tag, at + size, value - (192 << 8) + 192 if size == 2 else value
    size = (1, 2, 4, 0)[first & 3]
    if not size or len(ring) < at + size:
        return None
    return (first & 0x3C) >> 2, at + size, int.from_bytes(ring[at : at + size], "big")


def _fingerprint(ring: bytes, start: int) -> str:
    _, at, length = _header(ring, start) or (0, start, 0)
    body = ring[at : at + length]
    if body[:1] == b"\4":
        # SHA-1 is what OpenPGP version 4 defines as the name of a key; nothing is signed by it.
        return hashlib.sha1(b"\x99" + length.to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()
    return hashlib.sha256(b"\x9a" + length.to_bytes(4, "big") + body).hexdigest().upper()
