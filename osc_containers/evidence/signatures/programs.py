"""Verifies signatures with openssl and gpgv. There is no cryptography of our own."""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import Error
from osc_containers.evidence.signatures.payload import LIMIT
from osc_containers.evidence.signatures.public_key import ED25519, PublicKey
from osc_containers.fs import program
from osc_containers.fs.program import Done, NotInstalledError

PACKAGES = {"openssl": "openssl", "gpgv": "gpg2 (Debian: gpgv)"}
"""The package that has each program."""

_MESSAGES = 60 << 10
"""Bytes of messages of gpgv, below the limit of `program`; of more, the beginning would be missing."""


class Opened(NamedTuple):
    """An OpenPGP message whose signature is right; `expired` says why it no longer counts, or is empty."""

    payload: bytes
    fingerprint: str
    expired: str = ""


class Verifier:
    """Starts the programs; no program in the directories of `environ`'s PATH that belong to a package is used."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def is_signed(self, key: PublicKey, payload: bytes, signature: bytes) -> bool:
        """Return whether `signature` was made over the SHA-256 of `payload` (Ed25519: over `payload`) by `key`.

        :raises Error: openssl is missing or cannot work.
        """
        if not key.fits(signature):
            return False
        with tempfile.TemporaryDirectory(prefix="osc-containers.") as name:
            directory = Path(name)
            (directory / "key").write_bytes(key.pem)
            (directory / "signature").write_bytes(signature)
            (directory / "payload").write_bytes(payload)
            if key.kind == ED25519:
                # Ed25519 signs the whole text, and not a hash that was made before.
                options = ["pkeyutl", "-verify", "-pubin", "-inkey", "key", "-rawin", "-in", "payload"]
                options += ["-sigfile", "signature"]
            else:
                options = ["dgst", "-sha256", "-verify", "key", "-signature", "signature", "payload"]
            return self._run("openssl", options, directory).status == 0

    def open(self, ring: bytes, message: bytes) -> Opened:
        """Return what is in an OpenPGP message with exactly one signature, by a primary key in the binary keyring.

        :raises ValueError: there is no such signature.
        :raises Error: gpgv is missing or cannot work.
        """
        with tempfile.TemporaryDirectory(prefix="osc-containers.") as name:
            directory = Path(name)
            (directory / "ring.gpg").write_bytes(ring)
            (directory / "message").write_bytes(message)
            # The payload has standard output for itself, so the status lines are among the messages.
            options = ["--homedir", name, "--keyring", f"{name}/ring.gpg", "--status-fd", "2", "--output", "-"]
            done = self._run("gpgv", [*options, "message"], directory)
        return read_status(done.stdout, done.stderr, done.status)

    def _run(self, name: str, options: Sequence[str], directory: Path) -> Done:
        try:
            return program.run(name, *options, environ=self._environ, directory=directory, limit=LIMIT)
        except NotInstalledError as error:
            raise NotInstalledError(
                f"{error}, but needed to verify signatures; install {PACKAGES[name]}, "
                f"in a build by 'Support: {PACKAGES[name].split()[0]}' in the project configuration"
            ) from None


def read_status(payload: bytes, messages: bytes, exit_status: int) -> Opened:
    """Read the status lines of gpgv (GnuPG, doc/DETAILS).

    VALIDSIG alone proves little: gpgv also writes it for keys and signatures that have expired, and it continues after
    a bad signature.

    :raises ValueError: there is not exactly one signature, or it is not good.
    """
    if len(messages) > _MESSAGES:
        raise ValueError("gpgv: got too many messages")
    prefix = b"[GNUPG:] "
    lines = [line[len(prefix) :].split() for line in messages.splitlines() if line.startswith(prefix)]
    words = [line[0].decode("ascii", "replace") for line in lines if line]
    valid = [line for line in lines if line[:1] == [b"VALIDSIG"]]
    expired = next((word for word in words if word in ("EXPKEYSIG", "EXPSIG")), "")
    good = words.count("GOODSIG") + words.count("EXPKEYSIG") + words.count("EXPSIG")
    bad = [word for word in words if word in ("BADSIG", "ERRSIG", "REVKEYSIG", "FAILURE")]
    # gpgv may fail only because something has expired. Whether that matters is up to the caller.
    if words.count("NEWSIG") != 1 or good != 1 or bad or len(valid) != 1 or (exit_status and not expired):
        reason = next((_REASONS[word] for word in ("NO_PUBKEY", *bad) if word in words and word in _REASONS), "")
        raise ValueError(reason or "not an OpenPGP message with one good signature")
    # The first field is the fingerprint of the key that signed, and the last one that of its primary key.
    match = re.fullmatch(rb"VALIDSIG ([0-9A-F]{40,64})(?: .*)? ([0-9A-F]{40,64})", b" ".join(valid[0]))
    if match is None:
        raise ValueError("not an OpenPGP message with one good signature")
    fingerprint, primary = (text.decode() for text in match.groups())
    if fingerprint != primary:
        raise ValueError(f"signed by the subkey {fingerprint}; podman before version 5.7 accepts primary keys only")
    return Opened(payload=payload, fingerprint=fingerprint, expired=_EXPIRED.get(expired, ""))


_EXPIRED = {"EXPKEYSIG": "the key has expired", "EXPSIG": "the signature has expired"}
_REASONS = {
    "NO_PUBKEY": "signed with a different key",
    "BADSIG": "the signature is damaged",
    "ERRSIG": "the signature cannot be checked",
    "REVKEYSIG": "the key was revoked",
}


def missing(name: str) -> str | None:
    """Return a message if a program is not installed."""
    try:
        program.run(name, "--version" if name == "gpgv" else "version")
    except NotInstalledError as error:
        return str(error)
    except Error:
        return None
    return None
