"""OpenPGP packets: nothing protects the encoding of compression, so it is taken away; keys say when they expire."""

import bz2
import hashlib
import zlib
from base64 import b64encode

import pytest

from osc_containers.evidence.signatures import openpgp

CONTENT = b"\xcb\x05b\0\0\0\0" * 9


def deflate(content: bytes) -> bytes:
    """Return raw deflate data."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


def compress(content: bytes, times: int) -> bytes:
    """Return a message in so many packets of compressed data."""
    for _ in range(times):
        content = b"\xa3\x01" + deflate(content)
    return content


RAW = deflate(CONTENT)
PARTS = b"\xc8\xe0\x01\xe2" + RAW[:4] + b"\xe0" + RAW[4:5] + bytes([len(RAW) - 5]) + RAW[5:]


@pytest.mark.parametrize(
    "message",
    [
        CONTENT,
        b"\xa3\x00" + CONTENT,
        b"\xa3\x01" + RAW,
        b"\xa3\x01" + RAW[:-1] + bytes([RAW[-1] | 0x80]),
        b"\xa3\x02" + zlib.compress(CONTENT),
        b"\xa3\x03" + bz2.compress(CONTENT),
        b"\xc8" + bytes([len(RAW) + 1]) + b"\x01" + RAW,
        PARTS,
        compress(CONTENT, 2),
        b"\xa3\x02" + zlib.compress(PARTS),
        compress(CONTENT, 31),
    ],
    ids=[
        *("none", "uncompressed", "ZIP", "ZIP, other padding", "ZLIB", "BZip2", "with a length", "in parts"),
        *("twice", "in parts and once more", "31 times"),
    ],
)
def test_a_message_has_one_form(message: bytes) -> None:
    assert openpgp.uncompressed(message, 1000) == CONTENT


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"\xa3\x01\xff\xff", "the compressed OpenPGP message is damaged: "),
        (b"\xa3\x03x" * 9, "the compressed OpenPGP message is damaged: "),
        (b"\xa3\x09x", "the OpenPGP message is compressed by the unknown algorithm 09"),
        (b"\xa3", "the OpenPGP message is compressed by the unknown algorithm of no byte"),
        (b"\xa3\x02" + zlib.compress(bytes(1 << 20)), "the OpenPGP message has more than 1000 bytes"),
        (compress(bytes(1 << 20), 2), "the OpenPGP message has more than 1000 bytes"),
        (compress(CONTENT, 32), "the OpenPGP message is compressed more than 31 times"),
    ],
    ids=["damaged ZIP", "damaged BZip2", "unknown", "empty", "bomb", "bomb inside", "32 times"],
)
def test_a_message_that_cannot_be_unpacked_is_refused(message: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        openpgp.uncompressed(message, 1000)


DATE, LIFETIME = b"\x05\x02\0\0\0\x01", b"\x05\x09\0\0\0\x07"
KEY = b"\x04" + (1000).to_bytes(4, "big") + b"\x16"
KEY_ID = hashlib.sha1(b"\x99\0\x06" + KEY).digest()[-8:]
SELF, FRIEND = b"\x09\x10" + KEY_ID, b"\x09\x10" + bytes(8)


@pytest.mark.parametrize(
    ("signatures", "expected"),
    [
        ([(DATE, b"")], None),
        ([(DATE + LIFETIME, b"")], 1007),
        ([(DATE + b"\x05\x89\0\0\0\x07", b"")], 1007),
        ([(b"\x05\x09\0\0\0\0", b"")], None),
        ([(DATE + LIFETIME, SELF), (DATE, SELF)], None),
        ([(DATE + LIFETIME, SELF), (DATE, FRIEND)], 1007),
        ([(DATE + LIFETIME + b"\x16\x21\x04" + bytes(12) + KEY_ID, b""), (FRIEND, b"")], 1007),
    ],
    ids=["none", "lifetime", "critical", "lifetime of 0", "no longer", "signed by a friend", "with a fingerprint"],
)
def test_a_key_may_say_when_it_expires(signatures: list[tuple[bytes, bytes]], expected: int | None) -> None:
    """The subpackets of each signature: those that it covers, and others."""
    packets = [(0xC6, KEY)]
    for subpackets in signatures:
        parts = b"".join(len(each).to_bytes(2, "big") + each for each in subpackets)
        packets.append((0xC2, b"\x04\x13\x16\x08" + parts))
    assert openpgp.expiry(b"".join(bytes([tag, len(body)]) + body for tag, body in packets)) == expected


ONE, OTHER = (b"\xc6\x06\x04" + bytes([number]) * 5 + b"\xcd\x01u\xc2\x01\x04" for number in (1, 2))


def armor(ring: bytes) -> bytes:
    """Return a keyring in text."""
    label = b"PGP PUBLIC KEY BLOCK-----"
    return b"-----BEGIN %s\n\n%s\n-----END %s\n" % (label, b64encode(ring), label)


KEYRINGS = {
    "one": (ONE, ONE),
    "two": (ONE + OTHER, ONE + OTHER),
    "after a marker": (b"\xca\x03PGP" + ONE, ONE),
    "no key": (b"\xca\x03PGP", b""),
    "nothing": (b"", b""),
    "before other bytes": (ONE + b"junk", b""),
    "two before other bytes": (ONE + OTHER + b"junk", ONE),
    "cut": (ONE[:-1], b""),
    "second cut in its key": (ONE + OTHER[:4], b""),
    "second cut behind it": (ONE + OTHER[:-1], ONE),
    "armored": (b"text\n" + armor(ONE) + b"text\n" + armor(OTHER), ONE + OTHER),
    "indented": (b" " + armor(ONE), b""),
}


@pytest.mark.parametrize(("text", "expected"), KEYRINGS.values(), ids=KEYRINGS)
def test_a_key_is_whole_or_passed_over(text: bytes, expected: bytes) -> None:
    assert openpgp.keyring(text) == expected
