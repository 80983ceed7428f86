"""`osc-containers init`."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from osc_containers.archive import verify
from osc_containers.archive.blobs import PackageBlobs
from osc_containers.checks import layout, services
from osc_containers.checks.context import Context
from osc_containers.cli import arguments, installation
from osc_containers.cli.commands.prefetch import prefetch_all
from osc_containers.cli.output import terminal
from osc_containers.errors import DescriptionError, Error
from osc_containers.fs import atomic
from osc_containers.kiwi import split
from osc_containers.lock.lockfile import FILE_NAME
from osc_containers.obs import hints, selection, service_editor, service_file, working_copy
from osc_containers.obs.hints import Place
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import INJECT, PREFETCH, SERVICES
from osc_containers.obs.selection import Request
from osc_containers.obs.service_file import Entry
from osc_containers.sources import local

logger = logging.getLogger(__name__)

_MODES = ("manual", "disabled")
"""The modes for the prefetch service; neither runs on a server that knows it."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "`init` performs three steps and skips any that are already done:\n\n"
        "  1. split: move <containers> to a file that the description includes\n"
        "  2. add two services to _service, and keep everything else in it: one updates the\n"
        "     containers (osc service manualrun or disabledrun), the other runs in every build\n"
        "  3. prefetch: create containers.lock and download the archives\n\n"
        "It then prints what to commit.",
        "  osc containers init --arch x86_64 --arch aarch64\n  osc addremove\n  osc commit",
    )
    arguments.add_package(parser)
    parser.add_argument(
        "--description", metavar="FILE", help="the kiwi file that OBS builds, if several have <containers>"
    )
    arguments.add_parameters(parser, ("arch", "layout", "inject"))
    parser.add_argument(
        "--mode",
        choices=_MODES,
        help="mode of the service that updates the containers (default: manual); OBS 2.9 only knows disabled, which "
        "'osc service disabledrun' runs",
    )
    arguments.add_local_sources(parser)
    parser.add_argument("--no-prefetch", action="store_true", help="skip the prefetch, which needs a network")


def run(options: argparse.Namespace) -> int:
    """Set up the package."""
    package = Package(options.directory)
    if hints.place_of(package.directory) is Place.PROJECT:
        raise Error(
            f"{package.directory.resolve()}: is the working copy of a project, expected that of a package; go to its "
            "package, or create one with 'osc mkpac NAME'"
        )
    if not options.no_prefetch:
        installation.require_prefetch()
    # What this run changes is what the packager is told to commit.
    before = _file_states(package.directory)
    with package.hold():
        package.refuse_pointers()
        uses_bundle = service_file.is_bundled(package.prefetches)
        if options.inject:
            uses_bundle = options.inject == "source"
        architectures = arguments.architectures(options.arch)
        if uses_bundle and options.layout == "blobs":
            raise DescriptionError(service_file.BUNDLE_HAS_NO_LAYOUT)
        if uses_bundle:
            _set_up_bundle(package, options.description, architectures, options.mode)
        else:
            _set_up(package, options.description, architectures, options.mode, options.layout)
    package = Package(options.directory)  # a Package reads its files only once, and they were edited
    try:
        is_complete = _prefetch_if_needed(package, may_fetch=not options.no_prefetch, allow_local=options.allow_local)
    except Error:
        again = hints.own(package.directory, "prefetch")
        logger.warning("the package is set up, but the prefetch failed: run '%s' again", again)
        raise
    if not is_complete:
        commands = hints.commit_all(package.directory)
        what = "fetch and commit" if commands else "fetch"
        _print_commands(what, hints.own(package.directory, "prefetch"), *commands)
        return 0
    after = _file_states(package.directory)
    changed = {name for name, state in after.items() if before.get(name) != state}
    if hints.place_of(package.directory) is not Place.NONE:  # An earlier run may have failed after it changed files.
        changed.update(working_copy.uncommitted(package.directory, package.own_files(package.read_lock())))
    if changed:
        if advice := hints.lfs(package.directory, changed):
            logger.info("%s", advice)
        _print_commands("commit", *hints.commit(package.directory, sorted(changed)))
    else:
        print("Nothing to do: the package is set up.")
    if note := installation.note_missing():
        logger.info("%s", note)
    return 0


def _print_commands(what: str, *commands: str) -> None:
    if commands:
        print(f"Now {what}:", *map(terminal.printable, commands), sep="\n  ")
    else:
        print("Done. This directory is no working copy of osc or git: copy the files to one to commit them.")


