"""`osc-containers init`."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from osc_containers.archive import find, verify
from osc_containers.checks import layout, services
from osc_containers.checks.context import Context
from osc_containers.cli import arguments, terminal
from osc_containers.cli.arguments import Commands
from osc_containers.cli.commands.prefetch import prefetch_all
from osc_containers.errors import DescriptionError, Error
from osc_containers.fs import atomic
from osc_containers.kiwi import split
from osc_containers.lock.lockfile import FILE_NAME
from osc_containers.obs import selection, service_file, working_copy
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import INJECT, PREFETCH, SERVICES
from osc_containers.obs.selection import Request
from osc_containers.obs.service_file import Entry

logger = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands,
        "init",
        run,
        "Make a package that builds on OBS out of a plain kiwi description. That is\n\n"
        "  1. split: <containers> moves to a file that the description includes;\n"
        "  2. the two services in _service: one to update the containers with (osc service\n"
        "     manualrun), one that runs in every build; whatever else is in _service stays;\n"
        "  3. prefetch: the first lock and archives, if they are not there yet.\n\n"
        "Then it says what to commit. A second run changes nothing.",
        "  osc containers init --arch x86_64 --arch aarch64\n  osc addremove\n  osc commit",
    )
    arguments.add_package(parser)
    parser.add_argument(
        "--description", metavar="FILE", help="the kiwi file that OBS builds, if several have <containers>"
    )
    arguments.add_parameters(parser, ("arch", "inject"))
    parser.add_argument("--no-prefetch", action="store_true", help="fetch nothing now: no network is needed")


def run(options: argparse.Namespace) -> int:
    """Set the package up."""
    package = Package(options.directory)
    before = _files(package.directory)
    with package.hold():
        told = package.prefetches
        bundled = options.inject == "source" if options.inject else service_file.is_bundled(told)
        set_up = _set_up_bundle if bundled else _set_up
        set_up(package, options.description, arguments.words(options.arch))
    package = Package(options.directory)  # its files were edited
    try:
        is_complete = _prefetch_if_needed(package, may_fetch=not options.no_prefetch)
    except Error:
        logger.warning("the package is set up; what failed is the prefetch: run 'osc containers prefetch' again")
        raise
    if not is_complete:
        commands = "osc containers prefetch", *working_copy.commands_for_all(package.directory)
        print("Now fetch and commit:", *map(terminal.printable, commands), sep="\n  ")
        return 0
    _say_what_to_commit(package.directory, before)
    return 0


def _set_up(package: Package, name: str | None, architectures: list[str]) -> None:
    """Split the descriptions and complete `_service`."""
    for entry in package.prefetches:
        if service_file.is_bundled([entry]):
            raise DescriptionError(
                f"{service_file.FILE_NAME}:{entry.line}: {entry.name} is set up the other way; take it out, and "
                "include in the description what it reads"
            )
    found = selection.read(package, [], architectures, [])
    having = [described for described in found.descriptions if described.containers]
    names = [described.path.name for described in having]
    if name is not None and name not in names:
        raise DescriptionError(f"{name}: expected a description of this package that has <containers>")
    if not names:
        raise _nothing(found)
    path, old = package.directory / service_file.FILE_NAME, service_file.read(package.directory)
    parameters = [("description", name)] if name is not None else []
    new = service_file.add_our_services(old, [*parameters, *(("arch", arch) for arch in architectures)])
    entries = {entry.name: entry for entry in service_file.parse(new)}
    if len({described.content_key for described in having}) > 1 and not entries[INJECT].values("description"):
        raise DescriptionError(f"{', '.join(names)}: several have <containers>; say by --description which OBS builds")
    _check_entries(package, service_file.parse(new))
    there = [entry for entry in package.service_entries if entry.name in SERVICES]
    _check_options(there, name, architectures)
    split.apply(split.plan(found.descriptions))
    if new != old:
        atomic.write_atomically(path, new)
        logger.info("%s: %s", path.name, "new" if old is None else "has our services now, too; nothing else changed")


def _set_up_bundle(package: Package, name: str | None, architectures: list[str]) -> None:
    """Put `<containers>` into a file that the description does not include, and one entry into `_service`."""
    path, old = package.directory / service_file.FILE_NAME, service_file.read(package.directory)
    there = [entry for entry in package.service_entries if entry.name in SERVICES]
    for entry in there:
        if entry.name == INJECT or not service_file.is_bundled([entry]):
            raise DescriptionError(f"{path.name}:{entry.line}: {entry.name} is set up the other way; take it out")
    if there:
        _check_options(there, None, architectures)
        _check_entries(package, there)
        return
    found = selection.read(package, [], architectures, [])
    having = [each for each in found.descriptions if each.containers and name in (None, each.path.name)]
    if not having and name is None:
        raise _nothing(found)
    if len(having) != 1:
        raise DescriptionError(
            f"{', '.join(each.path.name for each in having) or name}: expected one description with "
            "<containers>; say by --description which OBS builds"
        )
    wanted = found.architectures_of(having[0])
    if len(wanted) != 1:
        raise DescriptionError(
            f"{having[0].path.name}: got the architectures {', '.join(wanted)}, but kiwi_containers.obscpio is for "
            "one; say by --arch which"
        )
    described, splits = having[0].path, split.plan(having)
    detached, holding = split.detach_containers(having[0], splits)
    if len(holding) > 1:
        raise DescriptionError(
            f"{described.name}: <containers> are in {', '.join(holding)}, but kiwi_containers.obscpio is for those of "
            "one file; put all into one"
        )
    parameters = [*(("description", file) for file in holding), ("arch", wanted[0]), ("inject", "source")]
    new = service_file.add_our_services(old, parameters, names=(PREFETCH,))
    split.apply(splits)
    # First what names the file, then what lets go of it: where the second fails, the next run says what is left to do.
    atomic.write_atomically(path, new)
    logger.info("%s: %s", path.name, "new" if old is None else "has our service now, too; nothing else changed")
    atomic.write_atomically(described, detached, described.stat().st_mode & 0o7777)
    logger.info("%s: no longer includes %s, which the service reads", described.name, ", ".join(holding))


def _nothing(found: Request) -> DescriptionError:
    texts = ", ".join(described.path.name for described in found.descriptions)
    return DescriptionError(f"{texts}: no <containers>, so there is nothing to prefetch; write one and come again")


def _check_entries(package: Package, entries: Sequence[Entry]) -> None:
    """Refuse to call a package set up whose services cannot do their work.

    :raises DescriptionError: each reason is named.
    """
    context = Context(package=package, request=Request(parts=()), lock=None, entries=tuple(entries))
    found = list(services.check(context))
    if context.is_bundled:
        found += layout.find_double_injected(package, selection.of_entries(package, context.prefetches()))
    problems = [f"{each.file}:{each.line}: {each.why}" + (f"; write {each.fix}" if each.fix else "") for each in found]
    if problems:
        raise DescriptionError(*problems)


def _check_options(entries: Sequence[Entry], name: str | None, architectures: Sequence[str]) -> None:
    """Refuse options that entries which are there contradict, because these stay as they are.

    :raises DescriptionError: each is named.
    """
    problems = []
    for entry in entries:
        for parameter, given in (("description", [name] if name else []), ("arch", architectures)):
            told = entry.effective_values(parameter)
            is_known = parameter in SERVICES[entry.name].parameters and (told or parameter == "arch")
            if is_known and given and set(told) != set(given):
                what = f"{entry.name} has {parameter} {', '.join(told) or 'by default'}, got {', '.join(given)}"
                problems.append(f"{service_file.FILE_NAME}:{entry.line}: {what}; change it there")
    if problems:
        raise DescriptionError(*problems)


def _prefetch_if_needed(package: Package, *, may_fetch: bool) -> bool:
    """Prefetch as the service would, unless lock and archives are there: a run of its own follows the tags.

    Return whether they are there now.
    """
    found = selection.of_package(package)
    if _is_complete(package, found):
        logger.info("%s: there, with its archives; 'osc containers prefetch' follows the tags", FILE_NAME)
    elif may_fetch:
        told = package.prefetches
        locked = package.read_lock() is not None and service_file.is_locked(told)
        bundled = service_file.is_bundled(told)
        prefetch_all(package, found, outdir=package.directory, locked=locked, bundled=bundled)
    else:
        return False
    return True


def _is_complete(package: Package, found: Request) -> bool:
    lock = package.read_lock()
    if lock is None:
        return False
    wanted = [(item.reference, arch, item.where) for item in selection.wanted(found) for arch in item.architectures]
    archives = [
        find.find_archive(package, reference, locked.image, locked.archive.name)
        for reference, _, locked in lock.images()
    ]
    return not verify.check_coverage(wanted, lock) and all(archives)


def _files(directory: Path) -> Mapping[str, tuple[int, int, int]]:
    """Return what tells whether a file changed, by name."""
    found = {path.name: path.stat() for path in directory.iterdir() if path.is_file()}
    return {name: (status.st_ino, status.st_size, status.st_mtime_ns) for name, status in found.items()}


def _say_what_to_commit(directory: Path, before: Mapping[str, tuple[int, int, int]]) -> None:
    changed = sorted(name for name, status in _files(directory).items() if before.get(name) != status)
    if not changed:
        print("Nothing changed: the package is set up.")
        return
    commands = working_copy.commands_for(directory, changed)
    print("Now commit:", *map(terminal.printable, commands), sep="\n  ")
