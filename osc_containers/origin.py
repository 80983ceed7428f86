"""From the attributes of a `<container>` to the place of its image and the name it gets.

The joining is kiwi's (`XMLState.get_containers`); what goes beyond it is said in `interpret`. Everything that comes out
has been through the grammar of image names, so that it holds no character that a path, a unit or a terminal acts on.

Spec: containers-transports(5); distribution/reference.
"""

import posixpath
import re
from dataclasses import dataclass

from osc_containers.digest import Digest
from osc_containers.reference import Reference

_NAMED_TRANSPORTS = ("containers-storage", "docker-daemon")
_PATH_TRANSPORTS = ("dir", "docker-archive", "oci", "oci-archive")
TRANSPORTS = ("docker", *_NAMED_TRANSPORTS, *_PATH_TRANSPORTS)
_SERVED_BY_OBS = ("obs", "obsrepositories")

# A number after the colon is a port, even on a host that is called as a transport is.
_TRANSPORT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?!\d{1,5}(?:/|$))(.*)", re.DOTALL)
_DIGEST = re.compile(r"[a-z0-9]+:[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an image is got (`place`, in the form of containers-transports(5)), and what it is called from then on.

    `endpoint` is the text that kiwi gives to skopeo and `file_name` the path that it writes to, below
    `/var/tmp/kiwi_containers`.
    """

    endpoint: str
    place: str
    reference: Reference
    file_name: str


def interpret(*, source: str, path: str, name: str, tag: str) -> Origin:
    """Join the attributes of a section and a container; an attribute that is not there is empty.

    Beyond kiwi, `source` may begin with a transport, and a digest may stand where a tag may: in `tag`, or behind `name`
    together with a tag. For the transports that lead to a path, the joined path is the place, `tag` chooses an image
    of an OCI layout, and the name becomes `localhost/<path>/<name>`.

    :raises ValueError: they are no image name, or not one that can be fetched; the message says which attribute.
    """
    for attribute, value in (("source", source), ("path", path), ("name", name), ("tag", tag)):
        if not value.isprintable():
            raise ValueError(f"{attribute} {value[:160]!r}: got characters that cannot be printed")
    transport, at = _split_transport(source)
    base, version, digest = _split_version(name, tag)
    # kiwi would write the archive of "../x" beside its directory; "x/" would take its name from the path.
    if base.rpartition("/")[2] in ("", ".") or ".." in base.split("/"):
        raise ValueError(f"name {name[:160]!r}: expected the name of an image")
    suffix = (f":{version}" if version else "") + (f"@{digest}" if digest else "")
    if transport in _PATH_TRANSPORTS:
        joined = posixpath.normpath(f"{at}/{path}/{base}")
        if ":" in joined:
            raise ValueError(f"source {source[:160]!r}: got the path {joined[:160]!r}, expected one without ':'")
        inner = posixpath.normpath(f"/{path}/{base}").lstrip("/")
        reference = Reference.parse(f"localhost/{inner}{suffix}")
        ref = f":{version}" if version and transport in ("oci", "oci-archive") else ""
        place = f"{transport}:{joined}{ref}"
    else:
        joined = posixpath.normpath(f"{at}/{path}/{base}" if at else f"{path}/{base}".lstrip("/"))
        reference = Reference.parse(f"{joined}{suffix}")
        place = f"docker://{reference}" if transport == "docker" else f"{transport}:{reference}"
    return Origin(
        endpoint=posixpath.normpath(f"{source}/{path}/{name}:{tag or 'latest'}"),
        place=place,
        reference=reference,
        file_name=posixpath.normpath(f"{name.lstrip('/')}_{tag or 'latest'}"),
    )


def _split_transport(source: str) -> tuple[str, str]:
    match = _TRANSPORT.fullmatch(source)
    scheme, rest = (match[1].lower(), match[2]) if match else ("docker", f"//{source}")
    if "@" in rest:  # perhaps a password: the message must not repeat it
        raise ValueError("source: got an '@', expected a registry; log in with 'podman login' or 'skopeo login'")
    if scheme in ("http", "https"):
        host = rest.strip("/") or "registry.example.com"
        raise ValueError(f"source {source[:160]!r}: expected a registry without scheme; write source={host[:160]!r}")
    if scheme in _SERVED_BY_OBS:
        raise ValueError(
            f"source {source[:160]!r}: only a build of the Open Build Service can read that; write the registry that "
            "has the image, like source='registry.opensuse.org'"
        )
    if scheme not in TRANSPORTS:
        raise ValueError(f"source {source[:160]!r}: expected a registry, or one of {':, '.join(TRANSPORTS)}: before it")
    if scheme == "docker":
        if not rest.startswith("//"):
            raise ValueError(f"source {source[:160]!r}: expected 'docker://' before the registry")
        rest = rest[2:]
    if not rest and scheme not in _NAMED_TRANSPORTS:
        raise ValueError("source: empty, expected a registry like 'docker.io', or a transport and a path")
    return scheme, rest


def _split_version(name: str, tag: str) -> tuple[str, str | None, Digest | None]:
    """Take tag and digest, from wherever they stand, away from the name."""
    base, at, behind_name = name.partition("@")
    if at and ":" not in behind_name:
        # What kiwi itself joins to a digest: name="x@sha256" tag="<hex>".
        behind_name, tag = f"{behind_name}:{tag}", ""
    head, slash, last = base.rpartition("/")
    last, _, tag_of_name = last.partition(":")
    if _DIGEST.fullmatch(tag):
        tag_of_tag, behind_tag = "", tag
    else:
        tag_of_tag, _, behind_tag = tag.partition("@")
    digest = _only("digest", behind_name, behind_tag)
    return head + slash + last, _only("tag", tag_of_name, tag_of_tag), Digest.parse(digest) if digest else None


def _only(what: str, of_name: str, of_tag: str) -> str | None:
    if of_name and of_tag and of_name != of_tag:
        raise ValueError(f"name has the {what} {of_name[:160]!r} and tag has {of_tag[:160]!r}; expected one of them")
    return of_name or of_tag or None
