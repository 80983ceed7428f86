"""Checks that an image has the programs that load its containers, and that they can load them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from osc_containers.checks.context import Context, Image
from osc_containers.checks.finding import Finding, Severity
from osc_containers.kiwi.backend import ENGINES, engine_of
from osc_containers.kiwi.containers import Container

_PACKAGES = {
    **{engine.name: engine.packages for engine in ENGINES.values()},
    "coreutils": ("coreutils", "coreutils-single", "coreutils-systemd"),
}
"""The packages that contain a program, by the names that distributions give them."""

_REMOVED = ("delete", "uninstall")


def check(context: Context) -> Iterator[Finding]:
    """Check each image that is built; a program that several images lack is one finding."""
    lacking: dict[tuple[Container, str, bool], list[Image]] = defaultdict(list)
    zstd_containers: dict[Container, None] = {}
    targets = context.targets
    for image in context.images():
        for container, program in _needs(image.containers, targets):
            if not _has(image, program):
                lacking[container, program, _has_patterns(image)].append(image)
            yield from _removals(image, program)
        # A container for several images is reported once, so they are collected first.
        for container in image.containers:
            locked_image = context.lock and context.lock.image_for(container.reference, image.arch)
            uses_zstd = locked_image and any(each.media_type.endswith("zstd") for each in locked_image.image.layers)
            if uses_zstd and "docker" in targets[container]:
                zstd_containers[container] = None
    for (container, program, has_patterns), images in lacking.items():
        yield _finding(container, program, images, has_patterns=has_patterns)
    for container in zstd_containers:
        why = f"{container.reference} has layers compressed with zstd, which Docker supports since version 23.0"
        yield Finding(severity=Severity.INFO, check="package", file=container.file, line=container.line, why=why)


def _needs(
    containers: Sequence[Container], targets: Mapping[Container, Sequence[str]]
) -> Iterator[tuple[Container, str]]:
    """Yield each program that an image needs for its containers, with the first container that needs it."""
    first_users: dict[str, Container] = {}
    for container in containers:
        for engine in map(engine_of, targets[container]):
            for name in filter(None, (engine.name, engine.loaded_by)):
                first_users.setdefault(name, container)
            # Only the loader needs coreutils, and an engine that takes archives has none.
            if not engine.archives:
                first_users.setdefault("coreutils", container)
    yield from ((container, name) for name, container in sorted(first_users.items()) if name != "coreutils")
    if "coreutils" in first_users:
        yield first_users["coreutils"], "coreutils"


def _has(image: Image, program: str) -> bool:
    """Tell whether the description lists a package with the program."""
    installed = (section.names(image.arch) for section in image.packages if section.kind not in _REMOVED)
    return any(not names.isdisjoint(_PACKAGES[program]) for names in installed)


def _has_patterns(image: Image) -> bool:
    """Tell whether the image has patterns or products, which can install packages that are not listed."""
    return any(
        section.patterns(image.arch) or any(name.startswith("patterns-") for name in section.names(image.arch))
        for section in image.packages
    )


def _removals(image: Image, program: str) -> Iterator[Finding]:
    """Find sections that remove a package of the program again."""
    for section in image.packages:
        if section.kind in _REMOVED:
            for name in sorted(section.names(image.arch).intersection(_PACKAGES[program])):
                yield Finding(
                    severity=Severity.ERROR,
                    check="package",
                    file=section.file,
                    line=section.line,
                    why=f"this section removes the package {name!r}, which the containers of the image need",
                    fix=f'remove <package name="{name}"/> from this section',
                )


def _finding(container: Container, program: str, images: Sequence[Image], *, has_patterns: bool) -> Finding:
    where = "; ".join(map(str, images))
    image_profiles = dict.fromkeys(name for image in images for name in image.profile_names)
    # A <packages> for all profiles is too much, unless one of the images is built without a profile.
    names = container.profiles or (",".join(image_profiles) if all(image.profile_names for image in images) else "")
    attribute = f' profiles="{names}"' if names else ""
    if program == "coreutils":
        why = (
            "coreutils is not in the package list, but the loader of this container needs it; nearly every image has "
            f"it ({where})"
        )
        severity = Severity.INFO
    elif program in ENGINES and ENGINES[program].archives:
        why = f"{program} is not in the package list, and only that uses the archive of this container ({where})"
        severity = Severity.INFO
    else:
        why = f"{program} is not in the package list, but is needed to load this container ({where})"
        severity = Severity.WARNING if has_patterns else Severity.ERROR
        if has_patterns:
            why += "; a pattern may install it"
    return Finding(
        severity=severity,
        check="package",
        file=container.file,
        line=container.line,
        why=why,
        fix=f'<packages type="image"{attribute}><package name="{_PACKAGES[program][0]}"/></packages>',
    )