def _set_up(package: Package, name: str | None, architectures: list[str], mode: str | None, layout: str | None) -> None:
    """Split the descriptions, and add the services that are missing to `_service`."""
    for entry in package.prefetches:
        if service_file.is_bundled([entry]):
            raise DescriptionError(
                f"{service_file.FILE_NAME}:{entry.line}: {entry.name} uses inject=source; remove this entry, and "
                "include the file that it reads in the description"
            )
    request = selection.read(package, [], architectures, [])
    descriptions = [each for each in request.descriptions if each.containers]
    names = [each.path.name for each in descriptions]
    if name is not None and name not in names:
        raise DescriptionError(f"{name}: expected a description of this package that has <containers>")
    if not names:
        raise _no_containers(request)
    path, old = package.directory / service_file.FILE_NAME, service_file.read(package.directory)
    parameters = [("description", name)] if name is not None else []
    parameters += [("arch", arch) for arch in architectures]
    parameters += [("layout", layout)] if layout == "blobs" else []
    new = service_editor.add_our_services(old, parameters, mode=mode or _MODES[0])
    entries = {entry.name: entry for entry in service_file.parse(new)}
    if len({each.content_key for each in descriptions}) > 1 and not entries[INJECT].values("description"):
        raise DescriptionError(
            f"{', '.join(names)}: several descriptions have <containers>; name the one that OBS builds with "
            "--description"
        )
    _check_entries(package, service_file.parse(new))
    _check_options(_our_entries(package), name, architectures, mode)
    _check_layout(package.prefetches, layout)
    # Nothing was written so far: everything that can be refused was checked above.
    split.apply(split.plan(request.descriptions, name))
    if new != old:
        atomic.write_atomically(path, new)
        logger.info("%s: %s", path.name, "created" if old is None else "added our services; nothing else changed")


def _set_up_bundle(package: Package, name: str | None, architectures: list[str], mode: str | None) -> None:
    """Move `<containers>` to a file that the description does not include, and add one entry to `_service`.

    kiwi must not see the containers: the bundle brings them, and kiwi would try to pull them again.
    """
    path, old = package.directory / service_file.FILE_NAME, service_file.read(package.directory)
    entries = _our_entries(package)
    for entry in entries:
        where = f"{path.name}:{entry.line}: {entry.name}"
        if entry.name == INJECT:
            raise DescriptionError(f"{where} does not work with inject=source; remove this entry")
        if not service_file.is_bundled([entry]):
            raise DescriptionError(f"{where} uses inject=buildtime; remove this entry")
    if entries:
        _check_options(entries, None, architectures, mode)
        _check_entries(package, entries)
        return
    request = selection.read(package, [], architectures, [])
    descriptions = [each for each in request.descriptions if each.containers and name in (None, each.path.name)]
    if not descriptions and name is None:
        raise _no_containers(request)
    if len(descriptions) != 1:
        names = ", ".join(each.path.name for each in descriptions) or name
        raise DescriptionError(
            f"{names}: expected one description with <containers>; name the one that OBS builds with --description"
        )
    (description,) = descriptions
    build_architectures = request.architectures_of(description)
    # A bundle has no architecture in its name, and obs-build unpacks it in every build.
    if len(build_architectures) != 1:
        raise DescriptionError(
            f"{description.path.name}: got the architectures {', '.join(build_architectures)}, but "
            "kiwi_containers.obscpio is for one; select it with --arch"
        )
    splits = split.plan(descriptions)
    detached, sources = split.detach_containers(description, splits)
    if len(sources) > 1:
        raise DescriptionError(
            f"{description.path.name}: <containers> are in {', '.join(sources)}, but kiwi_containers.obscpio is for "
            "those of one file; move them all to one"
        )
    parameters = [*(("description", file) for file in sources), ("arch", build_architectures[0]), ("inject", "source")]
    # obs-build unpacks the bundle by itself, so that no service is needed in the build root.
    new = service_editor.add_our_services(old, parameters, names=(PREFETCH,), mode=mode or _MODES[0])
    split.apply(splits)
    # _service comes before the description. If the second step fails, the next run finds the entry, sees that the
    # description still includes the file, and tells what to do. In the other order the containers would be lost.
    atomic.write_atomically(path, new)
    logger.info("%s: %s", path.name, "created" if old is None else "added our service; nothing else changed")
    atomic.write_atomically(description.path, detached, description.path.stat().st_mode & 0o7777)
    logger.info("%s: no longer includes %s, which the service reads instead", description.path.name, ", ".join(sources))


