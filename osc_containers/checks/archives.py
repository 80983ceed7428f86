"""Checks of the lock, of names and sizes of the files that hold images, and of bundles; `verify` reads every byte."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from osc_containers.archive.layout import layout_of
from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity, from_problem
from osc_containers.errors import DescriptionError
from osc_containers.formats import cpio
from osc_containers.formats.human import count, size
from osc_containers.fs import lfs_pointer
from osc_containers.inject import bundle
from osc_containers.lock import archive_names
from osc_containers.lock.archive_names import ARCHIVE_SUFFIX
from osc_containers.lock.lockfile import EMPTY, FILE_NAME, Lock
from osc_containers.obs import hints, service_file
from osc_containers.obs.parameters import PREFETCH
from osc_containers.obs.selection import default_architectures, image_requests, of_entries
from osc_containers.oci.chain import Claim
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference

_MUCH = 64 << 20
"""Bytes that another layout must save to be worth a finding."""
_SAVING = 0.75
"""What it may leave of all bytes at most."""
_MANY = 500
"""Files of blobs; more of them are slow to list and to transfer one by one."""


def check(context: Context) -> Iterator[Finding]:
    """Compare the descriptions with the lock, and the lock with the files."""
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
    yield from _files(context.lock, context)
    # If no description could be read, everything in the lock would look unused.
    if context.request.descriptions:
        yield from _unused_references(context.lock, {item.reference for item, _ in images}, context)


def _unused_references(lock: Lock, references: set[Reference], context: Context) -> Iterator[Finding]:
    """Find references in the lock that neither the options of this run nor `_service` ask for."""
    path = context.package.find(FILE_NAME)
    texts = path.read_text("utf-8").splitlines() if path else []
    # Reversed, so that of equal lines the first one remains.
    lines = {text.strip(): number for number, text in reversed(list(enumerate(texts, start=1)))}
    service_request = of_entries(context.package, context.prefetches())
    architectures = default_architectures(service_request, lock)
    service_images = image_requests(service_request.with_default_architectures(architectures))
    used = references.union(item.reference for item in service_images)
    for reference in lock.references:
        if reference not in used:
            key = f'"{reference}": {{'
            why = f"{reference} is locked, but no description uses it; the next prefetch removes it and its archives"
            yield _finding(Severity.WARNING, "lock", FILE_NAME, why, context.prefetch_command, line=lines.get(key, 0))


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


def _files(lock: Lock, context: Context) -> Iterator[Finding]:
    """Find files that are missing, have another size than the lock says, or are not in the lock."""
    claims = {name: lock.references[reference].claim(reference, arch) for (reference, arch), name in _names(lock)}
    if context.is_bundled:
        if claims and context.package.find(cpio.FILE_NAME) is None:
            why = f"missing, but {FILE_NAME} pins {count(len(claims), 'image')} for it"
            yield _finding(Severity.ERROR, "archive", cpio.FILE_NAME, why, context.prefetch_command)
        return
    present = context.package.image_files()
    blobs = {blob.digest: blob for claim in claims.values() for blob in claim.image.blobs}
    blob_files = {archive_names.blob(digest): blob for digest, blob in blobs.items()}
    own = present.keys() & blob_files.keys()
    # If no file is there, the parameter tells which form is missing.
    uses_blobs = bool(own) or service_file.has_blobs(context.entries_of(PREFETCH))
    missing: dict[str, Claim] = {}
    for name, claim in claims.items():
        if name in present:
            yield from _size(name, present[name], layout_of(claim).size, context)
        elif uses_blobs:
            # A blob that several images lack is reported for the first of them.
            for needed in {archive_names.blob(blob.digest) for blob in claim.image.blobs} - present.keys():
                missing.setdefault(needed, claim)
        else:
            missing[name] = claim
        # This matters only to packagers who want to change to inject=source.
        if (expected := layout_of(claim).size) > cpio.SIZE_LIMIT:
            why = f"{size(expected)} are too large for a member of a cpio archive: inject=source would fail"
            yield _finding(Severity.INFO, "archive", name, why)
    for name, claim in sorted(missing.items(), key=lambda item: item[0]):
        why = f"missing, but {FILE_NAME} lists it for {claim.reference}"
        yield _finding(Severity.ERROR, "archive", name, why, context.prefetch_command)
    for name in sorted(own):
        yield from _size(name, present[name], blob_files[name].size, context)
    yield from _unlisted(claims.keys() | blob_files.keys(), context)
    yield from _layout(claims, blob_files, present.keys(), context)


def _names(lock: Lock) -> Iterable[tuple[tuple[Reference, str], str]]:
    return lock.archive_names().items()


def _size(name: str, path: Path, expected: int, context: Context) -> Iterator[Finding]:
    if path.is_symlink():  # as git-annex keeps files; builds and verify refuse it
        yield _finding(
            Severity.ERROR, "archive", name, "got a symbolic link, expected a file", "replace it with the file"
        )
        return
    found = path.stat().st_size
    if found != expected and not lfs_pointer.is_pointer_file(path):  # reported by the check of the files
        pinned = f"{expected} for what {FILE_NAME} pins"
        why = f"got {found} bytes, expected {pinned}; it is truncated or from another prefetch"
        yield _finding(Severity.ERROR, "archive", name, why, context.prefetch_command)


def _unlisted(names: Collection[str], context: Context) -> Iterator[Finding]:
    package = context.package
    for path in package.image_paths():
        # Results of an earlier service run are in `.old`, and osc removes them.
        if path.parent != package.directory or path.name in names or path.name.startswith("_service:"):
            continue
        if path.name.endswith(ARCHIVE_SUFFIX) or archive_names.digest_of_blob(path.name):
            removal = hints.removal_of(package.directory, path.name)
            yield _finding(Severity.WARNING, "archive", path.name, f"not listed in {FILE_NAME}: remove it", removal)


def _layout(
    claims: Mapping[str, Claim], blob_files: Mapping[str, Descriptor], present: Collection[str], context: Context
) -> Iterator[Finding]:
    """Find a package with both layouts, and one for which the other layout would be better."""
    archives, blobs = claims.keys() & present, blob_files.keys() & present
    if archives and blobs:
        why = (
            f"there are {count(len(archives), 'archive')} and {count(len(blobs), 'blob')} of the same images, as after "
            "a merge; the next prefetch removes one form"
        )
        yield _finding(Severity.WARNING, "layout", sorted(blobs)[0], why, context.prefetch_command)
        return
    whole = sum(layout_of(claim).size for claim in claims.values())
    unique = sum(blob.size for blob in blob_files.values())
    if archives and whole - unique >= _MUCH and unique <= whole * _SAVING:
        why = (
            f"the archives have {size(whole)}, but only {size(unique)} without repetitions: with layout=blobs, the "
            "package stores common layers once, and an update uploads only new ones"
        )
        fix = '<param name="layout">blobs</param>'
        yield _finding(Severity.INFO, "layout", FILE_NAME, why, fix)
    if len(blobs) > _MANY:
        why = (
            f"the package has {len(blobs)} files of blobs, and more than {_MANY} make osc and OBS slow; with "
            f"layout=archives it would have {len(claims)}, of {size(whole)} instead of {size(unique)}"
        )
        fix = '<param name="layout">archives</param>'
        yield _finding(Severity.WARNING, "layout", FILE_NAME, why, fix)


def _finding(severity: Severity, check: str, file: str, why: str, fix: str = "", *, line: int = 0) -> Finding:
    return Finding(severity=severity, check=check, file=file, line=line, why=why, fix=fix)
