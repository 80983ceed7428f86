"""Offline verification of all archives against the lock file.

An archive has exactly one valid form (see `layout`), so it is compared with that byte by byte. Everything that a tar
archive could hide in links, duplicate members, extended headers or trailing data is a difference like any other.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from osc_containers.archive import find
from osc_containers.archive.layout import Layout, Member, lay_out
from osc_containers.fs.ranges import FileSlice
from osc_containers.fs.source_file import SourceFile
from osc_containers.lock.lockfile import FILE_NAME, ArchiveFile, Lock, LockedReference
from osc_containers.obs.package import Package
from osc_containers.oci import chain
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

    def check(image: tuple[Reference, str]) -> tuple[str, ...]:
        entry = lock.references[image[0]]
        return check_archive(package, entry, *image, opened.get(entry.images[image[1]].archive.name))

    # An interrupt ends only the wait for these threads. The program then exits without joining them, so it does not
    # take as long as reading the rest of a large archive.
    with ThreadPoolExecutor(_WORKERS) as pool:
        results = pool.map(check, images)
    return tuple(problem for problems in results for problem in problems)


def check_archive(
    package: Package, entry: LockedReference, reference: Reference, arch: str, source: SourceFile | None = None
) -> tuple[str, ...]:
    """Return the problems of one archive; none if it has exactly the locked content, and proves what the lock says.

    The archive is `source` if that is given, otherwise it is looked for in the package.
    """
    archive, claim = entry.images[arch].archive, entry.claim(reference, arch)
    layout = lay_out(claim.image, reference)
    try:
        with ExitStack() as stack:
            if source:
                content, size = FileSlice(source.descriptor, 0), source.status.st_size
            else:
                location = find.find_archive(package, reference, claim.image, archive.name)
                if location is None:
                    return (f"{archive.name}: missing, but locked for {reference} ({arch}); {_ADVICE}",)
                file = stack.enter_context(location.path.open("rb"))
                content, size = FileSlice(file.fileno(), location.offset), location.size
            _check_content(content, size, layout, archive)
            # The bytes are those that the lock describes. This finds locks that were edited, or merged from two.
            chain.check(claim, find.document_reader(content, layout))
    except ValueError as error:
        return (f"{archive.name}: {error}; {_ADVICE}",)
    except OSError as error:
        return (f"{archive.name}: {error.strerror}",)
    return ()


def _check_content(content: FileSlice, size: int, layout: Layout, archive: ArchiveFile) -> None:
    if layout.size != archive.size:
        raise ValueError(f"{FILE_NAME} gives {archive.size} bytes, but the locked blobs make {layout.size}")
    if size != layout.size:
        raise ValueError(f"got {size} bytes, expected {layout.size}; it is truncated or a different file")
    whole = hashlib.sha256()
    for member in layout.members:
        _check_member(content, member, whole)
    end = content.read(layout.members[-1].end, layout.size)
    if end.strip(b"\0"):
        raise ValueError("got data after its last member, expected zeros")
    whole.update(end)
    if whole.hexdigest() != archive.sha256:
        raise ValueError(f"got sha256 {whole.hexdigest()}, expected {archive.sha256}")


def _check_member(archive: FileSlice, member: Member, whole: "hashlib._Hash") -> None:
    """Check header, content and padding of a member, and add them to the hash of the archive."""
    header = archive.read(member.start, member.offset)
    if header != member.header:
        raise ValueError(
            f"member {member.name} at byte {member.start}: unexpected header; it is damaged or a different archive"
        )
    whole.update(header)
    content = member.digest.hasher()
    for chunk in archive.chunks(member.offset, member.offset + member.size):
        content.update(chunk)
        whole.update(chunk)
    if content.hexdigest() != member.digest.hex:
        digest = Digest(member.digest.algorithm, content.hexdigest())
        raise ValueError(f"member {member.name}: got {digest}, expected {member.digest}; it is damaged")
    padding = archive.read(member.offset + member.size, member.end)
    if padding.strip(b"\0"):
        raise ValueError(f"member {member.name}: got data after its end, expected zeros")
    whole.update(padding)


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
