"""Whether an image has the programs that load its containers."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from osc_containers import appliance, profiles
from osc_containers.appliance import Packages
from osc_containers.checks.subject import Subject, named
from osc_containers.description import Description
from osc_containers.findings import Finding, Severity
from osc_containers.sections import Container

_PACKAGES = {
    "podman": ("podman",),
    "docker": ("docker", "docker-stable", "docker-ce", "docker-ee", "docker.io", "moby-engine"),
    "container-snap": ("container-snap",),
    "coreutils": ("coreutils", "coreutils-single", "coreutils-systemd"),
}
"""Packages that have a program, under the names that distributions give them."""

_REMOVED = ("delete", "uninstall")


def check(subject: Subject) -> Iterator[Finding]:
    """Check each image that is made; what all of them lack is said once."""
    missing: dict[tuple[Container, str, bool], list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    for found, arch, names, containers in subject.images():
        seen = _Image(found, arch, names)
        for container, program in _needs(containers):
            if not seen.has(program):
                missing[container, program, seen.has_patterns].append((arch, names))
            yield from seen.removals(program)
    for (container, program, has_patterns), images in missing.items():
        yield _finding(container, program, images, has_patterns=has_patterns)


def _needs(containers: Sequence[Container]) -> Iterator[tuple[Container, str]]:
    """Yield each program that is needed, with the first container that needs it."""
    loaded = [container for container in containers if not container.fetch_only]
    firsts = {container.backend: container for container in reversed(loaded)}
    yield from ((container, backend) for backend, container in sorted(firsts.items()))
    if loaded:
        yield loaded[0], "coreutils"


class _Image:
    """The packages of one image, in the sections that it uses."""

    def __init__(self, found: Description, arch: str, names: Sequence[str]) -> None:
        used = profiles.used(found.profiles, arch, names)
        self._arch = arch
        self._sections = [each for each in appliance.read(found).packages if appliance.is_used(each.profiles, used)]

    def _names(self, sections: Sequence[Packages]) -> set[str]:
        return {name for section in sections for name in section.names(self._arch)}

    def has(self, program: str) -> bool:
        """Tell whether a package of the program is named."""
        installed = self._names([section for section in self._sections if section.kind not in _REMOVED])
        return not installed.isdisjoint(_PACKAGES[program])

    @property
    def has_patterns(self) -> bool:
        """Whether there is something that brings packages that are not named."""
        names = self._names(self._sections)
        return any(section.patterns(self._arch) for section in self._sections) or any(
            name.startswith("patterns-") for name in names
        )

    def removals(self, program: str) -> Iterator[Finding]:
        """Find sections that take a package of the program away again."""
        for section in self._sections:
            if section.kind in _REMOVED:
                for name in sorted(section.names(self._arch).intersection(_PACKAGES[program])):
                    yield Finding(
                        severity=Severity.ERROR,
                        check="package",
                        file=section.file,
                        line=section.line,
                        why=f"the package {name!r} is removed from the image here, but its containers need it",
                        fix=f'<package name="{name}"/> must not be in this section',
                    )


def _finding(
    container: Container, program: str, images: Sequence[tuple[str, tuple[str, ...]]], *, has_patterns: bool
) -> Finding:
    where = "; ".join(named(arch, names) for arch, names in images)
    lacking = dict.fromkeys(name for _, names in images for name in names)
    wanted = container.profiles or (",".join(lacking) if all(names for _, names in images) else "")
    only = f' profiles="{wanted}"' if wanted else ""
    fix = f'<packages type="image"{only}><package name="{_PACKAGES[program][0]}"/></packages>'
    if program == "coreutils":
        why = f"no package 'coreutils' is named for the loader of this container; nearly every image has it ({where})"
        severity = Severity.INFO
    else:
        why = f"no package of {program} is named, which shall load this container ({where})"
        severity = Severity.WARNING if has_patterns else Severity.ERROR
        if has_patterns:
            why += "; whether a pattern brings it cannot be seen"
    return Finding(severity=severity, check="package", file=container.file, line=container.line, why=why, fix=fix)
