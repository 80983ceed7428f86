"""What a run is about: the descriptions of a package, and the images that they ask for."""

from collections.abc import Sequence
from typing import NamedTuple

from osc_containers import description, platforms
from osc_containers.description import Description
from osc_containers.errors import DescriptionError
from osc_containers.package import Package
from osc_containers.pins import Wanted
from osc_containers.reference import Reference
from osc_containers.sections import Container


class Request(NamedTuple):
    """Descriptions, and what narrows them down; empty `architectures` and `profiles` leave it to the descriptions."""

    descriptions: tuple[Description, ...]
    architectures: tuple[str, ...]
    profiles: tuple[str, ...]

    def architectures_of(self, found: Description) -> tuple[str, ...]:
        """Return the architectures to look at: those asked for, else what OBS builds the image for, else this one.

        :raises DescriptionError: kiwi does not know this one.
        """
        known = tuple(arch for arch in found.exclusive_archs or () if arch in platforms.ARCHITECTURES)
        if self.architectures or known:
            return self.architectures or known
        this = platforms.of_this_machine()
        try:
            platforms.of_architecture(this)
        except ValueError as error:
            raise DescriptionError(f"{found.path.name}: this machine has an {error}; give one by 'arch'") from None
        return (this,)

    def containers(self, found: Description, arch: str) -> tuple[Container, ...]:
        """Return the containers of a description: of the profiles asked for, else of all."""
        return found.select(arch, self.profiles) if self.profiles else found.of_architecture(arch)


def read(package: Package, names: Sequence[str], architectures: Sequence[str], profiles: Sequence[str]) -> Request:
    """Read the descriptions `names` of a package, or all it has.

    :raises DescriptionError: there is none, or one cannot be used; every problem is named.
    """
    problems = []
    for arch in architectures:
        try:
            platforms.of_architecture(arch)
        except ValueError as error:
            problems.append(str(error))
    # A name may come from the _service of a package that somebody else wrote.
    problems += [f"{name[:300]!r}: expected the name of a file in the package" for name in names if "/" in name]
    if problems:
        raise DescriptionError(*problems)
    paths = [package.directory / name for name in names] or list(description.find(package.directory))
    descriptions = []
    for path in paths:
        try:
            descriptions.append(description.read(path))
        except DescriptionError as error:
            problems += error.problems
    if problems:
        raise DescriptionError(*problems)
    return Request(descriptions=tuple(descriptions), architectures=tuple(architectures), profiles=tuple(profiles))


def wanted(request: Request) -> tuple[Wanted, ...]:
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
        Wanted(
            reference=reference,
            origin=container.origin,
            architectures=tuple(dict.fromkeys(architectures[reference])),
            where=f"{container.file}:{container.line}",
        )
        for reference, container in first.items()
    )
