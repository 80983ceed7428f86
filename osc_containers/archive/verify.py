"""Offline verification of all images against the lock file: each blob is hashed once.

An archive has exactly one valid form (see `layout`), so it is compared with that byte by byte. Everything that a tar
archive could hide in links, duplicate members, extended headers or trailing data is a difference like any other.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from osc_containers.archive.blobs import PackageBlobs
from osc_containers.archive.layout import Layout, Member, layout_of
from osc_containers.formats import cpio
from osc_containers.fs.ranges import FileSlice
from osc_containers.fs.source_file import SourceFile
from osc_containers.lock import archive_names
from osc_containers.lock.lockfile import FILE_NAME, Lock
from osc_containers.oci import chain
from osc_containers.oci.chain import Claim
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference

_WORKERS = 2
"""Files that are read at the same time."""
_ADVICE = "run the prefetch again and commit the result"


class _Check(NamedTuple):
    """What is checked of a file, and the name that a problem begins with; `run` raises ValueError or OSError."""

    name: str
    run: Callable[[], None]

    def problem(self) -> str:
        """Return the problem, or an empty string if there is none."""
        try:
            self.run()
        except ValueError as error:
            return f"{self.name}: {error}; {_ADVICE}"
        except OSError as error:
            return f"{self.name}: {error.strerror}"
        return ""


def check_images(blobs: PackageBlobs, images: Iterable[tuple[Reference, str]]) -> tuple[str, ...]:
    """Return all problems of `images`: pairs of a reference and an architecture as the lock has it.

    There are none if the package has every byte as the lock describes it, and the documents prove what the lock says.
    Then everything that `blobs` returns for these images is verified.
    """
    claims = [blobs.lock.references[reference].claim(reference, arch) for reference, arch in images]
    # There may be thousands of claims, each of which is large, so that they are not compared with each other.
    archived = [claim for claim in claims if _name(blobs, claim) in blobs.files]
    others = [claim for claim in claims if _name(blobs, claim) not in blobs.files]
    checks = [_Check(_name(blobs, claim), partial(_check_archive, blobs, claim)) for claim in archived]
    checks += _blob_checks(blobs, claims)
    missing = [problem for claim in others for problem in _find_missing(blobs, claim)]
    # An interrupt ends only the wait for these threads, at the end of the block. The program then exits without joining
    # them, so it does not take as long as reading the rest of a large archive.
    with ThreadPoolExecutor(_WORKERS) as pool:
        problems = pool.map(_Check.problem, checks)
    damage = [problem for problem in problems if problem]
    # A damaged document would break the chain as well, and be reported twice. The chain of an archive was checked with
    # its content.
    chains = [_Check(str(claim.reference), partial(_check_chain, blobs, claim)).problem() for claim in others]
    return (*missing, *damage, *filter(None, chains if not damage else ()))


def _name(blobs: PackageBlobs, claim: Claim) -> str:
    return blobs.names[claim.reference, claim.arch]


def _find_missing(blobs: PackageBlobs, claim: Claim) -> Iterator[str]:
    """Yield a problem if blobs of an image are in no file of the package."""
    missing = blobs.missing(claim)
    if not missing:
        return
    name, more = archive_names.blob(missing[0].digest), f" and {len(missing) - 1} more" if missing[1:] else ""
    has_blobs = any(each.endswith(archive_names.BLOB_SUFFIX) for each in blobs.files)
    what = f"{name}{more}" if has_blobs else _name(blobs, claim)
    yield f"{what}: missing, but locked for {claim.reference} ({claim.arch}); {_ADVICE}"


def _blob_checks(blobs: PackageBlobs, claims: Iterable[Claim]) -> Iterator[_Check]:
    """Yield a check for each blob of these images that is a file, or a part of the bundle."""
    for blob in {blob.digest: blob for claim in claims for blob in claim.image.blobs}.values():
        name = archive_names.blob(blob.digest)
        if name in blobs.files:
            yield _Check(name, partial(_check_blob, blobs, name, blob))
        elif part := blobs.in_bundle(blob.digest):
            yield _Check(f"{cpio.FILE_NAME}: {blob.digest}", partial(check_blob, part, blob))


def _check_blob(blobs: PackageBlobs, name: str, blob: Descriptor) -> None:
    source = blobs.open(name)
    _check_size(source, blob.size)
    check_blob(FileSlice(source.descriptor, 0), blob)


def check_blob(content: FileSlice, blob: Descriptor) -> None:
    """Compare a blob with its digest.

    :raises ValueError: it differs.
    :raises OSError: it cannot be read.
    """
    digest = Digest(blob.digest.algorithm, content.hash(blob.digest.algorithm, blob.size))
    if digest != blob.digest:
        raise ValueError(f"got {digest}, expected {blob.digest}; it is damaged")


def _check_size(source: SourceFile, expected: int) -> None:
    if source.status.st_size != expected:
        raise ValueError(f"got {source.status.st_size} bytes, expected {expected}; it is truncated or a different file")


def _check_chain(blobs: PackageBlobs, claim: Claim) -> None:
    """Check that documents which match their digests prove the claim: a lock may be edited, or merged from two."""
    documents = {each.digest: blobs.document(claim, each) for each in claim.image.documents}
    # Documents that are missing were reported as missing blobs.
    if all(document is not None for document in documents.values()):
        chain.check(claim, lambda each: documents[each.digest] or b"")


def _check_archive(blobs: PackageBlobs, claim: Claim) -> None:
    source, layout = blobs.open(_name(blobs, claim)), layout_of(claim)
    _check_size(source, layout.size)
    check_content(FileSlice(source.descriptor, 0), layout.size, layout)
    _check_chain(blobs, claim)


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
