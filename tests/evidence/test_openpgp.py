"""The compression around an OpenPGP message is taken away, because nothing protects its encoding."""

import bz2
import zlib

import pytest

from osc_containers.evidence.signatures import openpgp

CONTENT = b"\xcb\x05b\0\0\0\0" * 9
DEFLATE = zlib.compressobj(wbits=-zlib.MAX_WBITS)
RAW = DEFLATE.compress(CONTENT) + DEFLATE.flush()


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
    ],
    ids=["none", "uncompressed", "ZIP", "ZIP, other padding", "ZLIB", "BZip2", "with a length"],
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
    ],
    ids=["damaged ZIP", "damaged BZip2", "unknown", "empty", "bomb"],
)
def test_a_message_that_cannot_be_unpacked_is_refused(message: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        openpgp.uncompressed(message, 1000)
