"""Digests are validated when they are parsed."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.oci.digest import Digest
from tests.support.messages import assert_bounded, exactly
from tests.support.strategies import digests

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(digests)
def test_a_digest_survives_a_round_trip(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@given(st.text() | st.text("sha0123456789abcdef:").map(lambda text: f"sha256:{text}"))
def test_any_text_gives_a_digest_or_an_error(text: str) -> None:
    try:
        assert str(Digest.parse(text)) == text
    except ValueError as error:
        assert_bounded(error)


SHAPE = "got {!r}, expected a digest like 'sha256:<64 hexadecimal digits>'"
ALGORITHM = "got digest algorithm {!r}, expected one of sha256, sha384, sha512"
VALUE = "got {!r}, expected {} lower-case hexadecimal digits after '{}:'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", SHAPE.format("")),
        ("sha256", SHAPE.format("sha256")),
        ("sha256:", SHAPE.format("sha256:")),
        (f"{EMPTY}\n", SHAPE.format(f"{EMPTY}\n")),
        (f" {EMPTY}", SHAPE.format(f" {EMPTY}")),
        (f"SHA256:{'0' * 64}", SHAPE.format(f"SHA256:{'0' * 64}")),
        (f"sha256:{'/' * 64}", SHAPE.format(f"sha256:{'/' * 64}")),
        ("\ud800" * 999, SHAPE.format("\ud800" * 80)),
        (f"md5:{'0' * 32}", ALGORITHM.format("md5")),
        (f"sha256+b64:{'0' * 64}", ALGORITHM.format("sha256+b64")),
        (f"{'a' * 999}:0", ALGORITHM.format("a" * 40)),
        (EMPTY[:-1], VALUE.format(EMPTY[:-1], 64, "sha256")),
        (f"{EMPTY}0", VALUE.format(f"{EMPTY}0", 64, "sha256")),
        (EMPTY.replace("e", "E"), VALUE.format(EMPTY.replace("e", "E"), 64, "sha256")),
        (f"sha256:{'g' * 64}", VALUE.format(f"sha256:{'g' * 64}", 64, "sha256")),
        (f"sha512:{'0' * 64}", VALUE.format(f"sha512:{'0' * 64}", 128, "sha512")),
        (f"sha384:{'0' * 999}", VALUE.format(f"sha384:{'0' * 153}", 96, "sha384")),
    ],
)
def test_an_error_names_the_invalid_part(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        Digest.parse(text)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_digest_matches_its_content(algorithm: str) -> None:
    digest = Digest.of(b"content", algorithm)
    assert str(digest) == f"{algorithm}:{hashlib.new(algorithm, b'content').hexdigest()}"
    assert digest.matches(b"content")
    assert not digest.matches(b"content ")
    assert digest.hasher().name == algorithm
    assert digest.hasher().hexdigest() == Digest.of(b"", algorithm).hex


def test_a_digest_has_a_short_form() -> None:
    assert Digest.of(b"") == Digest.parse(EMPTY)
    assert Digest.of(b"").short == "e3b0c44298fc"
