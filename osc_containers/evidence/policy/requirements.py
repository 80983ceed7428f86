"""What a signature policy says: requirements by transport and scope (containers-policy.json(5))."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from osc_containers.evidence.policy.identity import IdentityRule

ACCEPT, REJECT, GPG, SIGSTORE, BASE_LAYER = (
    *("insecureAcceptAnything", "reject", "signedBy", "sigstoreSigned", "signedBaseLayer"),
)
"""The types of requirements."""


class Keys(NamedTuple):
    """Where the keys of a requirement are: in files, or in the policy itself."""

    paths: tuple[str, ...] = ()
    data: tuple[bytes, ...] = ()


class Requirement(NamedTuple):
    """What a policy demands of an image; every requirement of a scope must be met.

    `unsupported` names what this program cannot check. No image meets such a requirement.
    """

    type: str
    keys: Keys = Keys()
    identity: IdentityRule = IdentityRule()
    unsupported: str = ""
    where: str = ""

    @property
    def needs_signature(self) -> bool:
        """Whether signatures decide if it is met."""
        return self.type in (GPG, SIGSTORE)


class Policy(NamedTuple):
    """The requirements by transport and scope; `directory` is where relative paths of keys begin."""

    default: tuple[Requirement, ...]
    transports: Mapping[str, Mapping[str, tuple[Requirement, ...]]]
    where: str = ""
    directory: Path = Path("/")

    def requirements(self, transport: str, scopes: Iterable[str]) -> tuple[str, tuple[Requirement, ...]]:
        """Return the scope that applies to an image, for messages, and its requirements.

        `scopes` are those that the image belongs to, the narrowest first.
        """
        configured = self.transports.get(transport, {})
        # The empty scope is the default of a transport.
        for scope in (*scopes, ""):
            if scope in configured:
                return f"{transport} {scope}" if scope else f"{transport} default", configured[scope]
        return "default", self.default

    @property
    def accepts_anything(self) -> bool:
        """Whether no image is refused, and no signature needed."""
        return all(requirement.type == ACCEPT for requirement in self.all_requirements())

    def all_requirements(self) -> Iterator[Requirement]:
        """Yield every requirement of every scope."""
        yield from self.default
        for scopes in self.transports.values():
            for requirements in scopes.values():
                yield from requirements
