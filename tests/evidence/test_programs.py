"""openssl and gpgv verify signatures; what they say is read without trust."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from osc_containers.errors import Error
from osc_containers.evidence.signatures import openpgp, programs, public_key
from tests.support.signing import Gpg, make_key, public_pem, sign

FINGERPRINT = "A" * 40
GOOD = f"[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 1 x\n[GNUPG:] VALIDSIG {FINGERPRINT} 2 3 4 5 6 7 8 9 {FINGERPRINT}\n"


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    with Gpg(tmp_path_factory.mktemp("gpg") / "home") as gpg:
        for name in ("good", "other"):
            gpg.make_key(name)
        yield gpg


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384", "ed25519"])
def test_openssl_verifies_what_others_signed(kind: str) -> None:
    key, text = make_key(kind), b"text"
    parsed, value = public_key.parse_pem(public_pem(key)), sign(key, text)
    assert programs.Verifier().is_signed(parsed, text, value)
    assert not programs.Verifier().is_signed(parsed, text + b"x", value)
    assert not programs.Verifier().is_signed(parsed, text, value[:-1])
    assert not programs.Verifier().is_signed(parsed, text, value + b"\0")
    assert not programs.Verifier().is_signed(public_key.parse_pem(public_pem(make_key(kind))), text, value)


@pytest.mark.integration
def test_gpgv_opens_messages(gpg: Gpg) -> None:
    ring = openpgp.keyring(gpg.public("other", armor=True)) + openpgp.keyring(gpg.public("good"))
    opened = programs.Verifier().open(ring, gpg.sign(["good"], b"text"))
    assert (opened.payload, opened.expired) == (b"text", "")
    assert openpgp.key_of(ring, opened.fingerprint) == gpg.public("good")


@pytest.mark.integration
@pytest.mark.parametrize("message", [b"", b"text", b"\xa3\x01", b"\x88" * 100])
def test_gpgv_refuses_what_is_no_message(gpg: Gpg, message: bytes) -> None:
    with pytest.raises(ValueError, match="not an OpenPGP message"):
        programs.Verifier().open(gpg.public("good"), message)


@pytest.mark.integration
def test_gpgv_refuses_another_key(gpg: Gpg) -> None:
    with pytest.raises(ValueError, match="signed with a different key"):
        programs.Verifier().open(gpg.public("other"), gpg.sign(["good"], b"text"))


def test_a_good_status_is_read() -> None:
    assert programs.read_status(b"text", GOOD.encode(), 0) == (b"text", FINGERPRINT, "")


@pytest.mark.parametrize(
    ("status", "exit_status"),
    [
        (GOOD, 1),
        (GOOD.replace("GOODSIG", "BADSIG"), 0),
        (GOOD + GOOD, 0),
        (GOOD + "[GNUPG:] NEWSIG\n[GNUPG:] BADSIG 1 x\n", 0),
        (GOOD.replace("VALIDSIG", "VALID"), 0),
        (GOOD.replace("[GNUPG:]", "gpgv: [GNUPG:]"), 0),
        (GOOD.replace(f"9 {FINGERPRINT}", f"9 {'B' * 40}"), 0),
        (f"[GNUPG:] NEWSIG\n[GNUPG:] VALIDSIG {FINGERPRINT}\n", 0),
        ("x" * 70_000 + GOOD, 0),
        ("", 0),
    ],
)
def test_any_other_status_is_refused(status: str, exit_status: int) -> None:
    with pytest.raises(ValueError, match=r"OpenPGP|signed by|damaged|too many"):
        programs.read_status(b"text", status.encode(), exit_status)


@pytest.mark.parametrize(
    ("word", "reason"), [("EXPKEYSIG", "the key has expired"), ("EXPSIG", "the signature has expired")]
)
def test_expired_signatures_are_marked(word: str, reason: str) -> None:
    assert programs.read_status(b"text", GOOD.replace("GOODSIG", word).encode(), 0).expired == reason


def test_a_missing_program_names_its_package(tmp_path: Path) -> None:
    environ: Mapping[str, str] = {"PATH": str(tmp_path)}
    with pytest.raises(Error, match="openssl: not installed, but needed to verify signatures; install openssl"):
        programs.Verifier(environ).is_signed(public_key.parse_pem(public_pem(make_key("ed25519"))), b"", bytes(64))
    with pytest.raises(Error, match="gpgv: not installed, but needed to verify signatures; install gpg2"):
        programs.Verifier(environ).open(b"", b"")
