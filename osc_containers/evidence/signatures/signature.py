"""Signatures as they are stored: attached to an image by cosign, or as files in a lookaside store."""

from collections.abc import Mapping
from typing import NamedTuple

from osc_containers.evidence import json_object
from osc_containers.evidence.signatures.payload import SIGSTORE, SIMPLE

MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

# OpenPGP (RFC 4880, section 4.2): packets of compressed data, one-pass signatures and signatures. 0x3d is no packet;
# podman lists it by mistake, and gpg then finds no signature.
_OPENPGP = frozenset((0xA0, 0xA1, 0xA2, 0xA3, 0xC8, 0x90, 0x91, 0x92, 0x3D, 0xC4, 0x88, 0x89, 0x8A, 0x8B, 0xC2))


class Signature(NamedTuple):
    """A signature that was not verified.

    `SIMPLE`: `value` is an OpenPGP message with the payload inside. `SIGSTORE`: `value` is base64, as it was written.
    A sigstore attachment of another `media_type`, for instance an attestation, is not a signature of the image.
    """

    format: str
    payload: bytes
    value: bytes | str | None
    media_type: str = MEDIA_TYPE


def of_attachment(media_type: str, payload: bytes, annotations: Mapping[str, str]) -> Signature:
    """Return the signature in a layer of an image of signatures."""
    return Signature(format=SIGSTORE, payload=payload, value=annotations.get(ANNOTATION), media_type=media_type)


def of_file(content: bytes) -> Signature:
    """Return the signature in a file of a lookaside store.

    :raises ValueError: its format is unknown. podman then refuses the image, whatever its other signatures are.
    """
    if content and content[0] in _OPENPGP:
        return Signature(format=SIMPLE, payload=b"", value=content)
    name, newline, rest = content.partition(b"\n")
    # All other formats begin with a zero byte and a line with their name (containers/image, internal/signature).
    if not newline or name not in (b"\0simple-signing", b"\0sigstore-json"):
        raise ValueError(f"got a file that begins with {content[:20]!r}, expected a signature")
    if name == b"\0simple-signing":
        return Signature(format=SIMPLE, payload=b"", value=rest)
    members = json_object.fields(json_object.decode(rest, "signature"), "signature", None)
    annotations = members.get("annotations")
    texts = {} if annotations is None else json_object.fields(annotations, "signature: annotations", None)
    return of_attachment(
        json_object.text(members.get("mimeType"), "signature: mimeType"),
        json_object.data(members.get("payload"), "signature: payload") or b"",
        {name: json_object.text(value, f"signature: annotations[{name[:80]!r}]") for name, value in texts.items()},
    )
