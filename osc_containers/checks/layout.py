"""Checks of where `<containers>` are and what they are named, for obs-build, plain kiwi and the overlay directories."""

import os
from collections.abc import Collection, Iterator
from itertools import chain

from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity, from_problem
from osc_containers.errors import DescriptionError
from osc_containers.formats.cpio import FILE_NAME
from osc_containers.formats.human import count
from osc_containers.inject import inventory, overlay
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.kiwi.description_files import maker_of
from osc_containers.lock.lockfile import EMPTY
from osc_containers.obs import hints, selection
from osc_containers.obs.package import Package
from osc_containers.obs.selection import Request, image_requests
from osc_containers.oci import platform
from osc_containers.oci.reference import Reference
from osc_containers.sources import local


def check(context: Context) -> Iterator[Finding]:
    """Check every description that has containers."""
    try:
        image_requests(context.request)
    except DescriptionError as error:
        yield from (from_problem(problem, "two-places") for problem in error.problems)
    if context.is_bundled:
        yield from find_double_injected(context.package, context.request)
    for description in context.descriptions:
        if not context.is_bundled:
            yield from _visible(description, context)
        yield from _nested(description)
        yield from _profiles(description, context)
        yield from _synonyms(description)
        yield from _names(description, context)
        yield from _local(description, context)
        yield from _overlays(description, context)


def _visible(description: Description, context: Context) -> Iterator[Finding]:
    """Find containers that obs-build would turn into build dependencies."""
    if maker := maker_of(description.path.name):
        # One finding is enough: all containers in the file have the same remedy.
        for container in description.seen_by_obs_build[:1]:
            why = f"OBS would require a package for each of these containers, and {maker!r} in _service makes this file"
            fix = f"move <containers> into an included file where {maker!r} takes this file from"
            yield _finding(container, "visible", why, fix, severity=Severity.ERROR)
        return
    if not context.is_set_up:
        return
    command = hints.own(description.path.parent, "split")
    for container in description.seen_by_obs_build:
        # obs-build drops a source with a colon, which is that of a port or a transport, from the name of the package.
        if ":" in container.endpoint.partition("/")[0]:
            dependency = "a package named after this container without its source, because the source has a colon"
        else:
            dependency = f"a package 'container:{container.endpoint}'"
        why = f"OBS would require {dependency}, and report the build as unresolvable"
        yield _finding(container, "visible", why, command, severity=Severity.ERROR)


def find_double_injected(package: Package, request: Request) -> Iterator[Finding]:
    """Find `<containers>` that kiwi reads in the build, although the prefetch already puts them into a bundle.

    If the package has several descriptions and one of them is clean, OBS may build that one; then nothing is reported.
    """
    bundled_files = {container.file for each in request.descriptions for container in each.containers}
    descriptions = selection.read(package, [], [], []).descriptions
    findings = [list(_double_injected_by(each, bundled_files)) for each in descriptions]
    if all(findings):
        yield from chain(*findings)


def _double_injected_by(description: Description, bundled_files: Collection[str]) -> Iterator[Finding]:
    check, why = (
        "double-injected",
        f"kiwi would pull these containers without a network; they are already in {FILE_NAME}",
    )
    if description.path.name in bundled_files:
        fix = "move <containers> to a separate file that is not included, and name it as 'description' in _service"
        yield _finding(description.seen_by_obs_build[0], check, why, fix, severity=Severity.ERROR)
    for include in description.includes:
        if include.name in bundled_files and not include.is_nested:
            fix = f"remove the include of {include.name}, and name it as 'description' in _service"
            severity = Severity.ERROR
            yield Finding(severity=severity, check=check, file=include.file, line=include.line, why=why, fix=fix)


def _nested(description: Description) -> Iterator[Finding]:
    for include in description.includes:
        containers = [each for each in description.containers if each.file == include.name]
        if include.is_nested and containers:
            loss = count(len(containers), "container")
            why = f"plain kiwi ignores an include in an included file, and would lose {loss}"
            fix = f'<include from="this://./{include.name}"/> in {description.path.name}'
            severity = Severity.INFO
            yield Finding(severity=severity, check="nested", file=include.file, line=include.line, why=why, fix=fix)


