"""Checks of `_service`: whether OBS builds get the containers, and whether the services run in the right place."""

import os
from collections.abc import Iterator, Sequence

from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity, from_problem
from osc_containers.errors import DescriptionError
from osc_containers.formats import cpio
from osc_containers.kiwi import image_type
from osc_containers.kiwi.description import Description
from osc_containers.obs import hints, selection, service_file
from osc_containers.obs.hints import Place
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import INJECT, PREFETCH, SERVICES
from osc_containers.obs.selection import Request
from osc_containers.obs.service_file import FILE_NAME, Entry, similar_service
from osc_containers.oci import platform

_LOCAL_MODES = ("manual", "localonly", "disabled")
"""Modes that never run on the server (osc: obs_scm/serviceinfo.py; the server: bs_service)."""
_MODES = (*_LOCAL_MODES, "", "trylocal", "serveronly", "buildtime")
"""All modes that OBS and osc know."""

_PREFETCH_LINE = f'<service name="{PREFETCH}" mode="manual"/>'
_INJECT_LINE = f'<service name="{INJECT}" mode="buildtime"/>'


def check(context: Context) -> Iterator[Finding]:
    """Check the entries of the prefetch and the inject service."""
    if not context.has_service_file:
        return
    if not context.is_set_up:
        yield from _set_up(context)
    typos = list(_typos(context))
    yield from typos
    # A misspelled service would be reported as missing, too.
    if context.is_set_up and not typos:
        yield from _missing(context)
    for entry in context.entries_of(PREFETCH):
        yield from _prefetch_mode(entry, context)
        yield from _parameters(entry, context)
    try:
        service_file.layout(context.entries_of(PREFETCH))
    except DescriptionError as error:
        yield from (from_problem(problem, "service") for problem in error.problems)
    yield from _not_prefetched(context)
    inject_entries = context.entries_of(INJECT)
    for entry in inject_entries:
        if entry.mode not in _MODES:
            yield _finding(Severity.ERROR, _unknown_mode(entry), _INJECT_LINE, entry)
        elif entry.mode != "buildtime":
            why = f"{INJECT} only works in the build root, but does not run there with mode {entry.mode!r}"
            yield _finding(Severity.ERROR, why, _INJECT_LINE, entry)
        if context.is_bundled:
            why = f"{INJECT} finds no archives: with inject=source, {PREFETCH} stores them in {cpio.FILE_NAME}"
            yield _finding(Severity.ERROR, why, "remove this service, or inject=source", entry)
        yield from _parameters(entry, context)
    if inject_entries and not context.is_bundled:
        yield from _ambiguous(inject_entries, context.package)


def _set_up(context: Context) -> Iterator[Finding]:
    """Say once that nothing is set up, instead of every consequence of that."""
    if hints.place_of(context.package.directory) is Place.PROJECT:  # where `init` is refused
        return
    for container in [each for description in context.descriptions for each in description.containers][:1]:
        why = "the package is not set up: OBS would not build it, or the image would not have its containers"
        yield Finding(
            severity=Severity.ERROR,
            check="setup",
            file=container.file,
            line=container.line,
            why=why,
            fix=hints.own(context.package.directory, "init"),
        )


def _missing(context: Context) -> Iterator[Finding]:
    if not context.descriptions:
        return
    if not context.entries_of(PREFETCH):
        command = hints.own(context.package.directory, "prefetch")
        why = f"no service downloads the containers; without one, only '{command}' does"
        yield _finding(Severity.WARNING, why, _PREFETCH_LINE)
    if not context.is_bundled and not context.entries_of(INJECT):
        why = "no service puts the containers into the image: kiwi would pull them in the build, without a network"
        yield _finding(Severity.ERROR, why, _INJECT_LINE)


def _typos(context: Context) -> Iterator[Finding]:
    """Find services whose names are nearly those of ours."""
    for entry in context.entries:
        best = similar_service(entry.name)
        if best and entry.name != best:
            why = f"there is no service {entry.name[:80]!r}, which is nearly the name of {best}"
            yield _finding(Severity.ERROR, why, f'<service name="{best}" mode="{SERVICES[best].mode}"/>', entry)


def _unknown_mode(entry: Entry) -> str:
    modes = ", ".join(filter(None, _MODES))
    return f"{entry.name}: got the mode {entry.mode[:40]!r}, which OBS does not have, expected one of {modes}"


