"""`osc-containers check`."""

import argparse
import json
from collections.abc import Iterator

from osc_containers.checks import archives, layout, programs, services, space
from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity, as_objects, from_problem, sort
from osc_containers.cli import arguments
from osc_containers.cli.arguments import Commands
from osc_containers.cli.findings import as_text
from osc_containers.errors import DescriptionError, Error
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import selection
from osc_containers.obs.package import Package
from osc_containers.obs.selection import Request
from osc_containers.obs.service_file import Entry

_NOTHING = Request(parts=())
_CHECKS = (layout.check, services.check, archives.check, programs.check, space.check)


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands,
        "check",
        run,
        "Find what would go wrong later: when OBS schedules or builds the package, or when the image boots.\n\n"
        "Each finding has its place, the reason, and the line to add or change. Nothing is written, and no network is\n"
        "needed. The exit status is 1 if there is an error (with --strict: or a warning), else 0.",
        "  osc-containers check\n  osc-containers check --format json | jq '.[] | select(.severity == \"error\")'",
    )
    arguments.add_package(parser)
    arguments.add_parameters(parser, ("description", "arch"))
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    arguments.add_format(parser, "text", "json")


def run(options: argparse.Namespace) -> int:
    """Check."""
    names, architectures = arguments.given(options.description), arguments.words(options.arch)
    found = sort(_findings(Package(options.directory), names, architectures))
    if options.format == "json":
        print(json.dumps(as_objects(found), indent=2))
    elif found:
        print(as_text(found))
    else:
        print("no problems found")
    serious = (Severity.ERROR, Severity.WARNING) if options.strict else (Severity.ERROR,)
    return 1 if any(finding.severity in serious for finding in found) else 0


def _findings(package: Package, names: list[str], architectures: list[str]) -> Iterator[Finding]:
    """Yield all findings; what cannot be read is one, and what depends on it is not checked."""
    lock: Lock | None = None
    entries: tuple[Entry, ...] = ()
    try:
        lock = package.read_lock()
    except Error as error:
        yield from (from_problem(problem, "lock") for problem in error.problems)
    checks = list(_CHECKS)
    try:
        entries = package.service_entries
    except Error as error:
        yield from (from_problem(problem, "service") for problem in error.problems)
        checks.remove(services.check)
    context = Context(package=package, request=_NOTHING, lock=lock, entries=entries)
    try:
        found = selection.of_entries(package, context.prefetches(), names, architectures)
        for description in found.descriptions:
            found.architectures_of(description)
        context = context._replace(request=found)
    except DescriptionError as error:
        yield from (from_problem(problem, "description") for problem in error.problems)
    for check in checks:
        try:
            yield from check(context)
        except DescriptionError as error:
            yield from (from_problem(problem, "description") for problem in error.problems)
