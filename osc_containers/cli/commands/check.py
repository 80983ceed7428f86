"""`osc-containers check`."""

import argparse
import json
from collections.abc import Iterator

from osc_containers.checks import archives, layout, programs, services, space
from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity, as_objects, from_problem, sort
from osc_containers.cli import arguments
from osc_containers.cli.findings import as_text
from osc_containers.errors import DescriptionError, Error
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import selection
from osc_containers.obs.package import Package
from osc_containers.obs.selection import Request
from osc_containers.obs.service_file import Entry

_CHECKS = (layout.check, services.check, archives.check, programs.check, space.check)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "Each finding has a location, a reason, and the line to add or change. Nothing is written, and no network is "
        "needed. The exit status is 0 if the package has no error (with --strict, also no warning), 1 if it has, 2 for "
        "wrong usage, 3 if the check failed.",
        "  osc-containers check\n  osc-containers check --format json | jq '.[] | select(.severity == \"error\")'",
    )
    arguments.add_package(parser)
    arguments.add_parameters(parser, ("description", "arch"))
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    arguments.add_format(parser, "text", "json")


def run(options: argparse.Namespace) -> int:
    """Print the findings."""
    names, architectures = arguments.drop_empty(options.description), arguments.architectures(options.arch)
    findings = sort(_find(Package(options.directory), names, architectures))
    if options.format == "json":
        print(json.dumps(as_objects(findings), indent=2))
    else:
        print(as_text(findings) or "no problems found")
    failures = (Severity.ERROR, Severity.WARNING) if options.strict else (Severity.ERROR,)
    return 1 if any(each.severity in failures for each in findings) else 0


def _find(package: Package, names: list[str], architectures: list[str]) -> Iterator[Finding]:
    """Yield all findings; a file that cannot be read is a finding, and checks that depend on it find nothing."""
    lock: Lock | None = None
    entries: tuple[Entry, ...] = ()
    checks = list(_CHECKS)
    try:
        lock = package.read_lock()
    except Error as error:
        yield from (from_problem(problem, "lock") for problem in error.problems)
    try:
        entries = package.service_entries
    except Error as error:
        yield from (from_problem(problem, "service") for problem in error.problems)
        checks.remove(services.check)
    context = Context(package=package, request=Request(parts=()), lock=lock, entries=entries)
    try:
        request = selection.of_entries(package, context.prefetches(), names, architectures)
        for description in request.descriptions:
            request.architectures_of(description)  # fails if the machine's own architecture is unknown to kiwi
        context = context._replace(request=request)
    except DescriptionError as error:
        yield from (from_problem(problem, "description") for problem in error.problems)
    # Several checks read descriptions again, in more depth, and can fail on their own.
    for check in checks:
        try:
            yield from check(context)
        except DescriptionError as error:
            yield from (from_problem(problem, "description") for problem in error.problems)
