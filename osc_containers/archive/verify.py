"""Offline verification of all archives against the lock file.

An archive has exactly one valid form (see `layout`), so it is compared with that byte by byte. Everything that a tar
archive could hide in links, duplicate members, extended headers or trailing data is a difference like any other.
"""

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from osc_containers.archive import find
from osc_containers.archive.layout import Layout, Member
from osc_containers.fs.ranges import FileSlice
from osc_containers.fs.source_file import SourceFile
from osc_containers.lock.lockfile import FILE_NAME, Lock
from osc_containers.obs.package import Package
from osc_containers.oci import chain
from osc_containers.oci.chain import Claim
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference

_WORKERS = 2
"""Archives that are read at the same time."""
_ADVICE = "run the prefetch again and commit the result"


_NONE: Mapping[str, SourceFile] = {}


def check_archives(
    package: Package,
    lock: Lock,
    images: Iterable[tuple[Reference, str]],
    opened: Mapping[str, SourceFile] = _NONE,
) -> tuple[str, ...]:
    """Return all problems of the archives of `images`: pairs of a reference and an architecture as the lock has it.

    Archives in `opened` are read by their descriptors.
    """
    names = lock.archive_names()

    def check(image: tuple[Reference, str]) -> tuple[str, ...]:
        claim = lock.references[image[0]].claim(*image)
        return check_archive(package, claim, names[image], opened.get(names[image]))

    # An interrupt ends only the wait for these threads. The program then exits without joining them, so it does not
    # take as long as reading the rest of a large archive.
    with ThreadPoolExecutor(_WORKERS) as pool:
        results = pool.map(check, images)
    return tuple(problem for problems in results for problem in problems)


def check_archive(package: Package, claim: Claim, name: str, source: SourceFile | None = None) -> tuple[str, ...]:
    """Return the problems of one archive; none if it has exactly the claimed content, and proves what is claimed.

    The archive is `source` if that is given, otherwise it is looked for in the package.
    """
    layout = find.layout_of(claim)
    try:
        with ExitStack() as stack:
            if source:
                content, size = FileSlice(source.descriptor, 0), source.status.st_size
            else:
                location = find.find_archive(package, claim, name)
                if location is None:
                    return (f"{name}: missing, but locked for {claim.reference} ({claim.arch}); {_ADVICE}",)
                file = stack.enter_context(location.path.open("rb"))
                content, size = FileSlice(file.fileno(), location.offset), location.size
            check_content(content, size, layout)
            # The bytes are those that the lock describes. This finds locks that were edited, or merged from two.
            chain.check(claim, find.document_reader(content, layout))
    except ValueError as error:
        return (f"{name}: {error}; {_ADVICE}",)
    except OSError as error:
        return (f"{name}: {error.strerror}",)
    return ()


def check_content(content: FileSlice, size: int, layout: Layout) -> None:
    """Compare an archive with its only valid form, and hash each blob in it once.

    :raises ValueError: it differs.
    :raises OSError: it cannot be read.
    """
    if size != layout.size:
        raise ValueError(f"got {size} bytes, expected {layout.size}; it is truncated or a different file")
    for member in layout.members:
        _check_member(content, member)
    if content.read(layout.members[-1].end, layout.size).strip(b"\0"):
        raise ValueError("got data after its last member, expected zeros")


def _check_member(archive: FileSlice, member: Member) -> None:
    if archive.read(member.start, member.offset) != member.header:
        raise ValueError(
            f"member {member.name} at byte {member.start}: unexpected header; it is damaged or a different archive"
        )
    algorithm = member.digest.algorithm
    digest = Digest(algorithm, archive.at(member.offset).hash(algorithm, member.size))
    if digest != member.digest:
        raise ValueError(f"member {member.name}: got {digest}, expected {member.digest}; it is damaged")
    if archive.read(member.offset + member.size, member.end).strip(b"\0"):
        raise ValueError(f"member {member.name}: got data after its end, expected zeros")


def check_use(references: Collection[Reference], lock: Lock) -> tuple[str, ...]:
    """Return a problem for each reference in the lock that is not one of `references`."""
    return tuple(
        f"{FILE_NAME}: {reference} is locked, but no description requests it; {_ADVICE}"
        for reference in lock.references
        if reference not in references
    )


def check_coverage(images: Iterable[tuple[Reference, str, str]], lock: Lock) -> tuple[str, ...]:
    """Return a problem for each of `images` that is not locked.

    The images are tuples of reference, architecture and location in a description (`FILE:LINE`).
    """
    return tuple(
        f"{location}: {reference} for {arch} is not in the lock; {_ADVICE}"
        for reference, arch, location in images
        if lock.image_for(reference, arch) is None
    )