def _profiles(description: Description, context: Context) -> Iterator[Finding]:
    """Find profiles that are not declared, and profiles that cannot have an overlay directory."""
    # The containers of a bundle are in a separate file; the profiles are declared in the description that is built.
    built = selection.read(context.package, [], [], []).descriptions if context.is_bundled else ()
    declared = {profile.name for each in (description, *built) for profile in each.profiles}
    for container in description.containers:
        if container.profiles and not container.profile_names:
            why = f"profiles {container.profiles[:80]!r} contains no name, so this container is in no image"
            yield _finding(container, "profile", why, '<containers profiles="…">')
        missing = [name for name in container.profile_names if name not in declared]
        if missing:
            names = ", ".join(repr(name[:80]) for name in missing)
            why = f"these profiles are not declared, and add this container to no image: {names[:2000]}"
            yield _finding(container, "profile", why, f'<profile name="{missing[0][:80]}" description="…"/>')
        yield from (from_problem(problem, "profile") for problem in overlay.check_profiles(container))


def _synonyms(description: Description) -> Iterator[Finding]:
    """Find `arch` attributes with names that no machine has: kiwi compares them with the output of `uname -m`."""
    for profile in description.profiles:
        if name := _unknown_to_machines(profile.arch):
            why = f"profile {profile.name[:80]!r} is for no machine, because uname -m never prints {name}"
            fix = f'<profile name="{profile.name[:80]}" arch="{platform.canonical(name)}">'
            yield Finding(severity=Severity.WARNING, check="arch", file=description.path.name, why=why, fix=fix)
    for container in description.containers:
        if name := _unknown_to_machines(container.section_arch) or _unknown_to_machines(container.container_arch):
            why = f"this container is in no image, because uname -m never prints {name}"
            yield _finding(container, "arch", why, f'arch="{platform.canonical(name)}"')


def _unknown_to_machines(attribute: str | None) -> str:
    """Return the first name of an `arch` attribute if all of them are synonyms, else an empty string."""
    names = attribute.split(",") if attribute else []
    return names[0] if names and all(platform.canonical(name) != name for name in names) else ""


def _overlays(description: Description, context: Context) -> Iterator[Finding]:
    """Find files of the packager at paths where inject writes files."""
    # The files in the overlay depend on the lock. Without one, only the directories themselves are checked.
    for arch in context.request.architectures_of(description):
        containers = description.of_architecture(arch)
        usable = [container for container in containers if not overlay.check_profiles(container)]
        for name in {name: None for container in usable for name in container.profile_names or (overlay.ROOT,)}:
            problem = overlay.check_directory(context.package.directory / name)
            if problem:
                yield from_problem(problem, "overlay")
        placements = overlay.place(usable, overlay.assign_paths(containers), arch, context.lock or EMPTY)
        for name, members in overlay.group_by_directory(placements).items():
            for file in (*overlay.list_files(members), *inventory.list_documents(members)):
                if os.path.lexists(f"{context.package.directory / name}{file.path}"):
                    yield Finding(
                        severity=Severity.WARNING,
                        check="overlay",
                        file=f"{name}{file.path}",
                        why="the build creates a file of the same name, and fails if yours is different",
                        fix="rename or remove it",
                    )


def _names(description: Description, context: Context) -> Iterator[Finding]:
    """Find containers that work with this project, but would not with plain kiwi."""
    for arch in context.request.architectures_of(description):
        paths = overlay.assign_paths(description.of_architecture(arch))
        for container, reason in overlay.list_relocations(paths):
            yield _finding(container, "plain-kiwi", f"{reason}; this project writes it to {paths[container]}")
    for container in description.containers:
        try:
            reference = Reference.parse(container.endpoint)
        except ValueError:
            reference = None
        # skopeo refuses a digest after a tag.
        if reference != container.reference or (reference.tag and reference.digest):
            why = (
                f"plain kiwi would fail to pull {container.endpoint!r}; this project takes the image from "
                f"{container.origin}"
            )
            yield _finding(container, "plain-kiwi", why)


def _local(description: Description, context: Context) -> Iterator[Finding]:
    """Find containers that come from the packager's machine, but not from the package."""
    for container in description.containers:
        if local.is_local(context.package.directory, container.origin):
            why = (
                f"{container.reference} comes from this machine, not from the package or a registry: it may be "
                "private, and others cannot update it; prefetch needs an option to read it"
            )
            fix = hints.own(context.package.directory, f"prefetch {local.OPTION}")
            yield _finding(container, "local-source", why, fix)


def _finding(container: Container, check: str, why: str, fix: str = "", *, severity: Severity | None = None) -> Finding:
    severity = severity or (Severity.WARNING if fix else Severity.INFO)
    return Finding(severity=severity, check=check, file=container.file, line=container.line, why=why, fix=fix)
