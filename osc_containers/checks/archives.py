"""Checks of the lock, of names and sizes of archives, and of bundles. `verify` reads every byte of archives, too."""

from collections.abc import Iterator

from osc_containers.archive.layout import layout_of
from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity, from_problem
from osc_containers.errors import DescriptionError
from osc_containers.formats import cpio
from osc_containers.formats.human import count, size
from osc_containers.fs import lfs_pointer
from osc_containers.inject import bundle
from osc_containers.lock.archive_names import ARCHIVE_SUFFIX
from osc_containers.lock.lockfile import EMPTY, FILE_NAME, Lock
from osc_containers.obs import hints
from osc_containers.obs.selection import default_architectures, image_requests, of_entries
from osc_containers.oci.reference import Reference


def check(context: Context) -> Iterator[Finding]:
    """Compare the descriptions with the lock, and the lock with the archives."""
    try:
        images = [(item, arch) for item in image_requests(context.request) for arch in item.architectures]
    except DescriptionError:  # reported by the check of the layout
        return
    yield from _bundles(context)
    if context.lock is None:
        if images and context.is_set_up and context.package.find(FILE_NAME) is None:
            why = "missing: no container is pinned or downloaded yet"
            yield _finding(Severity.ERROR, "lock", FILE_NAME, why, context.prefetch_command)
        return
    for item, arch in images:
        if context.lock.image_for(item.reference, arch) is None:
            file, _, line = item.where.rpartition(":")
            why = f"{item.reference} for {arch} is not in {FILE_NAME}"
            yield _finding(Severity.ERROR, "lock", file, why, context.prefetch_command, line=int(line))
    yield from _archives(context.lock, context)
    # If no description could be read, everything in the lock would look unused.
    if context.request.descriptions:
        yield from _unused_references(context.lock, {item.reference for item, _ in images}, context)


def _unused_references(lock: Lock, references: set[Reference], context: Context) -> Iterator[Finding]:
    """Find references in the lock that neither the options of this run nor `_service` ask for."""
    path = context.package.find(FILE_NAME)
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()] if path else []
    service_request = of_entries(context.package, context.prefetches())
    architectures = default_architectures(service_request, lock)
    service_images = image_requests(service_request.with_default_architectures(architectures))
    for reference in lock.references:
        if reference not in {*references, *(item.reference for item in service_images)}:
            key = f'"{reference}": {{'
            why = f"{reference} is locked, but no description uses it; the next prefetch removes it and its archives"
            line = lines.index(key) + 1 if key in lines else 0
            yield _finding(Severity.WARNING, "lock", FILE_NAME, why, context.prefetch_command, line=line)


def _bundles(context: Context) -> Iterator[Finding]:
    """Find bundles with other content than they must have, and other cpio archives that obs-build unpacks."""
    package, lock = context.package, context.lock or EMPTY
    request = of_entries(package, entries) if (entries := context.prefetches()) else context.request
    request = request.with_default_architectures(default_architectures(request, lock))
    try:
        for name, why in bundle.list_problems(package, request, lock):
            fix = context.prefetch_command if context.is_bundled else hints.removal_of(package.directory, name)
            yield _finding(Severity.ERROR, "archive", name, why, fix)
    except DescriptionError as error:
        yield from (from_problem(problem, "archive") for problem in error.problems)
    for name, why in bundle.list_intrusions(package, request):
        yield _finding(Severity.WARNING, "archive", name, why)


def _archives(lock: Lock, context: Context) -> Iterator[Finding]:
    """Find archives that are missing, have another size than in the lock, or are not in the lock."""
    package = context.package
    images = {
        name: (reference, layout_of(lock.references[reference].claim(reference, arch)).size)
        for (reference, arch), name in lock.archive_names().items()
    }
    if context.is_bundled:
        if images and package.find(cpio.FILE_NAME) is None:
            why = f"missing, but {FILE_NAME} pins {count(len(images), 'image')} for it"
            yield _finding(Severity.ERROR, "archive", cpio.FILE_NAME, why, context.prefetch_command)
        return
    for name, (reference, expected_size) in images.items():
        path = package.find(name)
        if path is None:
            why = f"missing, but {FILE_NAME} lists it for {reference}"
            yield _finding(Severity.ERROR, "archive", name, why, context.prefetch_command)
        elif lfs_pointer.is_pointer_file(path):
            pass  # reported by the check of the files
        elif path.stat().st_size != expected_size:
            why = (
                f"got {path.stat().st_size} bytes, expected {expected_size} for what {FILE_NAME} pins; it is truncated "
                "or from another prefetch"
            )
            yield _finding(Severity.ERROR, "archive", name, why, context.prefetch_command)
        # This matters only to packagers who want to change to inject=source.
        if expected_size > cpio.SIZE_LIMIT:
            why = f"{size(expected_size)} are too large for a member of a cpio archive: inject=source would fail"
            yield _finding(Severity.INFO, "archive", name, why)
    for path in package.image_paths():
        # Results of an earlier service run are in `.old`, and osc removes them.
        if path.parent == package.directory and path.name.endswith(ARCHIVE_SUFFIX) and path.name not in images:
            removal = hints.removal_of(package.directory, path.name)
            yield _finding(Severity.WARNING, "archive", path.name, f"not listed in {FILE_NAME}: remove it", removal)


def _finding(severity: Severity, check: str, file: str, why: str, fix: str = "", *, line: int = 0) -> Finding:
    return Finding(severity=severity, check=check, file=file, line=line, why=why, fix=fix)
