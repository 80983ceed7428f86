"""Where an image really is: mirrors, other locations, and what the administrator forbids.

Spec: containers-registries.conf(5), version 2, and containers-registries.conf.d(5); the search order of files also has
the vendor's below /usr/share (containers-config(5)). Aliases of short names and registries to search have no say: what
is named has its registry, or is Docker Hub's, as for skopeo's `docker://`, by which kiwi pulls.
"""

import os
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


class Place(NamedTuple):
    """A repository at a registry, and whether plain HTTP and unknown certificates are allowed there."""

    host: str
    repository: str
    insecure: bool = False
    is_mirror: bool = False


class Mirror(NamedTuple):
    """Another location for what a table is about, and for which pulls it may be used."""

    location: str
    insecure: bool
    use: str


class Table(NamedTuple):
    """A `[[registry]]` table: what holds for images whose names begin with `prefix`."""

    prefix: str
    location: str | None
    insecure: bool
    blocked: bool
    mirrors: tuple[Mirror, ...]
    where: str

    def match(self, reference: Reference) -> int:
        """Return how many characters of the name the prefix covers; 0 where it does not fit."""
        name = str(reference)
        if self.prefix.startswith("*."):
            host = reference.registry.partition(":")[0]
            return len(host) if host.endswith(self.prefix[1:]) else 0
        rest = name[len(self.prefix) :]
        return len(self.prefix) if name.startswith(self.prefix) and (not rest or rest[0] in "/:@") else 0

    def places(self, reference: Reference, *, by_digest: bool) -> Iterator[Place]:
        """Yield where to look for the image, the mirrors first.

        :raises ValueError: a location and the rest of the name give no name.
        """
        rest = reference.name[self.match(reference) :]
        for mirror in self.mirrors:
            if {"digest-only": by_digest, "tag-only": reference.digest is None}.get(mirror.use, True):
                yield _place(mirror.location + rest, mirror.insecure, is_mirror=True)
        yield _place(reference.name if self.location is None else self.location + rest, self.insecure)


def _place(name: str, insecure: bool, is_mirror: bool = False) -> Place:
    moved = Reference.parse(name)
    if moved.name != name:  # a host without dot and port would become a repository of Docker Hub
        raise ValueError(f"{name!r} is not the whole name of a repository, which is {moved.name!r}")
    return Place(host=moved.registry, repository=moved.repository, insecure=insecure, is_mirror=is_mirror)


class Configuration(NamedTuple):
    """What one or more files say."""

    tables: tuple[Table, ...] = ()
    helpers: tuple[str, ...] = ()

    def places(self, reference: Reference, *, by_digest: bool) -> tuple[Place, ...]:
        """Return where to look for an image, in this order.

        `by_digest` says whether it is asked for by digest, which makes it the same everywhere.

        :raises RegistryError: it is blocked, or a location does not fit.
        """
        fitting = (table for table in self.tables if table.match(reference))
        table = max(fitting, key=lambda table: len(table.prefix), default=None)
        if table is None:
            return (Place(host=reference.registry, repository=reference.repository),)
        if table.blocked:
            raise RegistryError(f"{reference}: registry {table.prefix!r} is blocked by {table.where}")
        try:
            return tuple(table.places(reference, by_digest=by_digest))
        except ValueError as error:
            raise RegistryError(f"{table.where}: {reference} cannot be moved: {error}") from None

    def updated(self, later: "Configuration") -> "Configuration":
        """Return this with what a later file says: it replaces lists, and tables of the same prefix.

        Of those of the same prefix in one file, the first counts.
        """
        tables = {table.prefix: table for table in (*self.tables, *reversed(later.tables))}
        return Configuration(tables=tuple(tables.values()), helpers=later.helpers or self.helpers)


def parse(text: bytes, where: str) -> Configuration:
    """Read one file.

    :raises ValueError: it is malformed, or of version 1.
    """
    import tomllib  # many machines have no such file

    try:
        document = Fields.of(tomllib.loads(text.decode()), where)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: not valid TOML; {str(error)[:200]}") from None
    if "registries" in document:
        raise ValueError(
            f"{where}: version 1 of registries.conf; write it as version 2 (containers-registries.conf(5))"
        )
    return Configuration(
        tables=tuple(_table(item) for item in document.members("registry")),
        helpers=document.lines("credential-helpers"),
    )


def _table(item: Fields) -> Table:
    location = item.line("location", "").rstrip("/")
    prefix = item.line("prefix", "").rstrip("/") or location
    if not prefix:
        raise ValueError(f"{item.where}: got neither prefix nor location")
    digest_only = _flag(item, "mirror-by-digest-only")
    return Table(
        prefix=prefix,
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
    """Return the files to read, each with more to say than the one before."""
    home = Path(environ.get("HOME") or "/", ".config/containers")  # which XDG_CONFIG_HOME does not move for podman
    levels: tuple[Path, ...] = (Path("/usr/share/containers"), Path("/etc/containers"), home)
    override = environ.get("CONTAINERS_REGISTRIES_CONF")
    there = [level for level in levels if (level / "registries.conf").is_file()]
    first = [Path(override)] if override else [level / "registries.conf" for level in there[-1:]]
    if not override and there[-1:] == [home]:
        levels = (home,)  # a user who has a file of their own has all of it
    drop_ins = [path for level in levels for path in sorted((level / "registries.conf.d").glob("*.conf"))]
    return (*first, *drop_ins)


def load(environ: Mapping[str, str] = os.environ) -> Configuration:
    """Read all files.

    :raises RegistryError: one of them is malformed or cannot be read.
    """
    configuration = Configuration()
    for path in files(environ):
        try:
            with path.open("rb") as file:
                configuration = configuration.updated(parse(file.read(_FILE_LIMIT), str(path)))
        except ValueError as error:
            raise RegistryError(str(error)) from None
        except OSError as error:
            raise RegistryError(f"{path}: {error.strerror}") from None
    return configuration