def _prefetch_mode(entry: Entry, context: Context) -> Iterator[Finding]:
    if entry.mode not in _MODES:
        yield _finding(Severity.ERROR, _unknown_mode(entry), _PREFETCH_LINE, entry)
    elif entry.mode == "manual" and context.has_old_server:
        why = (
            f"some servers, such as OBS 2.9, do not know the mode 'manual', and would run {PREFETCH} without a network"
        )
        yield _finding(Severity.ERROR, why, _PREFETCH_LINE.replace("manual", "disabled"), entry)
    elif entry.mode == "buildtime":
        why = f"{PREFETCH} needs a network, and the build root has none"
        yield _finding(Severity.ERROR, why, _PREFETCH_LINE, entry)
    elif entry.mode not in _LOCAL_MODES:
        mode = f"with mode {entry.mode[:40]!r}" if entry.mode else "without a mode"
        why = f"{PREFETCH} {mode} runs on the OBS server, where services have no network: the package would be broken"
        yield _finding(Severity.ERROR, why, _PREFETCH_LINE, entry)


def _not_prefetched(context: Context) -> Iterator[Finding]:
    """Find images that OBS builds according to the description, but whose containers are not prefetched."""
    entries = context.prefetches()
    if not entries or not context.descriptions or context.is_bundled:
        return
    request = selection.of_entries(context.package, entries)
    # A prefetch may read several descriptions, but what is injected shows which of them are built.
    built_names = {name for entry in context.entries_of(INJECT) for name in entry.effective_values("description")}
    for description in context.descriptions:
        name = description.path.name
        architectures = request.architectures_of(description)
        # If the services do not read a description, nothing indicates that OBS builds it.
        if not architectures or (built_names and name not in built_names):
            continue
        for arch in _missing_architectures(description, architectures):
            why = f"{PREFETCH} downloads for {', '.join(architectures)} only: a build of {name} for {arch} would fail"
            fix = f'<param name="arch">{arch}</param>, or remove {arch} from OBS-ExclusiveArch'
            yield _finding(Severity.WARNING, why, fix, entries[0])
        incomplete = (names for arch in architectures for names in _incomplete_images(description, arch, request))
        for names in dict.fromkeys(incomplete):
            build = f"{name} {f'for profile {names[0][:80]!r}' if names else 'without a profile'}"
            why = f"{PREFETCH} downloads for other profiles only: a build of {build} would fail"
            fix = f'<param name="profile">{names[0][:80] if names else "…"}</param>, or remove all profile parameters'
            yield _finding(Severity.ERROR if names else Severity.WARNING, why, fix, entries[0])


def _missing_architectures(description: Description, architectures: Sequence[str]) -> Iterator[str]:
    """Yield the architectures of `OBS-ExclusiveArch` that have containers, but are not prefetched."""
    for arch in dict.fromkeys(map(platform.canonical, description.exclusive_archs or ())):
        # OBS has more architectures than kiwi, for other kinds of builds.
        if arch in platform.ARCHITECTURES and arch not in architectures and description.of_architecture(arch):
            yield arch


def _incomplete_images(description: Description, arch: str, request: Request) -> Iterator[tuple[str, ...]]:
    """Yield the profiles of each image that OBS builds for an architecture and that lacks a container."""
    try:
        used = request.used_profiles(description, arch)
    except DescriptionError:  # reported by the check of the layout
        return
    exclusive = map(platform.canonical, description.exclusive_archs or [arch])
    if used is not None and arch in exclusive:
        # Without OBS-Profiles, OBS builds one image, without a profile.
        for names in image_type.builds(description, arch) if description.obs_profiles is not None else [()]:
            if not all(container.is_in(used) for container in description.select(arch, names)):
                yield names


def _parameters(entry: Entry, context: Context) -> Iterator[Finding]:
    """Find values that the service will refuse."""
    for name in entry.effective_values("description"):
        if not os.path.isfile(context.package.directory / name):
            yield _finding(Severity.ERROR, f"{entry.name}: description {name[:160]!r}: no such file", "", entry)
    for problem in entry.problems():
        yield _finding(Severity.ERROR, problem, "", entry)


def _ambiguous(entries: Sequence[Entry], package: Package) -> Iterator[Finding]:
    """Find packages where the inject service cannot tell which description is built; every build runs all entries."""
    # An entry without a description reads all of them.
    names_by_entry = [entry.effective_values("description") for entry in entries]
    names = list(dict.fromkeys(name for each in names_by_entry for name in each)) if all(names_by_entry) else []
    try:
        descriptions = selection.read(package, names, [], []).descriptions
    except (DescriptionError, OSError):  # reported by the checks of the descriptions and of the parameters
        return
    candidates = [each for each in descriptions if each.containers]
    if len({each.content_key for each in candidates}) > 1:
        first, all_names = candidates[0].path.name, ", ".join(each.path.name for each in candidates)
        why = f"{all_names} have <containers>, and {INJECT} cannot tell which of them is built"
        fix = f'<param name="description">{first}</param>{" and no other" if names else ""}'
        yield _finding(Severity.ERROR, why, fix, entries[-1])


def _finding(severity: Severity, why: str, fix: str, entry: Entry | None = None) -> Finding:
    line = entry.line if entry else 0
    return Finding(severity=severity, check="service", file=FILE_NAME, line=line, why=why, fix=fix)
