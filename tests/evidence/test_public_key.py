"""Public keys are taken apart, and put together in one encoding; `test_oracle.py` tries all the others."""

import pytest
from cryptography.hazmat.primitives import serialization

from osc_containers.evidence.signatures import public_key
from tests.support.signing import make_key, public_der, public_pem

KINDS = {"rsa2048": "RSA", "p224": "EC", "p256": "EC", "p384": "EC", "p521": "EC", "ed25519": "Ed25519"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoding_is_that_of_other_programs(kind: str) -> None:
    key = make_key(kind)
    parsed = public_key.parse_pem(public_pem(key))
    assert (parsed.kind, parsed.der, parsed.pem) == (KINDS[kind], public_der(key), public_pem(key))
    assert public_key.parse_der(parsed.der) == parsed


def test_other_encodings_give_the_same_key() -> None:
    key = make_key("rsa2048")
    pkcs1 = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    for text in (b"text\n" + public_pem(key), public_pem(key).replace(b"\n", b"\r\n"), pkcs1):
        assert public_key.parse_pem(text).der == public_der(key)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "got no PEM block"),
        (b"-----BEGIN PUBLIC KEY-----\n", "got no PEM block"),
        (public_pem(make_key("k256")), "got another elliptic curve"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "got a PEM block 'CERTIFICATE'"),
        (b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----", "not a public key in DER"),
        (b"x" * 70_000, "got more than 65536 bytes"),
    ],
)
def test_other_keys_are_refused(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        public_key.parse_pem(text)
