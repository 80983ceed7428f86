"""What a run is about: the descriptions of a package, and the images that they request."""

from collections.abc import Sequence
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.kiwi.backend import STORE_BACKEND
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import service_file
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import PREFETCH
from osc_containers.obs.service_file import Entry
from osc_containers.oci import platform
from osc_containers.oci.reference import Reference


class Use(NamedTuple):
    """A container in a description that wants an image for an architecture: for which engine, and whether to load it.

    `where` is its place, as `file:line`. `is_stored` if it goes into a read-only store.
    """

    arch: str
    backend: str
    is_fetch_only: bool
    where: str
    is_stored: bool = False


class ImageRequest(NamedTuple):
    """A reference that the package requests for some architectures.

    `location` says where to get it (containers-transports(5)), `where` is the first place in the description, and
    `uses` has all of them.
    """

    reference: Reference
    location: str
    architectures: tuple[str, ...]
    where: str
    uses: tuple[Use, ...] = ()


class Selection(NamedTuple):
    """A description, limited to architectures (by their canonical names) and profiles.

    Without explicit architectures it is limited to that of this machine; without profiles it is not limited to any.
    `store` has the patterns of containers that go into a read-only store.
    """

    description: Description
    explicit_architectures: tuple[str, ...]
    profiles: tuple[str, ...]
    store: tuple[str, ...] = ()

    @property
    def architectures(self) -> tuple[str, ...]:
        """The architectures that it is limited to.

        :raises DescriptionError: there are no explicit ones, and kiwi does not know the architecture of this machine.
        """
        if self.explicit_architectures:
            return self.explicit_architectures
        this = platform.of_this_machine()
        try:
            platform.of_architecture(this)
        except ValueError as error:
            name = self.description.path.name
            raise DescriptionError(f"{name}: this machine has an {error}; specify one with 'arch'") from None
        return (this,)

    def containers(self, arch: str) -> tuple[Container, ...]:
        """Return the containers that it includes for one of its architectures.

        :raises DescriptionError: as `used_profiles`.
        """
        used = self.used_profiles(arch)
        containers = self.description.of_architecture(arch)
        return containers if used is None else tuple(each for each in containers if each.is_in(used))

    def used_profiles(self, arch: str) -> frozenset[str] | None:
        """Return the profiles that it is limited to on one of its architectures; None if it is not.

        A profile that kiwi refuses on this architecture counts on the others only.

        :raises DescriptionError: kiwi refuses a profile on each of the architectures, or as `architectures`.
        """
        if not self.profiles:
            return None
        used: set[str] = set()
        for name in self.profiles:
            try:
                used |= self.description.used_profiles(arch, (name,))
            except DescriptionError:
                if not any(name in self.description.usable_profiles(each) for each in self.architectures):
                    raise
        return frozenset(used)


class Request(NamedTuple):
    """Everything that a run is about; several selections may have the same description."""

    parts: tuple[Selection, ...]

    @property
    def descriptions(self) -> tuple[Description, ...]:
        """The descriptions without duplicates."""
        return tuple({part.description.path: part.description for part in self.parts}.values())

    def with_default_architectures(self, architectures: Sequence[str]) -> "Request":
        """Return the request with these architectures where it has no explicit ones."""
        parts = (
            part if part.explicit_architectures else part._replace(explicit_architectures=tuple(architectures))
            for part in self.parts
        )
        return Request(parts=tuple(parts))

    @property
    def with_explicit_arch(self) -> "Request":
        """The selections that have explicit architectures."""
        return Request(parts=tuple(part for part in self.parts if part.explicit_architectures))

    def architectures_of(self, description: Description) -> tuple[str, ...]:
        """Return the architectures for which a description is requested.

        :raises DescriptionError: as `Selection.architectures`.
        """
        parts = (part for part in self.parts if part.description.path == description.path)
        return tuple(dict.fromkeys(arch for part in parts for arch in part.architectures))

    def containers(self, description: Description, arch: str) -> tuple[Container, ...]:
        """Return the requested containers of a description: those of the selected profiles, or else all."""
        containers = [
            container
            for part in self.parts
            if part.description.path == description.path and arch in part.architectures
            for container in part.containers(arch)
        ]
        return tuple(dict.fromkeys(containers))

    def is_stored(self, description: Description, container: Container) -> bool:
        """Tell whether a container of a description goes into a read-only store, which only podman has."""
        patterns = {name for part in self.parts if part.description.path == description.path for name in part.store}
        return container.backend == STORE_BACKEND and bool(container.matching(patterns))

    def used_profiles(self, description: Description, arch: str) -> frozenset[str] | None:
        """Return the profiles whose containers are requested for `arch`; None means all containers.

        :raises DescriptionError: as `Selection.used_profiles`.
        """
        parts = [
            each for each in self.parts if each.description.path == description.path and arch in each.architectures
        ]
        used = [part.used_profiles(arch) for part in parts]
        limits = [each for each in used if each is not None]
        # If one part has no limit, all containers are requested.
        return frozenset().union(*limits) if limits and len(limits) == len(used) else None


def of_package(
    package: Package,
    names: Sequence[str] = (),
    architectures: Sequence[str] = (),
    profiles: Sequence[str] = (),
) -> Request:
    """Return the request of a package: what is passed here, and for the rest what `_service` has for the prefetch.

    :raises DescriptionError: as `read`, or the prefetch would refuse a parameter in `_service`.
    """
    entries = package.prefetches
    problems = [f"{service_file.FILE_NAME}:{entry.line}: {each}" for entry in entries for each in entry.problems()]
    if problems:
        raise DescriptionError(*problems)
    return of_entries(package, entries, names, architectures, profiles)


