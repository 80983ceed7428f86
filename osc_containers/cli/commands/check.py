"""`osc-containers check`."""

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator

from osc_containers.checks import (
    archives,
    engines,
    files,
    layout,
    loading,
    programs,
    repair,
    services,
    signatures,
    space,
    store,
    units,
)
from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity, as_objects, from_problem, sort
from osc_containers.cli import arguments, modules
from osc_containers.cli.output import terminal
from osc_containers.cli.output.findings import as_text
from osc_containers.errors import DescriptionError, Error
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import hints, selection, working_copy
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import PREFETCH
from osc_containers.obs.selection import Request
from osc_containers.obs.service_file import Entry

logger = logging.getLogger(__name__)

_CHECKS = (
    layout.check,
    services.check,
    files.check,
    archives.check,
    loading.check,
    programs.check,
    signatures.check,
    space.check,
    units.check,
    store.check,
    engines.check,
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "Each finding has a location, a reason, and the line to add or change, or a command to run. Errors come first. "
        "No network is needed, and nothing is written without --fix. The exit status is 0 if the package has no error "
        "(with --strict, also no warning), 1 if it has, 2 for wrong usage, 3 if the check failed.",
        "  osc-containers check\n  osc-containers check --format json | jq '.[] | select(.severity == \"error\")'",
    )
    arguments.add_package(parser)
    arguments.add_parameters(parser, ("description", "arch"))
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="include files with containers, replace modes (with --old-server), and add files to osc or git; print the "
        "changes, then what is left (refused for files with changes that are not committed)",
    )
    parser.add_argument(
        "--old-server",
        action="store_true",
        help="check for a server that does not know the mode 'manual', such as OBS 2.9 (default: only if it has tried "
        "to run kiwi_containers)",
    )
    arguments.add_format(parser, "text", "json")


def run(options: argparse.Namespace) -> int:
    """Print the findings."""
    # Names of other services, archives of the overlay and --fix need these.
    modules.load_late("difflib", "tarfile")
    package = Package(options.directory)
    if options.fix:
        _fix(package, options)
        package = Package(options.directory)  # a Package reads its files only once
    with package.share():
        context, problems = _read(package, options)
        findings = sort(_find(context, problems))
    if options.format == "json":
        print(json.dumps(as_objects(findings), indent=2))
    else:
        print(as_text(findings) or "no problems found")
        if context.lock and context.lock.references:
            # Somebody who has a damaged archive should not read that there are no problems.
            command = hints.own(package.directory, "verify")
            print(f"contents of archives were not read; '{command}' reads them")
    failures = (Severity.ERROR, Severity.WARNING) if options.strict else (Severity.ERROR,)
    return 1 if any(each.severity in failures for each in findings) else 0


def _fix(package: Package, options: argparse.Namespace) -> None:
    """Repair what can be repaired, and print what was done: on standard error, if standard output is for programs."""
    output = sys.stderr if options.format == "json" else sys.stdout
    with package.hold():
        context, _ = _read(package, options)
        edits = repair.plan_edits(context)
        repair.apply(edits)
        for each in edits:
            print("\n".join(map(terminal.printable, each.diff().split("\n"))), file=output)
        if not context.is_set_up:
            return
        try:
            # The edits change what is included, and so what has to be added.
            context, _ = _read(Package(package.directory), options)
            added = repair.add_files(context)
        except Error as error:
            logger.warning("no file was added: %s", "; ".join(error.problems))
            return
        for name in added:
            print(terminal.printable(f"{name}: added"), file=output)


def _read(package: Package, options: argparse.Namespace) -> tuple[Context, tuple[Finding, ...]]:
    """Read everything that the checks need; a file that cannot be read is a finding."""
    lock: Lock | None = None
    entries: tuple[Entry, ...] | None = None
    findings: list[Finding] = []
    try:
        lock = package.read_lock()
    except Error as error:
        findings += (from_problem(problem, "lock") for problem in error.problems)
    try:
        entries = package.service_entries
    except Error as error:
        findings += (from_problem(problem, "service") for problem in error.problems)
    context = Context(
        package=package,
        request=Request(parts=()),
        lock=lock,
        entries=entries or (),
        has_service_file=entries is not None,
        # The server can only report an error of this service if it has run it, which `manual` should prevent.
        has_old_server=options.old_server or PREFETCH in working_copy.service_error(package.directory),
    )
    names, architectures = arguments.drop_empty(options.description), arguments.architectures(options.arch)
    try:
        request = selection.of_entries(package, context.prefetches(), names, architectures)
        for description in request.descriptions:
            request.architectures_of(description)  # fails if the machine's own architecture is unknown to kiwi
        context = context._replace(request=request)
    except DescriptionError as error:
        findings += (from_problem(problem, "description") for problem in error.problems)
    return context, tuple(findings)


def _find(context: Context, problems: Iterable[Finding]) -> Iterator[Finding]:
    """Yield all findings; checks that depend on a file that could not be read find nothing."""
    yield from problems
    # Several checks read descriptions again, in more depth, and can fail on their own.
    for check in _CHECKS:
        try:
            yield from check(context)
        except DescriptionError as error:
            yield from (from_problem(problem, "description") for problem in error.problems)
