"""Offline verification of all archives against the lock file.

An archive has exactly one valid form (see `layout`), so it is compared with that byte by byte. Everything that a tar
archive could hide in links, duplicate members, extended headers or trailing data is a difference like any other.
"""

import hashlib
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from osc_containers.archive import find
from osc_containers.archive.layout import Layout, Member, lay_out
from osc_containers.fs.ranges import FileSlice
from osc_containers.lock.lockfile import FILE_NAME, Lock, LockedImage
from osc_containers.obs.package import Package
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import CONFIG_LIMIT, MANIFEST_LIMIT, Manifest, parse_document, platform_of
from osc_containers.oci.reference import Reference

_WORKERS = 2
"""Archives that are read at the same time."""
_ADVICE = "run the prefetch again and commit the result"


def check_archives(package: Package, images: Iterable[tuple[Reference, str, LockedImage]]) -> tuple[str, ...]:
    """Return all problems of the archives of `images`, which are tuples of reference, architecture and lock entry."""
    # An interrupt ends only the wait for these threads. The program then exits without joining them, so it does not
    # take as long as reading the rest of a large archive.
    with ThreadPoolExecutor(_WORKERS) as pool:
        results = pool.map(lambda item: check_archive(package, *item), images)
    return tuple(problem for problems in results for problem in problems)


def check_archive(package: Package, reference: Reference, arch: str, locked: LockedImage) -> tuple[str, ...]:
    """Return the problems of one archive; none if it has exactly the locked content."""
    name = locked.archive.name
    location = find.find_archive(package, reference, locked)
    if location is None:
        return (f"{name}: missing, but locked for {reference} ({arch}); {_ADVICE}",)
    layout = lay_out(locked.image, reference)
    try:
        with location.path.open("rb") as file:
            _check_content(FileSlice(file.fileno(), location.offset), location.size, layout, arch, locked)
    except ValueError as error:
        return (f"{name}: {error}; {_ADVICE}",)
    except OSError as error:
        return (f"{name}: {error.strerror}",)
    return ()


def _check_content(archive: FileSlice, size: int, layout: Layout, arch: str, locked: LockedImage) -> None:
    if layout.size != locked.archive.size:
        raise ValueError(f"{FILE_NAME} gives {locked.archive.size} bytes, but the locked blobs make {layout.size}")
    if size != layout.size:
        raise ValueError(f"got {size} bytes, expected {layout.size}; it is truncated or a different file")
    whole = hashlib.sha256()
    for member in layout.members:
        _check_member(archive, member, whole)
    whole.update(archive.read(layout.members[-1].end, layout.size))
    if whole.hexdigest() != locked.archive.sha256:
        raise ValueError(f"got sha256 {whole.hexdigest()}, expected {locked.archive.sha256}")
    _check_manifest(archive, layout, arch, locked)


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


def _check_manifest(archive: FileSlice, layout: Layout, arch: str, locked: LockedImage) -> None:
    """Compare the manifest in the archive with the lock, and the platform in the configuration with `arch`.

    The bytes are those that the lock describes. This finds lock files that were edited, or merged from two versions.
    """
    members = {member.digest: member for member in layout.blobs()}
    raw = _read_blob(archive, members[locked.image.manifest.digest], MANIFEST_LIMIT)
    manifest = parse_document(raw, locked.image.manifest.media_type, "manifest")
    if not isinstance(manifest, Manifest):
        raise ValueError("manifest: got an index, expected the manifest of an image")
    if manifest.media_type != locked.image.manifest.media_type:
        raise ValueError(
            f"manifest: its media type is {manifest.media_type!r}, but {FILE_NAME} has "
            f"{locked.image.manifest.media_type[:120]!r}"
        )
    if (manifest.config, manifest.layers) != (locked.image.config, locked.image.layers):
        raise ValueError(f"manifest: its config and layers differ from those in {FILE_NAME}")
    candidate = platform_of(_read_blob(archive, members[manifest.config.digest], CONFIG_LIMIT), "config")
    target = platform.of_architecture(arch)
    if platform.rank(target, candidate) is None:
        raise ValueError(f"the image is for {candidate}, expected {target} ({arch})")


def _read_blob(archive: FileSlice, member: Member, limit: int) -> bytes:
    if member.size > limit:
        raise ValueError(f"member {member.name}: got {member.size} bytes, expected at most {limit}")
    return archive.read(member.offset, member.offset + member.size)


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
