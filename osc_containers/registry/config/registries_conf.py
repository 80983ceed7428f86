"""registries.conf: mirrors, other locations, and registries that the administrator blocks.

Sources: containers-registries.conf(5), version 2; containers-registries.conf.d(5); for the vendor's files below
/usr/share, containers-config(5). Aliases of short names and lists of registries to search are ignored: every reference
has its registry, or is Docker Hub's, as in skopeo's `docker://`, by which kiwi pulls.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import RegistryError
from osc_containers.formats.strict_json import Fields
from osc_containers.oci.reference import Reference

AUTH_FILES = "containers-auth.json"
"""The credential helper that stands for the credential files."""
_FILE_LIMIT = 4 << 20
_USES = ("all", "digest-only", "tag-only")


class PullEndpoint(NamedTuple):
    """A repository at a registry; `insecure` allows plain HTTP and unverified certificates there."""

    host: str
    repository: str
    insecure: bool = False
    is_mirror: bool = False


class Mirror(NamedTuple):
    """A mirror, and the pulls it may be used for (one of `_USES`)."""

    location: str
    insecure: bool
    use: str


class RegistryConfig(NamedTuple):
    """A `[[registry]]` table: the settings for images whose names begin with `prefix`."""

    prefix: str
    location: str | None
    insecure: bool
    blocked: bool
    mirrors: tuple[Mirror, ...]
    where: str

    def match(self, reference: Reference) -> int:
        """Return the number of characters of the name that the prefix covers; 0 if it does not match.

        Upper and lower case are the same in the name of a host, so `blocked` must not distinguish them.
        """
        reference = reference.with_lower_case_registry
        name = str(reference)
        # A wildcard matches subdomains only, and never a part of the path.
        if self.prefix.startswith("*."):
            host = reference.registry.partition(":")[0]
            return len(host) if host.endswith(self.prefix[1:]) else 0
        rest = name[len(self.prefix) :]
        return len(self.prefix) if name.startswith(self.prefix) and (not rest or rest[0] in "/:@") else 0

    def endpoints(self, reference: Reference, *, by_digest: bool) -> Iterator[PullEndpoint]:
        """Yield the endpoints for an image, the mirrors first.

        :raises ValueError: a location and the rest of the name are not a valid name.
        """
        rest = reference.with_lower_case_registry.name[self.match(reference) :]
        for mirror in self.mirrors:
            # A tag is resolved first, and the rest is requested by digest. Mirrors of both kinds may serve that rest.
            if {"digest-only": by_digest, "tag-only": reference.digest is None}.get(mirror.use, True):
                yield _endpoint(mirror.location + rest, mirror.insecure, is_mirror=True)
        yield _endpoint(reference.name if self.location is None else self.location + rest, self.insecure)


def _endpoint(name: str, insecure: bool, is_mirror: bool = False) -> PullEndpoint:
    moved = Reference.parse(name)
    # A host without a dot and a port would be taken for a repository of Docker Hub.
    if moved.name != name:
        raise ValueError(f"{name!r} is not the full name of a repository, expected one like {moved.name!r}")
    return PullEndpoint(host=moved.registry, repository=moved.repository, insecure=insecure, is_mirror=is_mirror)


class Configuration(NamedTuple):
    """The contents of one or more files."""

    registries: tuple[RegistryConfig, ...] = ()
    helpers: tuple[str, ...] = ()

    def endpoints(self, reference: Reference, *, by_digest: bool) -> tuple[PullEndpoint, ...]:
        """Return the endpoints for an image, in the order in which they are to be tried.

        `by_digest` says whether the image is requested by digest, and therefore the same at every endpoint.

        :raises RegistryError: the image is blocked, or a location does not fit.
        """
        matching = (registry for registry in self.registries if registry.match(reference))
        registry = max(matching, key=lambda registry: len(registry.prefix), default=None)
        if registry is None:
            return (PullEndpoint(host=reference.registry, repository=reference.repository),)
        if registry.blocked:
            raise RegistryError(f"{reference}: registry {registry.prefix!r} is blocked by {registry.where}")
        try:
            return tuple(registry.endpoints(reference, by_digest=by_digest))
        except ValueError as error:
            raise RegistryError(f"{registry.where}: cannot be applied to {reference}: {error}") from None

    def updated(self, later: "Configuration") -> "Configuration":
        """Return the configuration after a later file, which replaces lists, and tables of the same prefix.

        Of several tables of the same prefix in one file, the first counts.
        """
        registries = {registry.prefix: registry for registry in (*self.registries, *reversed(later.registries))}
        return Configuration(registries=tuple(registries.values()), helpers=later.helpers or self.helpers)


def parse(text: bytes, where: str) -> Configuration:
    """Parse one file.

    :raises ValueError: the file is malformed, too large, or of version 1.
    """
    # The beginning may be valid without the rest, which may block a registry.
    if len(text) > _FILE_LIMIT:
        raise ValueError(f"{where}: got more than {_FILE_LIMIT} bytes, expected at most that many")
    # Imported here because many machines have no such file.
    import tomllib

    try:
        document = Fields.of(tomllib.loads(text.decode()), where)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: not valid TOML; {str(error)[:200]}") from None
    if "registries" in document:
        raise ValueError(
            f"{where}: got version 1 of registries.conf, expected version 2; convert it (containers-registries.conf(5))"
        )
    return Configuration(
        registries=tuple(_registry(item) for item in document.members("registry")),
        helpers=document.lines("credential-helpers"),
    )


def _registry(item: Fields) -> RegistryConfig:
    location = item.line("location", "").rstrip("/")
    prefix = item.line("prefix", "").rstrip("/") or location
    if not prefix:
        raise ValueError(f"{item.where}: got neither prefix nor location")
    # As podman: such a prefix would match nothing, and `blocked` would have no effect.
    if prefix.startswith("*.") and any(character in prefix for character in "/:@"):
        expectation = f"only a domain after '*.', as in {re.split('[/:@]', prefix)[0][:80]!r}"
        raise ValueError(f"{item.path('prefix')}: got {prefix[:80]!r}, expected {expectation}")
    # The older key, which applies to all mirrors of the table.
    digest_only = _flag(item, "mirror-by-digest-only")
    host, slash, path = prefix.partition("/")
    return RegistryConfig(
        prefix=f"{host.lower()}{slash}{path}",
        location=location or None,
        insecure=_flag(item, "insecure"),
        blocked=_flag(item, "blocked"),
        mirrors=tuple(_mirror(mirror, digest_only=digest_only) for mirror in item.members("mirror")),
        where=item.where.partition(": ")[0],
    )


def _mirror(item: Fields, *, digest_only: bool) -> Mirror:
    use = item.line("pull-from-mirror", "") or "all"
    if use not in _USES:
        raise ValueError(f"{item.path('pull-from-mirror')}: got {use[:40]!r}, expected one of {', '.join(_USES)}")
    location = item.line("location").rstrip("/")
    return Mirror(location=location, insecure=_flag(item, "insecure"), use="digest-only" if digest_only else use)


def _flag(item: Fields, key: str) -> bool:
    value = item.values.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"{item.path(key)}: expected true or false")
    return value


def files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files to read; later ones take precedence."""
    # For podman, XDG_CONFIG_HOME does not move this directory.
    home = Path(environ.get("HOME") or "/", ".config/containers")
    levels: tuple[Path, ...] = (Path("/usr/share/containers"), Path("/etc/containers"), home)
    override = environ.get("CONTAINERS_REGISTRIES_CONF")
    existing = [level for level in levels if (level / "registries.conf").is_file()]
    # Only one main file counts, the user's before the administrator's before the vendor's; drop-ins add to it.
    main = [Path(override)] if override else [level / "registries.conf" for level in existing[-1:]]
    if not override and existing[-1:] == [home]:
        # The file of a user replaces the system's, with its drop-ins.
        levels = (home,)
    drop_ins = [path for level in levels for path in sorted((level / "registries.conf.d").glob("*.conf"))]
    return (*main, *drop_ins)


def load(environ: Mapping[str, str] = os.environ) -> Configuration:
    """Read all files.

    :raises RegistryError: a file is malformed or too large, or cannot be read.
    """
    configuration = Configuration()
    for path in files(environ):
        try:
            with path.open("rb") as file:
                # One byte more than is allowed, so that the parser refuses the file.
                configuration = configuration.updated(parse(file.read(_FILE_LIMIT + 1), str(path)))
        except ValueError as error:
            raise RegistryError(str(error)) from None
        except OSError as error:
            raise RegistryError(f"{path}: {error.strerror}") from None
    return configuration
