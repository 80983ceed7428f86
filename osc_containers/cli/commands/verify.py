"""`osc-containers verify`, and what the inject service does outside of a build root."""

import argparse
from collections.abc import Sequence

from osc_containers.archive import verify
from osc_containers.cli import arguments
from osc_containers.cli.arguments import Commands
from osc_containers.errors import LockError, VerificationError
from osc_containers.formats import human
from osc_containers.obs import selection
from osc_containers.obs.package import Package


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands,
        "verify",
        run,
        "Check offline that lock and archives are complete, intact and what the description asks for.",
        "  osc-containers verify",
    )
    arguments.add_package(parser)
    arguments.add_parameters(
        parser, ("description", "arch", "profile"), {"arch": "of OBS-ExclusiveArch, else all that are locked"}
    )


def run(options: argparse.Namespace) -> int:
    """Verify."""
    count = verify_all(
        Package(options.directory),
        arguments.given(options.description),
        arguments.words(options.arch),
        arguments.given(options.profile),
    )
    print(f"{human.count(count, 'archive')} verified: all is as the lock and the description say")
    return 0


def verify_all(package: Package, names: Sequence[str], architectures: Sequence[str], profiles: Sequence[str]) -> int:
    """Verify all archives that the lock names, and that it names what the package asks for; return their number."""
    besides = selection.of_package(package)
    found = selection.of_package(package, names, architectures, profiles)
    lock = package.require_lock()
    otherwise = selection.default_architectures(besides, lock)
    asked = selection.wanted(found.with_default_architectures(otherwise))
    wanted = [(item.reference, arch, item.where) for item in asked for arch in item.architectures]
    used = {item.reference for item in (*asked, *selection.wanted(besides.with_default_architectures(otherwise)))}
    # What is missing comes behind what is too much: a server shows the last line alone.
    problems = (*verify.check_use(used, lock), *verify.check_coverage(wanted, lock))
    images = [(reference, arch) for reference, arch, _ in lock.images() if not architectures or arch in architectures]
    damage = verify.check_archives(package, lock, images)
    if problems:
        raise LockError(*problems, *damage)
    if damage:
        raise VerificationError(*damage)
    return len(images)