def _our_entries(package: Package) -> list[Entry]:
    return [entry for entry in package.service_entries if entry.name in SERVICES]


def _no_containers(request: Request) -> DescriptionError:
    names = ", ".join(each.path.name for each in request.descriptions)
    return DescriptionError(f"{names}: no <containers>, so there is nothing to prefetch; add one and rerun")


def _check_entries(package: Package, entries: Sequence[Entry]) -> None:
    """Refuse a package whose services could not do their work.

    :raises DescriptionError: each reason is listed.
    """
    context = Context(package=package, request=Request(parts=()), lock=None, entries=tuple(entries))
    findings = list(services.check(context))
    if context.is_bundled:
        findings += layout.find_double_injected(package, selection.of_entries(package, context.prefetches()))
    if findings:
        raise DescriptionError(
            *(f"{each.location}: {each.why}" + (f"; write {each.fix}" if each.fix else "") for each in findings)
        )


def _check_options(entries: Sequence[Entry], name: str | None, architectures: Sequence[str], mode: str | None) -> None:
    """Refuse options that contradict existing entries, because these are not changed.

    :raises DescriptionError: each contradiction is listed.
    """
    problems = []
    for entry in entries:
        if entry.name == PREFETCH and mode not in (None, entry.mode):
            where = f"{service_file.FILE_NAME}:{entry.line}: {entry.name}"
            problems.append(f"{where} has the mode {entry.mode!r}, got {mode}; change it there")
        for parameter, options in (("description", [name] if name else []), ("arch", architectures)):
            values = entry.effective_values(parameter)
            # An entry without a description reads all of them. An entry without arch has a default to contradict.
            is_set = parameter in SERVICES[entry.name].parameters and (values or parameter == "arch")
            if is_set and options and set(values) != set(options):
                current = f"{parameter} {', '.join(values)}" if values else f"no {parameter}"
                where = f"{service_file.FILE_NAME}:{entry.line}: {entry.name}"
                problems.append(f"{where} has {current}, got {', '.join(options)}; change it there")
    if problems:
        raise DescriptionError(*problems)


def _check_layout(prefetches: Sequence[Entry], layout: str | None) -> None:
    current = service_file.layout(prefetches)
    if prefetches and layout not in (None, current):
        where = f"{service_file.FILE_NAME}:{prefetches[0].line}: {PREFETCH}"
        raise DescriptionError(f"{where} has the layout {current}, got {layout}; change it there")


def _prefetch_if_needed(package: Package, *, may_fetch: bool, allow_local: bool) -> bool:
    """Prefetch as the service would, unless lock and archives are complete; return whether they are complete now.

    A complete package is left alone, because a prefetch would follow the tags.
    """
    request = selection.of_package(package)
    for each in selection.image_requests(request):
        if local.is_local(package.directory, each.location):
            logger.warning("%s: %s comes from this machine: %s", each.where, each.reference, each.location)
    if _is_complete(package, request):
        update = hints.own(package.directory, "prefetch")
        logger.info("%s: complete, with all archives; '%s' updates them", FILE_NAME, update)
    elif may_fetch:
        entries = package.prefetches
        locked = package.read_lock() is not None and service_file.is_locked(entries)
        bundled = service_file.is_bundled(entries)
        prefetch_all(
            package,
            request,
            outdir=package.directory,
            locked=locked,
            bundled=bundled,
            layout=service_file.layout(entries),
            signatures=service_file.signature_parameters(entries),
            connections=service_file.connections(entries),
            allow_local=allow_local,
        )
    else:
        return False
    return True


def _is_complete(package: Package, request: Request) -> bool:
    lock = package.read_lock()
    if lock is None:
        return False
    images = [
        (each.reference, arch, each.where) for each in selection.image_requests(request) for arch in each.architectures
    ]
    with ExitStack() as stack:
        blobs = PackageBlobs(package, lock, stack)
        claims = [lock.references[reference].claim(reference, arch) for reference, arch, _ in lock.images()]
        return not verify.check_coverage(images, lock) and not any(map(blobs.missing, claims))


def _file_states(directory: Path) -> Mapping[str, tuple[int, int, int]]:
    """Return what changes whenever a file does, by file name: inode, size and modification time."""
    files = {path.name: path.stat() for path in directory.iterdir() if path.is_file()}
    return {name: (status.st_ino, status.st_size, status.st_mtime_ns) for name, status in files.items()}
