"""What a signature says: the manifest that it is for, and the name.

Source: "simple signing" of containers/image (containers-signature(5)); sigstore's payload differs only in its type, and
in that `optional` may be null.
"""

from typing import NamedTuple

from osc_containers.evidence import json_object
from osc_containers.oci.digest import Digest

SIMPLE, SIGSTORE = "simple", "sigstore"
_TYPES = {SIMPLE: "atomic container signature", SIGSTORE: "cosign container image signature"}
LIMIT = 4 << 20
"""Bytes of a payload or a signature; podman has the same limit."""


class Claim(NamedTuple):
    """The content of a signature."""

    digest: Digest
    identity: str


def parse(text: bytes, format_: str) -> Claim:
    """Parse the payload of a signature of the format `SIMPLE` or `SIGSTORE`.

    :raises ValueError: podman would refuse it.
    """
    where = "payload"
    document = json_object.fields(
        json_object.decode(text, where), where, ("critical", "optional"), required=("critical", "optional")
    )
    if format_ != SIGSTORE or document["optional"] is not None:
        _check_optional(document["optional"])
    parts = ("type", "image", "identity")
    critical = json_object.fields(document["critical"], f"{where}: critical", parts, required=parts)
    type_ = json_object.text(critical["type"], f"{where}: critical.type")
    if type_ != _TYPES[format_]:
        raise ValueError(f"{where}: critical.type: got {type_[:80]!r}, expected {_TYPES[format_]!r}")
    digest = _only(critical["image"], "docker-manifest-digest", f"{where}: critical.image")
    identity = _only(critical["identity"], "docker-reference", f"{where}: critical.identity")
    return Claim(digest=Digest.parse(digest), identity=identity)


def _only(value: object, name: str, where: str) -> str:
    return json_object.text(json_object.fields(value, where, (name,), required=(name,))[name], f"{where}.{name}")


def _check_optional(value: object) -> None:
    where = "payload: optional"
    members = json_object.fields(value, where, None)
    json_object.text(members.get("creator"), f"{where}.creator")
    timestamp = members.get("timestamp")
    if timestamp is None:
        return
    if not isinstance(timestamp, float):
        raise ValueError(f"{where}.timestamp: got {json_object.kind(timestamp)}, expected a number")
    # podman converts it to an int64 and back, and refuses what is changed by that.
    if not timestamp.is_integer() or not -(2**63) <= timestamp < 2**63:
        raise ValueError(f"{where}.timestamp: got {timestamp}, expected a whole number")
