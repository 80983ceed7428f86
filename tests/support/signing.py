"""Keys, signatures and signed images: as cosign, OBS and podman make them, and damaged in many ways.

Keys and sigstore signatures are made by the package cryptography, which the product does not use; OpenPGP by gpg.
"""

import json
import subprocess
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from osc_containers.oci.digest import Digest
from tests.support.docker_registry import DockerRegistry
from tests.support.images import Image

MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
COSIGN, ATOMIC = "cosign container image signature", "atomic container signature"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def make_key(kind: str) -> PrivateKey:
    """Return a new private key: `rsa2048`, `p256`, `ed25519`, ..."""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(public_exponent=65537, key_size=int(kind[3:]))
    curves: Mapping[str, ec.EllipticCurve] = {
        "p224": ec.SECP224R1(),
        "p256": ec.SECP256R1(),
        "p384": ec.SECP384R1(),
        "p521": ec.SECP521R1(),
        "k256": ec.SECP256K1(),
    }
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(curves[kind])


def public_pem(key: PrivateKey) -> bytes:
    """Return the public key in PEM."""
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, info)


def public_der(key: PrivateKey) -> bytes:
    """Return the public key in DER."""
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, info)


def sign(key: PrivateKey, data: bytes, *, algorithm: str = "sha256", pss: bool = False) -> bytes:
    """Return a signature of `data`."""
    hash_ = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}[algorithm]
    if isinstance(key, rsa.RSAPrivateKey):
        scheme = padding.PSS(padding.MGF1(hash_), padding.PSS.DIGEST_LENGTH) if pss else padding.PKCS1v15()
        return key.sign(data, scheme, hash_)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hash_))
    return key.sign(data)


def payload(digest: object, identity: str, *, type_: str = COSIGN, optional: object = None) -> bytes:
    """Return what cosign signs."""
    document = {
        "critical": {
            "identity": {"docker-reference": identity},
            "image": {"docker-manifest-digest": str(digest)},
            "type": type_,
        },
        "optional": optional,
    }
    return json.dumps(document, separators=(",", ":")).encode()


class Attachment(NamedTuple):
    """A layer of an image of signatures."""

    payload: bytes
    media_type: str
    annotations: Mapping[str, str]


def attachment(payload: bytes, signature: bytes | str) -> Attachment:
    """Return a signature as a layer."""
    text = signature if isinstance(signature, str) else b64encode(signature).decode()
    return Attachment(payload, MEDIA_TYPE, {SIGNATURE: text})


def attach(
    registry: DockerRegistry,
    repository: str,
    digest: Digest,
    attachments: Sequence[Attachment],
    *,
    suffix: str = ".sig",
) -> None:
    """Store signatures beside an image, as cosign 2 and OBS do."""
    config = json.dumps({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [
            {**_descriptor(each.payload, each.media_type), "annotations": dict(each.annotations)}
            for each in attachments
        ],
    }
    image = Image(
        raw=json.dumps(manifest).encode(),
        media_type="application/vnd.oci.image.manifest.v1+json",
        blobs=(config, *dict.fromkeys(each.payload for each in attachments)),
    )
    registry.push(image, f"{repository}:{digest.algorithm}-{digest.hex}{suffix}")


def _descriptor(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


class Gpg:
    """A GnuPG home with keys that have no passphrase; its agent ends with the context."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self._home = home

    def __enter__(self) -> "Gpg":
        return self

    def __exit__(self, *_error: object) -> None:
        subprocess.run(["gpgconf", "--homedir", self._home, "--kill", "all"], check=False, capture_output=True)

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        """Run gpg and return its output."""
        command = ["gpg", "--homedir", str(self._home), "--batch", "--yes", "--pinentry-mode", "loopback"]
        command += ["--passphrase", "", "--trust-model", "always", *arguments]
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout

    def make_key(self, name: str, *, algorithm: str = "ed25519", expires: str = "0", at: str = "") -> None:
        """Make a key for `NAME@example.org` that signs; it begins at `at` (GnuPG's form of a time)."""
        when = ("--faked-system-time", f"{at}!") if at else ()
        self.run(*when, "--quick-generate-key", f"{name}@example.org", algorithm, "sign", expires)

    def public(self, name: str, *, armor: bool = False) -> bytes:
        """Return a public key."""
        return self.run(*(("--armor",) if armor else ()), "--export", f"{name}@example.org")

    def sign(self, names: Sequence[str], data: bytes, *options: str) -> bytes:
        """Return a signed message."""
        users = [word for name in names for word in ("--local-user", name if "!" in name else f"{name}@example.org")]
        return self.run(*options, *users, "--output", "-", "--sign", data=data)
