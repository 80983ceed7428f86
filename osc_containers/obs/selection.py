"""What a run is about: the descriptions of a package, and the images that they ask for."""

from collections.abc import Sequence
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import service_file
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import PREFETCH
from osc_containers.obs.service_file import Entry
from osc_containers.oci import platform
from osc_containers.oci.reference import Reference


class ImageRequest(NamedTuple):
    """A reference, where to get it, and for which architectures; `where` is the place in the description."""

    reference: Reference
    location: str
    architectures: tuple[str, ...]
    where: str


class Selection(NamedTuple):
    """A description with the architectures that are given for it, and its profiles; without any it is for all.

    Where no architecture is given, it is this machine's.
    """

    description: Description
    explicit_architectures: tuple[str, ...]
    profiles: tuple[str, ...]

    @property
    def architectures(self) -> tuple[str, ...]:
        """The architectures that it is asked for.

        :raises DescriptionError: none is given, and kiwi does not know this machine.
        """
        if self.explicit_architectures:
            return self.explicit_architectures
        this = platform.of_this_machine()
        try:
            platform.of_architecture(this)
        except ValueError as error:
            name = self.description.path.name
            raise DescriptionError(f"{name}: this machine has an {error}; give one by 'arch'") from None
        return (this,)

    def covers_arch(self, arch: str) -> bool:
        """Tell whether it is asked for `arch`, under any name that this has.

        :raises DescriptionError: as `architectures`.
        """
        return platform.of_architecture(arch) in map(platform.of_architecture, self.architectures)


class Request(NamedTuple):
    """What is asked for; several parts may be about one description."""

    parts: tuple[Selection, ...]

    @property
    def descriptions(self) -> tuple[Description, ...]:
        """The descriptions, each once."""
        return tuple({part.description.path: part.description for part in self.parts}.values())

    def with_default_architectures(self, architectures: Sequence[str]) -> "Request":
        """Return it with these architectures where none is given, or as it is if they are none."""
        parts = (
            part if part.explicit_architectures else part._replace(explicit_architectures=tuple(architectures))
            for part in self.parts
        )
        return Request(parts=tuple(parts))

    @property
    def with_explicit_arch(self) -> "Request":
        """The parts for which architectures are given."""
        return Request(parts=tuple(part for part in self.parts if part.explicit_architectures))

    def architectures_of(self, found: Description) -> tuple[str, ...]:
        """Return the architectures that a description is asked for.

        :raises DescriptionError: as `Selection.architectures`.
        """
        parts = (part for part in self.parts if part.description.path == found.path)
        return tuple(dict.fromkeys(arch for part in parts for arch in part.architectures))

    def containers(self, found: Description, arch: str) -> tuple[Container, ...]:
        """Return the containers of a description: of the profiles asked for, else of all."""
        parts = [part for part in self.parts if part.description.path == found.path and arch in part.architectures]
        selected = [
            found.select(arch, part.profiles) if part.profiles else found.of_architecture(arch) for part in parts
        ]
        return tuple(dict.fromkeys(container for containers in selected for container in containers))

    def used_profiles(self, found: Description, arch: str) -> frozenset[str] | None:
        """Return the profiles whose containers are asked for on `arch`, or None where it is those of all.

        :raises DescriptionError: one is not declared for `arch`, or as `Selection.architectures`.
        """
        parts = [part for part in self.parts if part.description.path == found.path and part.covers_arch(arch)]
        if not parts or not all(part.profiles for part in parts):
            return None
        return frozenset().union(*(found.used_profiles(arch, part.profiles) for part in parts))


def of_package(
    package: Package,
    names: Sequence[str] = (),
    architectures: Sequence[str] = (),
    profiles: Sequence[str] = (),
) -> Request:
    """Read what a package asks for: what is given here, and for what is not, what `_service` tells the prefetch.

    :raises DescriptionError: as `read`; or the prefetch would refuse what `_service` tells it.
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
    """Read what some entries of `_service` ask for together; what is given here is said for each of them.

    A description that is given by name is what those entries are about that read it; all are, where none does.
    """
    entries = entries or [Entry(name=PREFETCH, mode="")]
    told = []
    for entry in entries:
        about = [name for name in names if entry.reads(name) or not any(each.reads(name) for each in entries)]
        if about or not names:
            asked = (
                tuple(about or entry.effective_values("description")),
                tuple(architectures or entry.effective_values("arch")),
                tuple(profiles or entry.effective_values("profile")),
            )
            told.append(asked)
    requests = [read(package, *each) for each in dict.fromkeys(told)]
    return Request(parts=tuple(part for found in requests for part in found.parts))


def read(
    package: Package,
    names: Sequence[str],
    architectures: Sequence[str],
    profiles: Sequence[str],
) -> Request:
    """Read the descriptions `names` of a package, or all it has.

    Without architectures it is those that OBS builds an image for, where a description says which.

    :raises DescriptionError: there is none, or one cannot be used; every problem is named.
    """
    problems = []
    for arch in architectures:
        try:
            platform.of_architecture(arch)
        except ValueError as error:
            problems.append(str(error))
    # A name may come from the _service of a package that somebody else wrote.
    problems += [f"{name[:300]!r}: expected the name of a file in the package" for name in names if "/" in name]
    if problems:
        raise DescriptionError(*problems)
    descriptions = []
    for name in names or package.description_names:
        try:
            descriptions.append(package.description(name))
        except DescriptionError as error:
            problems += error.problems
    if problems:
        raise DescriptionError(*problems)
    return Request(
        parts=tuple(
            Selection(
                description=found,
                explicit_architectures=tuple(architectures or _built_for(found)),
                profiles=tuple(profiles),
            )
            for found in descriptions
        )
    )


def default_architectures(asked: Request, lock: Lock) -> tuple[str, ...]:
    """Return the architectures to go by where none is given: those that were locked without being given; maybe none.

    :raises DescriptionError: as `wanted`.
    """
    told = {(item.reference, arch) for item in wanted(asked.with_explicit_arch) for arch in item.architectures}
    return tuple(dict.fromkeys(arch for reference, arch, _ in lock.images() if (reference, arch) not in told))


def _built_for(found: Description) -> tuple[str, ...]:
    return tuple(arch for arch in found.exclusive_archs or () if arch in platform.ARCHITECTURES)


def wanted(request: Request) -> tuple[ImageRequest, ...]:
    """Return every image that is asked for, each reference once, in the order of the descriptions.

    :raises DescriptionError: one reference shall come from two places, or as `Request.architectures_of`.
    """
    first: dict[Reference, Container] = {}
    architectures: dict[Reference, list[str]] = {}
    problems = []
    for found in request.descriptions:
        for arch in request.architectures_of(found):
            for container in request.containers(found, arch):
                known = first.setdefault(container.reference, container)
                if known.origin != container.origin:
                    problems.append(
                        f"{container.file}:{container.line}: {container.reference} comes from {container.origin}, but "
                        f"from {known.origin} at {known.file}:{known.line}; give one of them another name or tag"
                    )
                architectures.setdefault(container.reference, []).append(arch)
    if problems:
        raise DescriptionError(*dict.fromkeys(problems))
    return tuple(
        ImageRequest(
            reference=reference,
            location=container.origin,
            architectures=tuple(dict.fromkeys(architectures[reference])),
            where=f"{container.file}:{container.line}",
        )
        for reference, container in first.items()
    )
