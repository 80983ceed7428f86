"""Image names as container engines write them.

Grammar: distribution/reference (`reference.go`), and the rules for Docker Hub's short names that podman, skopeo and
docker share.
"""

import re
from typing import NamedTuple

from osc_containers.oci.digest import Digest

DOCKER_HUB = "docker.io"
_DOCKER_HUB_ALIAS = "index.docker.io"
_NAME_LENGTH = 255
"""Characters of registry and repository together, as podman and skopeo count them."""
_HOST_LENGTH, _LABEL_LENGTH = 253, 63
"""What DNS allows (RFC 1035, 2.3.4)."""
_MOST_PORT = 65535

_HOST = re.compile(
    r"((?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*"
    r")(?::([0-9]{1,5}))?"
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Reference(NamedTuple):
    """A complete image name: with registry, and with a tag, a digest or both."""

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read an image name, and complete it: `docker.io`, `library/`, `:latest`.

        :raises ValueError: the text is not an image name; it says which part is wrong.
        """
        name, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        slash = name.rfind("/")
        colon = name.find(":", slash + 1)
        tag = None if colon < 0 else name[colon + 1 :]
        name = name if colon < 0 else name[:colon]
        if tag is not None and not _TAG.fullmatch(tag):
            raise ValueError(f"tag {tag[:160]!r}: expected at most 128 letters, digits and '_.-', not first '.' or '-'")
        registry, repository = _split_registry(name)
        _check_registry(registry)
        for component in repository.split("/"):
            if not _COMPONENT.fullmatch(component):
                raise ValueError(
                    f"repository {repository[:300]!r}: got the component {component[:300]!r}, expected lower-case "
                    "letters and digits, with single '.', '_', '__' or '-' between them"
                )
        length = len(registry) + 1 + len(repository)
        if length > _NAME_LENGTH:
            raise ValueError(
                f"repository {repository[:80]!r}…: got {length} characters with its registry, expected at most "
                f"{_NAME_LENGTH}"
            )
        if tag is None and digest is None:
            tag = "latest"
        return cls(registry, repository, tag, digest)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def tagged(self) -> str:
        """The name that an engine shows for the image: with the tag where there is one, else with the digest."""
        return f"{self.name}:{self.tag}" if self.tag else str(self)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    registry, repository = (first, rest) if is_host else (DOCKER_HUB, name)
    if registry == _DOCKER_HUB_ALIAS:
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _check_registry(registry: str) -> None:
    if registry.startswith("["):
        raise ValueError(f"registry {registry[:160]!r}: podman and skopeo take no IPv6 address; give it a host name")
    match = _HOST.fullmatch(registry)
    if not match or len(match[1]) > _HOST_LENGTH:
        raise ValueError(f"registry {registry[:160]!r}: expected a host name and perhaps a port")
    host, port = match.groups()
    if port and not 1 <= int(port) <= _MOST_PORT:
        raise ValueError(f"registry {registry[:160]!r}: got the port {port}, expected one from 1 to {_MOST_PORT}")
    label = max(host.split("."), key=len)
    if len(label) > _LABEL_LENGTH:
        raise ValueError(
            f"registry {registry[:160]!r}: got {len(label)} characters without a dot, expected at most {_LABEL_LENGTH}"
        )