def of_entries(
    package: Package,
    entries: Sequence[Entry],
    names: Sequence[str] = (),
    architectures: Sequence[str] = (),
    profiles: Sequence[str] = (),
) -> Request:
    """Return what entries of `_service` request together; what is passed here replaces the parameter in each of them.

    A description in `names` belongs to the entries that read it, or to all entries if none of them does.
    """
    # A package without a prefetch service requests what an entry without parameters would.
    entries = entries or [Entry(name=PREFETCH, mode="")]
    limits = []
    for entry in entries:
        own = [name for name in names if entry.reads(name) or not any(each.reads(name) for each in entries)]
        # An entry that reads none of the given descriptions has no part in this run.
        if own or not names:
            limits.append(
                (
                    tuple(own or entry.effective_values("description")),
                    tuple(architectures or entry.effective_values("arch")),
                    tuple(profiles or entry.effective_values("profile")),
                )
            )
    requests = [read(package, *each) for each in dict.fromkeys(limits)]
    return Request(parts=tuple(part for request in requests for part in request.parts))


def read(
    package: Package,
    names: Sequence[str],
    architectures: Sequence[str],
    profiles: Sequence[str],
) -> Request:
    """Read the descriptions `names` of a package, or all of them.

    Without `architectures`, those count for which OBS builds the image, if the description has OBS-ExclusiveArch.

    :raises DescriptionError: there is no description, or one cannot be used; every problem is reported.
    """
    problems = []
    architectures = tuple(dict.fromkeys(map(platform.canonical, architectures)))
    for arch in architectures:
        try:
            platform.of_architecture(arch)
        except ValueError as error:
            problems.append(str(error))
    # The names may come from the _service of an untrusted package, and must not lead out of it.
    problems += [f"{name[:300]!r}: expected the name of a file in the package" for name in names if "/" in name]
    if problems:
        raise DescriptionError(*problems)
    descriptions = []
    for name in names or package.description_names:
        try:
            descriptions.append(_with_outer_profiles(package.description(name), package))
        except DescriptionError as error:
            problems += error.problems
    if problems:
        raise DescriptionError(*problems)
    return Request(
        parts=tuple(
            Selection(
                description=description,
                explicit_architectures=tuple(architectures or _build_architectures(description)),
                profiles=tuple(profiles),
                store=package.store_patterns(description.path.name),
            )
            for description in descriptions
        )
    )


def _with_outer_profiles(description: Description, package: Package) -> Description:
    """Return a description; if it only has containers, with the profiles of the descriptions that it is built with."""
    if not description.is_fragment:
        return description
    try:
        outer = [package.description(name) for name in package.description_names]
    except DescriptionError:  # reported where they are read for themselves
        return description
    return description._replace(outer_profiles=tuple(each.profiles for each in outer))


def default_architectures(request: Request, lock: Lock) -> tuple[str, ...]:
    """Return the architectures that stand in where none is explicit: those that the lock has for another reason.

    :raises DescriptionError: as `image_requests`.
    """
    # An image that is locked because an entry names its architecture says nothing about entries that name none.
    explicit = {
        (item.reference, arch) for item in image_requests(request.with_explicit_arch) for arch in item.architectures
    }
    return tuple(dict.fromkeys(arch for reference, arch, _ in lock.images() if (reference, arch) not in explicit))


def _build_architectures(description: Description) -> tuple[str, ...]:
    # OBS has more architectures than kiwi, for other kinds of builds.
    known = (arch for arch in description.exclusive_archs or () if arch in platform.ARCHITECTURES)
    return tuple(dict.fromkeys(map(platform.canonical, known)))


def refuse_nothing(requests: Sequence[ImageRequest], options: Sequence[str], architectures: Sequence[str]) -> None:
    """Refuse options that select no image: that nothing is wrong with none of them would be misleading.

    `architectures` are those among the options. Each of them must have an image.

    :raises DescriptionError: there is none.
    """
    missing = [arch for arch in architectures if not any(arch in each.architectures for each in requests)]
    if missing or (options and not requests):
        raise DescriptionError(f"no <containers> are for {', '.join(missing or options)}, so there is nothing to check")


def image_requests(request: Request) -> tuple[ImageRequest, ...]:
    """Return every requested image, each reference once, in the order of the descriptions.

    :raises DescriptionError: a reference has two different locations, or as `Request.architectures_of`.
    """
    containers: dict[Reference, Container] = {}
    uses: dict[Reference, dict[Use, None]] = {}
    problems = []
    for description in request.descriptions:
        for arch in request.architectures_of(description):
            for container in request.containers(description, arch):
                # A reference has one entry in the lock, so it cannot be two images.
                first = containers.setdefault(container.reference, container)
                if first.origin != container.origin:
                    problems.append(
                        f"{container.file}:{container.line}: {container.reference} comes from {container.origin}, but "
                        f"from {first.origin} at {first.file}:{first.line}; give one of them another name or tag"
                    )
                where = f"{container.file}:{container.line}"
                use = Use(
                    arch=arch,
                    backend=container.backend,
                    is_fetch_only=container.fetch_only,
                    where=where,
                    is_stored=request.is_stored(description, container),
                )
                uses.setdefault(container.reference, {})[use] = None
    if problems:
        raise DescriptionError(*dict.fromkeys(problems))
    return tuple(
        ImageRequest(
            reference=reference,
            location=container.origin,
            architectures=tuple(dict.fromkeys(use.arch for use in uses[reference])),
            where=f"{container.file}:{container.line}",
            uses=tuple(uses[reference]),
        )
        for reference, container in containers.items()
    )
