"""From the attributes of a `<container>` to the place of its image and the name it gets.

The joining is kiwi's (`XMLState.get_containers`); what goes beyond it is said in `interpret`. Everything that comes out
has been through the grammar of image names, so that it holds no character that a path, a unit or a terminal acts on;
only a place on this machine's disk may have any that can be printed.

Spec: containers-transports(5); distribution/reference.
"""

import posixpath
import re
from typing import NamedTuple

from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference

_NAMED_TRANSPORTS = ("containers-storage", "docker-daemon")
_PATH_TRANSPORTS = ("dir", "docker-archive", "oci", "oci-archive")
_HOLD_TAGS = ("docker-archive", "oci", "oci-archive")
TRANSPORTS = ("docker", *_NAMED_TRANSPORTS, *_PATH_TRANSPORTS)
_SERVED_BY_OBS = ("obs", "obsrepositories")

# A number after the colon is a port, even on a host that is called as a transport is.
_TRANSPORT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?!\d{1,5}(?:/|$))(.*)", re.DOTALL)
_DIGEST = re.compile(r"[a-z0-9]+:[A-Za-z0-9]+")


class Source(NamedTuple):
    """The `source` of a section: as written, and taken apart into a transport and what it begins with."""

    text: str
    transport: str
    start: str

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Read a registry, perhaps with a path, or a transport of containers-transports(5) with what it asks for.

        :raises ValueError: it is something else.
        """
        _expect_printable("source", text)
        match = _TRANSPORT.fullmatch(text)
        transport, rest = (match[1].lower(), match[2]) if match else ("docker", f"//{text}")
        if "@" in rest:  # perhaps a password: the message must not repeat it
            raise ValueError("source: got an '@', expected a registry; log in with 'podman login' or 'skopeo login'")
        if transport in ("http", "https"):
            host = rest.strip("/") or "registry.example.com"
            raise ValueError(f"source {text[:160]!r}: expected a registry without scheme; write source={host[:160]!r}")
        if transport in _SERVED_BY_OBS:
            raise ValueError(
                f"source {text[:160]!r}: only a build of the Open Build Service can read that; write the registry that "
                "has the image, like source='registry.opensuse.org'"
            )
        if transport not in TRANSPORTS:
            known = ", ".join(f"'{each}:'" for each in TRANSPORTS)
            raise ValueError(f"source {text[:160]!r}: expected a registry, or one of {known} before the place")
        if transport == "docker":
            if not rest.startswith("//"):
                raise ValueError(f"source {text[:160]!r}: expected 'docker://' before the registry")
            rest = rest[2:]
        if not rest and transport not in _NAMED_TRANSPORTS:
            raise ValueError(f"source {text!r}: empty, expected a registry like 'docker.io', or a transport and a path")
        return cls(text, transport, rest)


class Origin(NamedTuple):
    """Where an image is got (`place`, in the form of containers-transports(5)), and what it is called from then on.

    `endpoint` is the text that kiwi gives to skopeo and `file_name` the path that it writes to, below
    `/var/tmp/kiwi_containers`.
    """

    endpoint: str
    place: str
    reference: Reference
    file_name: str


def interpret(*, source: Source, path: str, name: str, tag: str) -> Origin:
    """Join the attributes of a section and a container; an attribute that is not there is empty.

    Beyond kiwi, a digest may stand where a tag may: in `tag`, or behind `name`, together with a tag or alone. For the
    transports that lead to a path, the joined path is the place, `tag` chooses one of several images, and the name
    becomes `localhost/<path>/<name>`.

    :raises ValueError: they are no image name, or not one that can be fetched; the message says which attribute.
    """
    for attribute, value in (("path", path), ("name", name), ("tag", tag)):
        _expect_printable(attribute, value)
    transport, at = source.transport, source.start
    base, version, digest = _split_version(name, tag)
    # kiwi would write the archive of "../x" beside its directory; "x/" would take its name from the path.
    if base.rpartition("/")[2] in ("", ".") or ".." in base.split("/"):
        raise ValueError(f"name {name[:160]!r}: expected the name of an image")
    suffix = ("" if version is None else f":{version}") + (f"@{digest}" if digest else "")
    if transport in _PATH_TRANSPORTS:
        joined = posixpath.normpath(f"{at}/{path}/{base}")
        if ":" in joined:
            raise ValueError(
                f"source {source.text[:160]!r}: expected a path without ':', got {joined[:160]!r}; "
                "the last part of the path is the container's 'name', and what follows a ':' its 'tag'"
            )
        inner = posixpath.normpath(f"/{path}/{base}").lstrip("/")
        reference = Reference.parse(f"localhost/{inner}{suffix}")
        ref = f":{version}" if version and transport in _HOLD_TAGS else ""
        place = f"{transport}:{joined}{ref}"
    else:
        joined = posixpath.normpath(f"{at}/{path}/{base}" if at else f"{path}/{base}".lstrip("/"))
        reference = Reference.parse(f"{joined}{suffix}")
        place = f"docker://{reference}" if transport == "docker" else f"{transport}:{reference}"
    return Origin(
        endpoint=posixpath.normpath(f"{source.text}/{path}/{name}:{tag or 'latest'}"),
        place=place,
        reference=reference,
        file_name=posixpath.normpath(f"{name.lstrip('/')}_{tag or 'latest'}"),
    )


def _expect_printable(attribute: str, value: str) -> None:
    # Besides control characters these are those that change the direction of what is written.
    if not value.isprintable():
        raise ValueError(f"{attribute} {value[:160]!r}: got characters that cannot be printed")


def _split_version(name: str, tag: str) -> tuple[str, str | None, Digest | None]:
    """Take tag and digest, from wherever they stand, away from the name."""
    rest, digest_of_name = _cut(name, "@")
    if digest_of_name is not None and ":" not in digest_of_name:
        # What kiwi itself joins to a digest: name="x@sha256" tag="<hex>".
        digest_of_name, tag = f"{digest_of_name}:{tag}", ""
    head, slash, last = rest.rpartition("/")
    last, tag_of_name = _cut(last, ":")
    tag_of_tag, digest_of_tag = (None, tag) if _DIGEST.fullmatch(tag) else _cut(tag, "@")
    digest = _only("digest", digest_of_name, digest_of_tag)
    version = _only("tag", tag_of_name, tag_of_tag or None)
    return head + slash + last, version, None if digest is None else Digest.parse(digest)


def _cut(text: str, mark: str) -> tuple[str, str | None]:
    before, found, behind = text.partition(mark)
    return before, behind if found else None


def _only(what: str, of_name: str | None, of_tag: str | None) -> str | None:
    if of_name is None or of_tag is None:
        return of_tag if of_name is None else of_name
    if of_name != of_tag:
        raise ValueError(f"name has the {what} {of_name[:160]!r} and tag has {of_tag[:160]!r}; expected one of them")
    return of_name
