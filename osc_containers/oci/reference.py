"""Image references as container engines write them.

Grammar: distribution/reference (`reference.go`), plus the completion of short names with Docker Hub, on which podman,
skopeo and docker agree.
"""

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

from osc_containers.oci.digest import Digest

DOCKER_HUB = "docker.io"
_DOCKER_HUB_ALIAS = "index.docker.io"
_NAME_LENGTH = 255
"""Characters of registry and repository together; podman and skopeo have the same limit."""
_HOST_LENGTH, _LABEL_LENGTH = 253, 63
"""Limits of DNS (RFC 1035, section 2.3.4)."""
_PORT_LIMIT = 65535

# Labels of letters, digits and inner hyphens, separated by dots; then perhaps a port.
_HOST = re.compile(
    r"((?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*"
    r")(?::([0-9]{1,5}))?"
)
# Lower-case letters and digits, separated by one dot, one or two underscores, or any number of hyphens.
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Reference(NamedTuple):
    """A complete image reference: registry, repository, and a tag or a digest or both."""

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Parse an image reference and add what is missing: `docker.io`, `library/`, `:latest`.

        :raises ValueError: the text is not an image reference. The message names the invalid part.
        """
        name, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        colon = name.find(":", name.rfind("/") + 1)  # a colon before the last slash separates a port
        tag = None if colon < 0 else name[colon + 1 :]
        name = name if colon < 0 else name[:colon]
        if tag is not None and not _TAG.fullmatch(tag):
            raise ValueError(
                f"tag {tag[:160]!r}: expected at most 128 letters, digits and '_.-', starting with a letter, "
                "digit or '_'"
            )
        registry, repository = _split_registry(name)
        _check_registry(registry)
        for component in repository.split("/"):
            if not _COMPONENT.fullmatch(component):
                raise ValueError(
                    f"repository {repository[:300]!r}: got component {component[:300]!r}, expected lower-case letters "
                    "and digits, separated by '.', '_', '__' or '-'"
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
        """The registry and the repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def engine_name(self) -> str:
        """The name under which container engines list the image: with the tag if there is one, else with the digest."""
        return f"{self.name}:{self.tag}" if self.tag else str(self)

    def matches(self, pattern: str) -> bool:
        """Tell whether it matches a pattern, as in a shell; if it has both tag and digest, also without the digest."""
        return any(fnmatchcase(name, pattern) for name in (str(self), self.engine_name))

    @property
    def with_lower_case_registry(self) -> "Reference":
        """The reference with the registry as DNS compares it. Engines distinguish the two, so it is not for them."""
        registry = self.registry.lower()
        return self._replace(registry=DOCKER_HUB if registry == _DOCKER_HUB_ALIAS else registry)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    # Engines take the first component for a host if it cannot be a repository on Docker Hub, or is `localhost`.
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    registry, repository = (first, rest) if is_host else (DOCKER_HUB, name)
    if registry == _DOCKER_HUB_ALIAS:
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _check_registry(registry: str) -> None:
    if registry.startswith("["):
        raise ValueError(
            f"registry {registry[:160]!r}: podman and skopeo do not support IPv6 addresses; use a host name"
        )
    match = _HOST.fullmatch(registry)
    if not match or len(match[1]) > _HOST_LENGTH:
        raise ValueError(f"registry {registry[:160]!r}: expected a host name, optionally with a port")
    host, port = match.groups()
    if port and not 1 <= int(port) <= _PORT_LIMIT:
        raise ValueError(f"registry {registry[:160]!r}: got port {port}, expected a number from 1 to {_PORT_LIMIT}")
    # One message is enough, so only the longest label is checked.
    label = max(host.split("."), key=len)
    if len(label) > _LABEL_LENGTH:
        raise ValueError(
            f"registry {registry[:160]!r}: got {len(label)} characters between dots, expected at most {_LABEL_LENGTH}"
        )
