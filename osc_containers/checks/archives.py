"""The lock and the archives, as far as their names and sizes tell; `verify` reads every byte."""

from collections.abc import Iterator

from osc_containers.checks.context import Subject
from osc_containers.checks.finding import Finding, Severity
from osc_containers.errors import DescriptionError
from osc_containers.formats import cpio
from osc_containers.formats.human import count, size
from osc_containers.lock.archive_names import ARCHIVE_SUFFIX
from osc_containers.lock.lockfile import FILE_NAME, Lock
from osc_containers.obs import working_copy
from osc_containers.obs.selection import default_architectures, of_entries, wanted
from osc_containers.oci.reference import Reference


def check(subject: Subject) -> Iterator[Finding]:
    """Compare the descriptions with the lock, and the lock with the archives."""
    try:
        images = [(item, arch) for item in wanted(subject.request) for arch in item.architectures]
    except DescriptionError:  # said by the check of the layout
        return
    if subject.lock is None:
        if images and subject.package.find(FILE_NAME) is None:
            why = "not there: nothing is pinned and fetched yet"
            yield Finding(severity=Severity.ERROR, check="lock", file=FILE_NAME, why=why, fix=subject.prefetch)
        return
    for item, arch in images:
        if subject.lock.image_for(item.reference, arch) is None:
            file, _, line = item.where.rpartition(":")
            why = f"{item.reference} for {arch} is not in {FILE_NAME}"
            yield Finding(
                severity=Severity.ERROR, check="lock", file=file, line=int(line), why=why, fix=subject.prefetch
            )
    yield from _archives(subject.lock, subject)
    if subject.request.descriptions:  # else they could not be read, and nobody knows what they ask for
        yield from _unwanted(subject.lock, {item.reference for item, _ in images}, subject)


def _unwanted(lock: Lock, asked: set[Reference], subject: Subject) -> Iterator[Finding]:
    lines = _lines(subject)
    told = of_entries(subject.package, subject.prefetches())
    besides = wanted(told.with_default_architectures(default_architectures(told, lock)))
    for reference in lock.references:
        if reference not in {*asked, *(item.reference for item in besides)}:
            why = f"{reference} is locked, but no description asks for it; a prefetch removes it and its archives"
            yield Finding(
                severity=Severity.WARNING,
                check="lock",
                file=FILE_NAME,
                line=lines.get(f'"{reference}": {{', 0),
                why=why,
                fix=subject.prefetch,
            )


def _lines(subject: Subject) -> dict[str, int]:
    """Return the numbers of the lock's lines by what stands on them."""
    path = subject.package.find(FILE_NAME)
    text = path.read_text("utf-8") if path else ""
    return {line.strip(): number for number, line in reversed(list(enumerate(text.splitlines(), 1)))}


def _archives(lock: Lock, subject: Subject) -> Iterator[Finding]:
    """Find archives that are missing, are not those that are locked, or have nothing to do with the lock."""
    expected = {locked.archive.name: (reference, locked) for reference, _, locked in lock.images()}
    if subject.is_bundled:
        if expected and subject.package.find(cpio.FILE_NAME) is None:
            why = f"not there, but {FILE_NAME} pins {count(len(expected), 'image')} for it"
            yield _archive(Severity.ERROR, cpio.FILE_NAME, why, subject.prefetch)
        return
    for name, (reference, locked) in expected.items():
        path = subject.package.find(name)
        if path is None:
            yield _archive(
                Severity.ERROR, name, f"not there, but {FILE_NAME} names it for {reference}", subject.prefetch
            )
        elif path.stat().st_size != locked.archive.size:
            got = path.stat().st_size
            why = f"got {got} bytes, but {FILE_NAME} says {locked.archive.size}: it is truncated or of another day"
            yield _archive(Severity.ERROR, name, why, subject.prefetch)
        if locked.archive.size > cpio.SIZE_LIMIT:
            why = f"{size(locked.archive.size)} are too many for a member of a cpio archive: inject=source would fail"
            yield _archive(Severity.INFO, name, why)
    own = (path.name for path in subject.package.archives() if path.parent == subject.package.directory)
    for name in own:
        if name.endswith(ARCHIVE_SUFFIX) and name not in expected:
            yield _archive(
                Severity.WARNING,
                name,
                f"{FILE_NAME} does not name it: remove it",
                working_copy.removal_of(subject.package.directory, name),
            )


def _archive(severity: Severity, name: str, why: str, fix: str = "") -> Finding:
    return Finding(severity=severity, check="archive", file=name, why=why, fix=fix)
