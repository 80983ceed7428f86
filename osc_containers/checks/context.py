"""What the checks work on: a package with everything that could be read of it."""

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from osc_containers.formats import cpio
from osc_containers.inject import overlay
from osc_containers.kiwi import image_type
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.kiwi.image_type import ImageType, Packages
from osc_containers.lock import lockfile
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import engines, hints, service_file
from osc_containers.obs.engines import Choice
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import PREFETCH
from osc_containers.obs.selection import Request
from osc_containers.obs.service_file import Entry, similar_service
from osc_containers.oci import platform

_IMAGE_LIMIT = 1000
"""Images of a description for an architecture that are checked; each has its own profiles."""


class Image(NamedTuple):
    """An image that is built: the architecture and profiles of the build, and what the description puts into it."""

    arch: str
    profile_names: tuple[str, ...]
    containers: tuple[Container, ...]
    packages: tuple[Packages, ...]
    types: tuple[ImageType, ...]

    def __str__(self) -> str:
        return f"{self.arch}, profile {' and '.join(self.profile_names)}" if self.profile_names else self.arch


class Context(NamedTuple):
    """A package, its descriptions, its lock and the entries of `_service`; what cannot be read is left out.

    `has_service_file` is False if `_service` cannot be read. `has_old_server` says that the packager uses a server that
    does not know the mode `manual`.
    """

    package: Package
    request: Request
    lock: Lock | None
    entries: tuple[Entry, ...]
    has_service_file: bool = True
    has_old_server: bool = False

    @property
    def is_set_up(self) -> bool:
        """Whether anything was done to put the containers into the image; before that, only `init` is of use."""
        names = (lockfile.FILE_NAME, cpio.FILE_NAME)
        # A misspelled service or an unreadable file shows that the set-up was begun; other checks report what is wrong.
        has_service = any(similar_service(entry.name) for entry in self.entries)
        return has_service or not self.has_service_file or any(map(self.package.find, names))

    def entries_of(self, service: str) -> tuple[Entry, ...]:
        """Return the entries of a service."""
        return tuple(entry for entry in self.entries if entry.name == service)

    def prefetches(self) -> tuple[Entry, ...]:
        """Return the entries of the prefetch service, without the parameters that it would refuse."""
        # Each refused value is a finding of its own. The other checks go on as if it were not there.
        return tuple(
            entry._replace(
                parameters=tuple(
                    (name, value)
                    for name in ("description", "arch", "profile")
                    for value in entry.effective_values(name)
                    if self._is_valid(name, value)
                )
            )
            for entry in self.entries_of(PREFETCH)
        )

    def _is_valid(self, name: str, value: str) -> bool:
        if name == "description":
            # Unlike the method of `Path`, this is also false for a name that is too long.
            return os.path.isfile(self.package.directory / value)
        return name != "arch" or value in platform.ARCHITECTURES

    @property
    def prefetch_command(self) -> str:
        """The shell command that runs the prefetch."""
        return hints.prefetch(self.package.directory, self.entries)

    @property
    def is_bundled(self) -> bool:
        """Whether the containers go into a bundle, which obs-build unpacks itself."""
        return service_file.is_bundled(self.entries_of(PREFETCH))

    def store_patterns(self, description: Description) -> list[str]:
        """Return the patterns for containers of a description that go into a read-only store."""
        return service_file.store_patterns(self.entries, description.path.name)

    @property
    def stored_containers(self) -> frozenset[Container]:
        """The containers that go into a read-only store."""
        return frozenset(
            container
            for description in self.descriptions
            if (patterns := self.store_patterns(description))
            for container in description.containers
            if container.matching(patterns)
        )

    def engine_choices(self, description: Description) -> tuple[Choice, ...]:
        """Return the choices of `engine` for containers of a description."""
        return () if self.is_bundled else service_file.engine_choices(self.entries, description.path.name)

    @property
    def targets(self) -> Mapping[Container, tuple[str, ...]]:
        """The engines that get each container, none for an archive that is only fetched."""
        return {
            container: engines.targets(container, choices)
            for description in self.descriptions
            for choices in [self.engine_choices(description)]
            for container in description.containers
        }

    @property
    def descriptions(self) -> tuple[Description, ...]:
        """The descriptions that have containers."""
        return tuple(each for each in self.request.descriptions if each.containers)

    @property
    def overlay_names(self) -> frozenset[str]:
        """The names of kiwi's overlay directories: one for all images, and one for each profile."""
        names = {profile.name for description in self.descriptions for profile in description.profiles}
        names.update(
            name for description in self.descriptions for each in description.containers for name in each.profile_names
        )
        # Profiles are named by the description, and no name may lead out of the package.
        return frozenset([overlay.ROOT, *(name for name in names if "/" not in name and name not in ("", ".", ".."))])

    def images(self) -> Iterator[Image]:
        """Yield each image that is built and has containers.

        With a bundle there is none: its containers are in a file of their own, which does not describe the image.
        """
        if self.is_bundled:
            return
        # One description is built for several architectures, and for each of them with several sets of profiles.
        for description in self.descriptions:
            settings = image_type.read(description)
            for arch in self.request.architectures_of(description):
                all_containers = description.of_architecture(arch)
                for names in image_type.builds(description, arch)[:_IMAGE_LIMIT]:
                    used = description.used_profiles(arch, names)
                    containers = tuple(each for each in all_containers if each.is_in(used))
                    if containers:
                        yield Image(
                            arch=arch,
                            profile_names=names,
                            containers=containers,
                            packages=tuple(each for each in settings.packages if each.is_for(used)),
                            types=tuple(each for each in settings.types if each.is_for(used, arch)),
                        )
