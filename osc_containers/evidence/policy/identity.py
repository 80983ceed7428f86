"""The names of images in policies and signatures: their grammar, scopes, and the `signedIdentity` rules.

Grammar: docker/reference of containers/image, which podman and skopeo share. It differs from `oci.reference` in that a
name may have neither a tag nor a digest, and it must not be completed: a signature for `R/app` is not one for
`R/app:latest`. Rules: containers-policy.json(5), "signedIdentity".
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import DOCKER_HUB, Reference

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_NAME = rf"(?:{_DOMAIN}/)?{_PATH}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
# Compiling these takes as long as reading a whole policy, and most policies name no image.
_REFERENCE = rf"({_NAME})(?::([0-9A-Za-z_][0-9A-Za-z_.-]{{0,127}}))?(?:@({_DIGEST}))?"
_REMAPPED = rf"{_DOMAIN}(?:/{_PATH})?"
_IDENTIFIER = "[a-f0-9]{64}"
_NAME_LENGTH = 255
_LENGTH = 1024
"""More characters than any valid name with its tag and digest has; the expressions are not tried on longer ones."""

RULES: Mapping[str, tuple[str, ...]] = {
    "matchExact": (),
    "matchRepoDigestOrExact": (),
    "matchRepository": (),
    "exactReference": ("dockerReference",),
    "exactRepository": ("dockerRepository",),
    "remapIdentity": ("prefix", "signedPrefix"),
}
"""The types of `signedIdentity`, and the fields that each of them has."""


class Identity(NamedTuple):
    """A normalised name, and as far as it has them, its tag and its digest."""

    name: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """Parse a name; `busybox` becomes `docker.io/library/busybox`.

        :raises ValueError: it is not the name of an image.
        """
        expected = "expected the name of an image"
        # 64 hexadecimal digits could also be the ID of an image, so the grammar excludes them as a name.
        if len(text) > _LENGTH or re.fullmatch(_IDENTIFIER, text):
            raise ValueError(f"got {text[:80]!r}, {expected}")
        first, slash, rest = text.partition("/")
        # Any other first part is a namespace of Docker Hub.
        is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
        domain, remainder = (first, rest) if is_host else (DOCKER_HUB, text)
        if domain == "index.docker.io":
            domain = DOCKER_HUB
        if domain == DOCKER_HUB and "/" not in remainder:
            remainder = f"library/{remainder}"
        match = re.fullmatch(_REFERENCE, f"{domain}/{remainder}")
        if match is None or len(match[1]) > _NAME_LENGTH:
            raise ValueError(f"got {text[:80]!r}, {expected}")
        if match[3]:
            Digest.parse(match[3])
        return cls(name=match[1], tag=match[2] or "", digest=match[3] or "")

    @classmethod
    def of(cls, reference: Reference) -> "Identity":
        """Return the identity of a reference. Of a tag and a digest, podman uses the digest alone."""
        if reference.digest:
            return cls(name=reference.name, digest=str(reference.digest))
        return cls(name=reference.name, tag=reference.tag or "")

    @property
    def is_bare(self) -> bool:
        """Whether it has neither a tag nor a digest."""
        return not self.tag and not self.digest

    def scopes(self) -> Iterator[str]:
        """Yield the scopes that it belongs to, the narrowest first."""
        yield str(self)
        name = self.name
        yield name
        while "/" in name:
            name = name.rpartition("/")[0]
            yield name
        # A wildcard covers the domains below it, whatever the port.
        host = name.partition(":")[0]
        while "." in host:
            host = host.partition(".")[2]
            yield f"*.{host}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}@{self.digest}" if self.digest else f"{self.name}{tag}"


class IdentityRule(NamedTuple):
    """A `signedIdentity`: its type, and the values of the fields that `RULES` lists for it."""

    type: str = "matchRepoDigestOrExact"
    values: tuple[str, ...] = ()

    def check(self) -> None:
        """Check the values.

        :raises ValueError: one of them is not what the type needs. The message begins with the field.
        """
        for field, value in zip(RULES[self.type], self.values, strict=True):
            if self.type == "remapIdentity":
                if len(value) > _LENGTH or not re.fullmatch(_REMAPPED, value):
                    raise ValueError(
                        f"{field}: got {value[:80]!r}, expected a registry or the full name of a repository"
                    )
                continue
            try:
                identity = Identity.parse(value)
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from None
            if self.type == "exactReference" and identity.is_bare:
                raise ValueError(f"{field}: got {value[:80]!r}, expected a tag or a digest in it")

    def accepts(self, image: Identity, signed: str) -> bool:
        """Return whether an image may have a signature for the name `signed`."""
        try:
            signature = Identity.parse(signed)
            if self.type == "exactRepository":
                return signature.name == Identity.parse(self.values[0]).name
            if self.type == "exactReference":
                return not signature.is_bare and signature == Identity.parse(self.values[0])
            if self.type == "matchRepository":
                return signature.name == image.name
            if self.type == "matchExact":
                return not signature.is_bare and signature == image
            if self.type == "remapIdentity":
                image = self._remapped(image)
        except ValueError:
            return False
        if signature.is_bare:
            return False
        # The digest of a signature is compared with the manifest elsewhere.
        return signature == image if image.tag else signature.name == image.name

    def _remapped(self, image: Identity) -> Identity:
        prefix, signed_prefix = self.values
        # A prefix ends where a component ends: `r.test/app` is no prefix of `r.test/application`.
        if image.name != prefix and not image.name.startswith(f"{prefix}/"):
            return image
        text = signed_prefix + str(image)[len(prefix) :]
        remapped = Identity.parse(text)
        # Parsing has completed the name, for example by a registry, so it is not the one that the policy says.
        if str(remapped) != text:
            raise ValueError(f"got {text[:80]!r}, expected a full name")
        return remapped
