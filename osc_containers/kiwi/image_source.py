"""The location and the name of an image, from the attributes of a `<container>`.

They are joined as kiwi does it (`XMLState.get_containers` in kiwi/xml_state.py); `interpret` lists the extensions. The
results are valid image names, and so have no character that is special in a path, a systemd unit or a terminal. Only
the location of an image on this machine's disk may have any printable character.

Spec: containers-transports(5); distribution/reference.
"""

import posixpath
import re
from typing import NamedTuple

from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference

_NAMED_TRANSPORTS = ("containers-storage", "docker-daemon")
_PATH_TRANSPORTS = ("dir", "docker-archive", "oci", "oci-archive")
# A directory of the transport `dir` has exactly one image, without a name (containers-transports(5)).
_HOLD_TAGS = ("docker-archive", "oci", "oci-archive")
TRANSPORTS = ("docker", *_NAMED_TRANSPORTS, *_PATH_TRANSPORTS)
_SERVED_BY_OBS = ("obs", "obsrepositories")

# A number after the colon is a port, even if the host has the name of a transport.
_TRANSPORT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?!\d{1,5}(?:/|$))(.*)", re.DOTALL)
# Any algorithm: `Digest.parse` then says which ones are possible.
_DIGEST = re.compile(r"[a-z0-9]+:[A-Za-z0-9]+")


class Source(NamedTuple):
    """The `source` of a section: its text, and the same as a transport and the start of a location."""

    text: str
    transport: str
    start: str

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Read a registry with an optional path, or a transport of containers-transports(5) with its argument.

        :raises ValueError: it is neither.
        """
        _expect_printable("source", text)
        match = _TRANSPORT.fullmatch(text)
        transport, rest = (match[1].lower(), match[2]) if match else ("docker", f"//{text}")
        if "@" in rest:  # This may be a password, so the message does not repeat it.
            raise ValueError("source: got an '@', expected a registry; log in with 'podman login' or 'skopeo login'")
        if transport in ("http", "https"):
            host = rest.strip("/") or "registry.example.com"
            raise ValueError(f"source {text[:160]!r}: expected a registry without scheme; write source={host[:160]!r}")
        if transport in _SERVED_BY_OBS:
            raise ValueError(
                f"source {text[:160]!r}: only builds in the Open Build Service can use this; write the registry that "
                "has the image, like source='registry.opensuse.org'"
            )
        if transport not in TRANSPORTS:
            transports = ", ".join(f"'{each}:'" for each in TRANSPORTS)
            raise ValueError(f"source {text[:160]!r}: expected a registry, or one of {transports} before a location")
        if transport == "docker":
            if not rest.startswith("//"):
                raise ValueError(f"source {text[:160]!r}: expected 'docker://' before the registry")
            rest = rest[2:]
        # The store of an engine needs no location: its images are found by their names alone.
        if not rest and transport not in _NAMED_TRANSPORTS:
            raise ValueError(f"source {text!r}: empty, expected a registry like 'docker.io', or a transport and a path")
        return cls(text, transport, rest)


class Origin(NamedTuple):
    """The location of an image in the syntax of containers-transports(5), and its name in the engine.

    `endpoint` is the name that kiwi passes to skopeo, and `file_name` the path of the archive that kiwi writes, below
    `/var/tmp/kiwi_containers`.
    """

    endpoint: str
    location: str
    reference: Reference
    file_name: str


def interpret(*, source: Source, path: str, name: str, tag: str) -> Origin:
    """Join the attributes of a section and a container. Missing attributes are empty.

    There are two extensions of kiwi's rules. A digest may be used like a tag, in `tag` or at the end of `name`, alone
    or after a tag. If the transport takes a path, the joined path is the location, `tag` selects one of several images
    at that path, and the name of the image is `localhost/<path>/<name>`.

    :raises ValueError: they are not an image name, or not one that can be fetched; the message names the attribute.
    """
    for attribute, value in (("path", path), ("name", name), ("tag", tag)):
        _expect_printable(attribute, value)
    transport, at = source.transport, source.start
    # kiwi joins name and tag to one text, so a tag may also be at the end of `name`.
    base, version, digest = _split_version(name, tag)
    # kiwi would write the archive of "../x" outside of its directory, and name that of "x/" after the path.
    if base.rpartition("/")[2] in ("", ".") or ".." in base.split("/"):
        raise ValueError(f"name {name[:160]!r}: expected the name of an image")
    suffix = ("" if version is None else f":{version}") + (f"@{digest}" if digest else "")
    if transport in _PATH_TRANSPORTS:
        # A file has no registry in its name, so the engine gets a name below `localhost`, as podman does for builds.
        joined = posixpath.normpath(f"{at}/{path}/{base}")
        # In these transports, a colon separates the path from the name of an image in it; it cannot be escaped.
        if ":" in joined:
            raise ValueError(
                f"source {source.text[:160]!r}: expected a path without ':', got {joined[:160]!r}; "
                "write the last part of the path as the container's 'name', and what follows a ':' as its 'tag'"
            )
        inner = posixpath.normpath(f"/{path}/{base}").lstrip("/")
        reference = Reference.parse(f"localhost/{inner}{suffix}")
        ref = f":{version}" if version and transport in _HOLD_TAGS else ""
        location = f"{transport}:{joined}{ref}"
    else:
        joined = posixpath.normpath(f"{at}/{path}/{base}" if at else f"{path}/{base}".lstrip("/"))
        reference = Reference.parse(f"{joined}{suffix}")
        location = f"docker://{reference}" if transport == "docker" else f"{transport}:{reference}"
    return Origin(
        # Like kiwi, normalize the whole text at once, so that a '..' in the path takes away a part of the source.
        endpoint=posixpath.normpath(f"{source.text}/{path}/{name}:{tag or 'latest'}"),
        location=location,
        reference=reference,
        file_name=posixpath.normpath(f"{name.lstrip('/')}_{tag or 'latest'}"),
    )


def _expect_printable(attribute: str, value: str) -> None:
    # Apart from control characters, this excludes those that change the direction of text on a terminal.
    if not value.isprintable():
        raise ValueError(f"{attribute} {value[:160]!r}: got non-printable characters")


def _split_version(name: str, tag: str) -> tuple[str, str | None, Digest | None]:
    """Return the name without tag and digest, the tag, and the digest, from either attribute."""
    rest, digest_of_name = _cut(name, "@")
    if digest_of_name is not None and ":" not in digest_of_name:
        # kiwi joins name="x@sha256" and tag="<hex>" to a digest.
        digest_of_name, tag = f"{digest_of_name}:{tag}", ""
    head, slash, last = rest.rpartition("/")
    last, tag_of_name = _cut(last, ":")
    tag_of_tag, digest_of_tag = (None, tag) if _DIGEST.fullmatch(tag) else _cut(tag, "@")
    digest = _agreed("digest", digest_of_name, digest_of_tag)
    version = _agreed("tag", tag_of_name, tag_of_tag or None)
    return head + slash + last, version, None if digest is None else Digest.parse(digest)


def _cut(text: str, mark: str) -> tuple[str, str | None]:
    before, separator, after = text.partition(mark)
    return before, after if separator else None


def _agreed(what: str, of_name: str | None, of_tag: str | None) -> str | None:
    if of_name is None or of_tag is None:
        return of_tag if of_name is None else of_name
    if of_name != of_tag:
        raise ValueError(f"name has the {what} {of_name[:160]!r} and tag has {of_tag[:160]!r}; expected one of them")
    return of_name
