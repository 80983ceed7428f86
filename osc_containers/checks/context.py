"""What is checked."""

from collections.abc import Iterator
from typing import NamedTuple

from osc_containers.kiwi import image_type, profiles
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.kiwi.image_type import ImageType, Packages
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import service_file
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import PREFETCH
from osc_containers.obs.selection import Request
from osc_containers.obs.service_file import Entry
from osc_containers.oci import platform


class Image(NamedTuple):
    """An image that is made: for which profiles is `asked`, and what of the description is in it."""

    arch: str
    asked: tuple[str, ...]
    containers: tuple[Container, ...]
    packages: tuple[Packages, ...]
    types: tuple[ImageType, ...]

    def __str__(self) -> str:
        return f"{self.arch}, profile {' and '.join(self.asked)}" if self.asked else self.arch


class Subject(NamedTuple):
    """A package with what could be read of it; `entries` are those of `_service`."""

    package: Package
    request: Request
    lock: Lock | None
    entries: tuple[Entry, ...]

    def entries_of(self, service: str) -> tuple[Entry, ...]:
        """Return the entries of one service."""
        return tuple(entry for entry in self.entries if entry.name == service)

    def prefetches(self) -> tuple[Entry, ...]:
        """Return what the entries of the prefetch ask for, without the values that it refuses."""
        return tuple(
            entry._replace(
                parameters=tuple(
                    (name, value)
                    for name in ("description", "arch", "profile")
                    for value in entry.given(name)
                    if self._is_valid(name, value)
                )
            )
            for entry in self.entries_of(PREFETCH)
        )

    def _is_valid(self, name: str, value: str) -> bool:
        if name == "description":
            return (self.package.directory / value).is_file()
        return name != "arch" or value in platform.ARCHITECTURES

    @property
    def prefetch(self) -> str:
        """The command that prefetches."""
        is_manual = any(entry.mode == "manual" for entry in self.entries_of(PREFETCH))
        return "osc service manualrun" if is_manual else "osc containers prefetch"

    @property
    def is_bundled(self) -> bool:
        """Whether the containers go into an archive that obs-build unpacks by itself."""
        return service_file.is_bundled(self.entries_of(PREFETCH))

    @property
    def descriptions(self) -> tuple[Description, ...]:
        """The descriptions that have containers."""
        return tuple(found for found in self.request.descriptions if found.containers)

    def images(self) -> Iterator[Image]:
        """Yield each image that is made and has containers.

        None where the description of the containers is not that of the image.
        """
        if self.is_bundled:
            return
        for found in self.descriptions:
            described = image_type.read(found)
            for arch in self.request.architectures_of(found):
                for names in image_type.builds(found, arch):
                    containers = found.select(arch, names)
                    if containers:
                        used = profiles.used(found.profiles, arch, names)
                        yield Image(
                            arch=arch,
                            asked=names,
                            containers=containers,
                            packages=tuple(each for each in described.packages if each.is_for(used)),
                            types=tuple(each for each in described.types if each.is_for(used, arch)),
                        )
