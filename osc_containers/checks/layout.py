"""Where containers stand and what they are called: what obs-build and plain kiwi make of that."""

import os
from collections.abc import Collection, Iterator
from itertools import chain

from osc_containers.checks.context import Subject
from osc_containers.checks.finding import Finding, Severity, of_problem
from osc_containers.errors import DescriptionError
from osc_containers.formats.cpio import FILE_NAME
from osc_containers.formats.human import count
from osc_containers.inject import overlay
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.lock.lockfile import EMPTY
from osc_containers.obs import selection
from osc_containers.obs.package import Package
from osc_containers.obs.selection import Request, wanted
from osc_containers.oci.reference import Reference


def check(subject: Subject) -> Iterator[Finding]:
    """Check every description."""
    yield from _clashes(subject)
    if subject.is_bundled:
        yield from pulled(subject.package, subject.request)
    for found in subject.descriptions:
        if not subject.is_bundled:
            yield from _visible(found)
        yield from _nested(found)
        yield from _profiles(found, subject)
        yield from _names(found, subject)
        yield from _overlays(found, subject)


def _clashes(subject: Subject) -> Iterator[Finding]:
    """Find references that shall come from two places."""
    try:
        wanted(subject.request)
    except DescriptionError as error:
        yield from (of_problem(problem, "two-places") for problem in error.problems)


def _visible(found: Description) -> Iterator[Finding]:
    for container in found.visible:
        if ":" in container.endpoint.partition("/")[0]:
            asked = "a package called after it without its source, which has a colon, and nobody provides that"
        else:
            asked = f"a package 'container:{container.endpoint}', which nobody provides"
        why = f"obs-build sees this container and asks OBS for {asked}"
        yield _finding(container, "visible", why, "osc containers split", severity=Severity.ERROR)


def pulled(package: Package, told: Request) -> Iterator[Finding]:
    """Find `<containers>` that kiwi reads in the build, although the prefetch puts them into a bundle as it is told.

    Where one description of several does not, that may be the one which OBS builds.
    """
    bundled = {container.file for found in told.descriptions for container in found.containers}
    of_each = [list(_pulled_by(found, bundled)) for found in selection.read(package, [], [], []).descriptions]
    if all(of_each):
        yield from chain(*of_each)


def _pulled_by(found: Description, bundled: Collection[str]) -> Iterator[Finding]:
    why = f"kiwi reads these <containers>, too: what is in {FILE_NAME} already it tries to pull, without a network"
    if found.path.name in bundled:
        fix = "a file of their own that is not included, and its name as 'description' in _service"
        yield _finding(found.visible[0], "double-injected", why, fix, severity=Severity.ERROR)
    for include in found.includes:
        if include.name in bundled and not include.is_nested:
            fix = f"no include of {include.name}, and its name as 'description' in _service"
            yield Finding(
                severity=Severity.ERROR, check="double-injected", file=include.file, line=include.line, why=why, fix=fix
            )


def _nested(found: Description) -> Iterator[Finding]:
    for include in found.includes:
        having = [container for container in found.containers if container.file == include.name]
        if include.is_nested and having:
            lost = count(len(having), "container")
            why = f"kiwi ignores an include in an included file: without this project it loses {lost}"
            fix = f'<include from="this://./{include.name}"/> in {found.path.name}'
            yield Finding(
                severity=Severity.INFO, check="nested", file=include.file, line=include.line, why=why, fix=fix
            )


def _profiles(found: Description, subject: Subject) -> Iterator[Finding]:
    """Find profiles that are not declared, and those whose directory would be something else."""
    # Of a bundle the containers stand in a file of their own, and what is built is a description without them.
    built = selection.read(subject.package, [], [], []).descriptions if subject.is_bundled else ()
    declared = {profile.name for each in (found, *built) for profile in each.profiles}
    for container in found.containers:
        if container.profiles and not container.profile_names:
            why = f"profiles {container.profiles[:80]!r} names none, so that it adds this container to no image"
            yield _finding(container, "profile", why, '<containers profiles="…">')
        missing = [name for name in container.profile_names if name not in declared]
        if missing:
            names = ", ".join(repr(name[:80]) for name in missing)
            why = f"no profile {names[:2000]} is declared, so that it adds this container to no image"
            yield _finding(container, "profile", why, f'<profile name="{missing[0][:80]}" description="…"/>')
        yield from (of_problem(problem, "profile") for problem in overlay.check_profiles(container))


def _overlays(found: Description, subject: Subject) -> Iterator[Finding]:
    """Find what the packager has where the containers go."""
    for arch in subject.request.architectures_of(found):
        every = found.of_architecture(arch)
        fit = [container for container in every if not overlay.check_profiles(container)]
        for name in {name: None for container in fit for name in container.profile_names or (overlay.ROOT,)}:
            problem = overlay.check_directory(subject.package.directory / name)
            if problem:
                yield of_problem(problem, "overlay")
        placed = overlay.place(fit, overlay.assign_paths(every), arch, subject.lock or EMPTY)
        for name, items in overlay.group_by_directory(placed).items():
            for entry in overlay.list_files(items):
                if os.path.lexists(f"{subject.package.directory / name}{entry.path}"):
                    why = "the build puts a file of that name there, and fails if yours is another"
                    yield Finding(
                        severity=Severity.WARNING,
                        check="overlay",
                        file=f"{name}{entry.path}",
                        why=why,
                        fix="rename or remove it",
                    )


def _names(found: Description, subject: Subject) -> Iterator[Finding]:
    """Say where plain kiwi would fail, and this project does not."""
    for arch in subject.request.architectures_of(found):
        places = overlay.assign_paths(found.of_architecture(arch))
        for container, why in overlay.list_relocations(places):
            yield _finding(container, "plain-kiwi", f"{why}; here it is at {places[container]}")
    for container in found.containers:
        if _asked_by_kiwi(container) != container.reference:
            why = f"plain kiwi would ask for {container.endpoint!r} and fail; here it is {container.origin}"
            yield _finding(container, "plain-kiwi", why)


def _asked_by_kiwi(container: Container) -> Reference | None:
    try:
        return Reference.parse(container.endpoint)
    except ValueError:
        return None


def _finding(container: Container, check: str, why: str, fix: str = "", *, severity: Severity | None = None) -> Finding:
    severity = severity or (Severity.WARNING if fix else Severity.INFO)
    return Finding(severity=severity, check=check, file=container.file, line=container.line, why=why, fix=fix)
