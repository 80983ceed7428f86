"""Whether an image has the programs that load its containers, and whether they can."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from osc_containers.checks.context import Image, Subject
from osc_containers.checks.finding import Finding, Severity
from osc_containers.kiwi.backend import BACKENDS
from osc_containers.kiwi.containers import Container

_PACKAGES = {
    **{backend.name: backend.packages for backend in BACKENDS.values()},
    "coreutils": ("coreutils", "coreutils-single", "coreutils-systemd"),
}
"""Packages that have a program, under the names that distributions give them."""

_REMOVED = ("delete", "uninstall")


def check(subject: Subject) -> Iterator[Finding]:
    """Check each image that is made; what several lack is said once."""
    lacking: dict[tuple[Container, str, bool], list[Image]] = defaultdict(list)
    for image in subject.images():
        for container, program in _needs(image.containers):
            if not _has(image, program):
                lacking[container, program, _has_patterns(image)].append(image)
            yield from _removals(image, program)
    for (container, program, has_patterns), images in lacking.items():
        yield _finding(container, program, images, has_patterns=has_patterns)
    for container in dict.fromkeys(_for_new_docker(subject)):
        why = f"{container.reference} has layers packed with zstd, which Docker can load from version 23.0 on"
        yield Finding(severity=Severity.INFO, check="package", file=container.file, line=container.line, why=why)


def _for_new_docker(subject: Subject) -> Iterator[Container]:
    if subject.lock is None:
        return
    for image in subject.images():
        for container in image.containers:
            locked = subject.lock.image_for(container.reference, image.arch)
            is_packed = locked and any(layer.media_type.endswith("zstd") for layer in locked.image.layers)
            if is_packed and container.backend == "docker" and not container.fetch_only:
                yield container


def _needs(containers: Sequence[Container]) -> Iterator[tuple[Container, str]]:
    """Yield each program that is needed, with the first container that needs it."""
    loaded = [container for container in containers if not container.fetch_only]
    firsts = {container.backend: container for container in reversed(loaded)}
    yield from ((container, backend) for backend, container in sorted(firsts.items()))
    if loaded:
        yield loaded[0], "coreutils"


def _has(image: Image, program: str) -> bool:
    """Tell whether a package of the program is named."""
    installed = (section.names(image.arch) for section in image.packages if section.kind not in _REMOVED)
    return any(not names.isdisjoint(_PACKAGES[program]) for names in installed)


def _has_patterns(image: Image) -> bool:
    """Tell whether there is something that brings packages that are not named."""
    return any(
        section.patterns(image.arch) or any(name.startswith("patterns-") for name in section.names(image.arch))
        for section in image.packages
    )


def _removals(image: Image, program: str) -> Iterator[Finding]:
    """Find sections that take a package of the program away again."""
    for section in image.packages:
        if section.kind in _REMOVED:
            for name in sorted(section.names(image.arch).intersection(_PACKAGES[program])):
                yield Finding(
                    severity=Severity.ERROR,
                    check="package",
                    file=section.file,
                    line=section.line,
                    why=f"the package {name!r} is removed from the image here, but its containers need it",
                    fix=f'<package name="{name}"/> must not be in this section',
                )


def _finding(container: Container, program: str, images: Sequence[Image], *, has_patterns: bool) -> Finding:
    where = "; ".join(map(str, images))
    lacking = dict.fromkeys(name for image in images for name in image.asked)
    wanted = container.profiles or (",".join(lacking) if all(image.asked for image in images) else "")
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
