"""`_service`: whether the containers get into the image when OBS builds it, and when services run."""

from collections.abc import Iterator, Sequence

from osc_containers.checks.context import Subject
from osc_containers.checks.finding import Finding, Severity
from osc_containers.errors import DescriptionError
from osc_containers.formats import cpio
from osc_containers.kiwi import image_type
from osc_containers.kiwi.description import Description
from osc_containers.obs import selection
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import INJECT, PREFETCH
from osc_containers.obs.selection import Request
from osc_containers.obs.service_file import FILE_NAME, Entry
from osc_containers.oci import platform

_LOCAL = ("manual", "localonly", "disabled")
"""Modes that never run on the server (osc_scm/serviceinfo.py and bs_service)."""

_WHEN = {"": "without mode", "trylocal": "mode 'trylocal'", "serveronly": "mode 'serveronly'"}


def check(subject: Subject) -> Iterator[Finding]:
    """Check the entries of our two services."""
    yield from _missing(subject)
    for entry in subject.entries_of(PREFETCH):
        yield from _prefetch(entry)
        yield from _parameters(entry, subject)
    yield from _not_prefetched(subject)
    injects = subject.entries_of(INJECT)
    for entry in injects:
        if entry.mode != "buildtime":
            why = f"{INJECT} does its work in the build root only, but with mode {entry.mode!r} it does not run there"
            yield _finding(Severity.ERROR, why, _line(INJECT, "buildtime"), entry)
        if subject.is_bundled:
            why = f"{INJECT} finds no archives: {PREFETCH} puts them into {cpio.FILE_NAME}, as 'inject' says"
            yield _finding(Severity.ERROR, why, "without this service, or without inject=source", entry)
        yield from _parameters(entry, subject)
    if injects and not subject.is_bundled:
        yield from _ambiguous(injects, subject.package)


def _missing(subject: Subject) -> Iterator[Finding]:
    if not subject.descriptions:
        return
    if not subject.entries_of(PREFETCH):
        why = "nothing here fetches the containers: 'osc service manualrun' does not, only 'osc containers prefetch'"
        yield _finding(Severity.WARNING, why, _line(PREFETCH, "manual"))
    if not subject.is_bundled and not subject.entries_of(INJECT):
        why = "nothing puts the containers into the image: in the build, kiwi will try to pull them, without a network"
        yield _finding(Severity.ERROR, why, _line(INJECT, "buildtime"))


def _prefetch(entry: Entry) -> Iterator[Finding]:
    if entry.mode == "buildtime":
        why = f"{PREFETCH} needs a network, and there is none in the build root"
        yield _finding(Severity.ERROR, why, _line(PREFETCH, "manual"), entry)
    elif entry.mode not in _LOCAL:
        when = _WHEN.get(entry.mode, f"mode {entry.mode[:40]!r}")
        why = f"{PREFETCH} {when} runs on the OBS server, where services have no network: the package will be broken"
        yield _finding(Severity.ERROR, why, _line(PREFETCH, "manual"), entry)


def _not_prefetched(subject: Subject) -> Iterator[Finding]:
    """Find images that OBS builds, as the description says, though what they need is not prefetched."""
    entries = subject.prefetches()
    if not entries or not subject.descriptions or subject.is_bundled:
        return
    told = selection.of_entries(subject.package, entries)
    built = {name for entry in subject.entries_of(INJECT) for name in entry.given("description")}
    for found in subject.descriptions:
        fetched = told.architectures_of(found)
        if not fetched or (built and found.path.name not in built):
            continue
        for arch in _unserved(found, fetched):
            why = f"{PREFETCH} fetches for {', '.join(fetched)} only: a build of {found.path.name} for {arch} fails"
            fix = f'<param name="arch">{arch}</param>, or no {arch} in OBS-ExclusiveArch'
            yield _finding(Severity.WARNING, why, fix, entries[0])
        for names in dict.fromkeys(names for arch in fetched for names in _incomplete(found, arch, told)):
            build = f"{found.path.name} {f'for {names[0][:80]!r}' if names else 'without a profile'}"
            why = f"{PREFETCH} fetches for other profiles only: a build of {build} fails"
            fix = f'<param name="profile">{names[0][:80] if names else "…"}</param>, or none of these'
            yield _finding(Severity.ERROR if names else Severity.WARNING, why, fix, entries[0])


def _unserved(found: Description, fetched: Sequence[str]) -> Iterator[str]:
    """Yield the architectures of `OBS-ExclusiveArch` that nothing is fetched for, under no name that they have."""
    served = {platform.of_architecture(arch) for arch in fetched}
    for arch in found.exclusive_archs or ():
        is_known = arch in platform.ARCHITECTURES  # OBS has more, for other builds than kiwi's
        if is_known and platform.of_architecture(arch) not in served and found.of_architecture(arch):
            yield arch


def _incomplete(found: Description, arch: str, told: Request) -> Iterator[tuple[str, ...]]:
    """Yield the profiles of each image that OBS builds for an architecture, and that needs what is not fetched."""
    try:
        used = told.used_profiles(found, arch)
    except DescriptionError:  # said by the check of the layout
        return
    if used is not None and arch in (found.exclusive_archs or [arch]):
        for names in image_type.builds(found, arch) if found.obs_profiles is not None else [()]:
            if not all(container.is_in(used) for container in found.select(arch, names)):
                yield names


def _parameters(entry: Entry, subject: Subject) -> Iterator[Finding]:
    """Find values that the service will refuse."""
    for name in entry.given("description"):
        if not (subject.package.directory / name).is_file():
            yield _finding(
                Severity.ERROR, f"{entry.name}: description {name[:160]!r}: there is no such file", "", entry
            )
    for problem in entry.problems():
        yield _finding(Severity.ERROR, problem, "", entry)


def _ambiguous(entries: Sequence[Entry], package: Package) -> Iterator[Finding]:
    """Find builds that would not know which description is theirs: each runs every entry."""
    told = [entry.given("description") for entry in entries]
    asked = list(dict.fromkeys(name for each in told for name in each)) if all(told) else []
    try:
        descriptions = selection.read(package, asked, [], []).descriptions
    except (DescriptionError, FileNotFoundError):  # said by the checks of the descriptions and of the parameters
        return
    having = [found for found in descriptions if found.containers]
    if len({found.asks for found in having}) > 1:
        names = [found.path.name for found in having]
        why = f"{', '.join(names)} have <containers>, and {INJECT} cannot know which of them is built"
        fix = f'<param name="description">{names[0]}</param>{" and no other" if asked else ""}'
        yield _finding(Severity.ERROR, why, fix, entries[-1])


def _line(name: str, mode: str) -> str:
    return f'<service name="{name}" mode="{mode}"/>'


def _finding(severity: Severity, why: str, fix: str, entry: Entry | None = None) -> Finding:
    return Finding(
        severity=severity, check="service", file=FILE_NAME, line=entry.line if entry else 0, why=why, fix=fix
    )
