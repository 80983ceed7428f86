"""Offline verification: every archive, member by member, against the lock.

An archive has only one right form (see `archive`), so it is compared with that byte by byte: what a tar could hide in
links, duplicate members, extended headers or trailing data is a difference like any other.
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

_AT_ONCE = 2
_ADVICE = "run the prefetch again and commit what it writes"


def check_archives(package: Package, images: Iterable[tuple[Reference, str, LockedImage]]) -> tuple[str, ...]:
    """Return every problem of the archives of `images`: reference, architecture and what is locked of each."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # who interrupts it here waits for no archive to be read to its end
        found = pool.map(lambda item: check_archive(package, *item), images)
    return tuple(problem for problems in found for problem in problems)


def check_archive(package: Package, reference: Reference, arch: str, locked: LockedImage) -> tuple[str, ...]:
    """Return the problems of one archive; none if it is exactly what the lock says."""
    name = locked.archive.name
    location = find.find_archive(package, reference, locked)
    if location is None:
        return (f"{name}: not there, but the lock names it for {reference} ({arch}); {_ADVICE}",)
    try:
        with location.path.open("rb") as file:
            _check(
                FileSlice(file.fileno(), location.offset), location.size, lay_out(locked.image, reference), arch, locked
            )
    except ValueError as error:
        return (f"{name}: {error}; {_ADVICE}",)
    except OSError as error:
        return (f"{name}: {error.strerror}",)
    return ()


def _check(place: FileSlice, size: int, layout: Layout, arch: str, locked: LockedImage) -> None:
    if layout.size != locked.archive.size:
        raise ValueError(f"the lock says {locked.archive.size} bytes, but what it pins makes {layout.size}")
    if size != layout.size:
        raise ValueError(f"got {size} bytes, expected {layout.size}; it is truncated or another file")
    whole = hashlib.sha256()
    for member in layout.members:
        _check_member(place, member, whole)
    whole.update(place.read(layout.members[-1].end, layout.size))
    if whole.hexdigest() != locked.archive.sha256:
        raise ValueError(f"got sha256 {whole.hexdigest()}, expected {locked.archive.sha256}")
    _check_manifest(place, layout, arch, locked)


def _check_member(place: FileSlice, member: Member, whole: "hashlib._Hash") -> None:
    header = place.read(member.start, member.offset)
    if header != member.header:
        raise ValueError(
            f"member {member.name} at byte {member.start}: not its header; it is damaged or another archive"
        )
    whole.update(header)
    content = member.digest.hasher()
    for chunk in place.chunks(member.offset, member.offset + member.size):
        content.update(chunk)
        whole.update(chunk)
    if content.hexdigest() != member.digest.hex:
        got = Digest(member.digest.algorithm, content.hexdigest())
        raise ValueError(f"member {member.name}: got {got}, expected {member.digest}; it is damaged")
    padding = place.read(member.offset + member.size, member.end)
    if padding.strip(b"\0"):
        raise ValueError(f"member {member.name}: got data after its end, expected zeros")
    whole.update(padding)


def _check_manifest(place: FileSlice, layout: Layout, arch: str, locked: LockedImage) -> None:
    """Compare the lock with the manifest in the archive, and the architecture with the configuration."""
    places = {member.digest: member for member in layout.blobs()}
    raw = _content(place, places[locked.image.manifest.digest], MANIFEST_LIMIT)
    manifest = parse_document(raw, locked.image.manifest.media_type, "manifest")
    if not isinstance(manifest, Manifest):
        raise ValueError("manifest: got an index, expected the manifest of one image")
    if manifest.media_type != locked.image.manifest.media_type:
        raise ValueError(
            f"manifest: its media type is {manifest.media_type!r}, but the lock says "
            f"{locked.image.manifest.media_type[:120]!r}"
        )
    if (manifest.config, manifest.layers) != (locked.image.config, locked.image.layers):
        raise ValueError("manifest: its config and layers are not those of the lock")
    offered = platform_of(_content(place, places[manifest.config.digest], CONFIG_LIMIT), "config")
    wanted = platform.of_architecture(arch)
    if platform.rank(wanted, offered) is None:
        raise ValueError(f"it is for {offered}, expected {wanted} ({arch})")


def _content(place: FileSlice, member: Member, limit: int) -> bytes:
    if member.size > limit:
        raise ValueError(f"member {member.name}: got {member.size} bytes, expected at most {limit}")
    return place.read(member.offset, member.offset + member.size)


def check_use(asked: Collection[Reference], lock: Lock) -> tuple[str, ...]:
    """Return a problem for each reference that is locked and not asked for."""
    return tuple(
        f"{FILE_NAME}: {reference} is locked, but no description asks for it; {_ADVICE}"
        for reference in lock.references
        if reference not in asked
    )


def check_coverage(wanted: Iterable[tuple[Reference, str, str]], lock: Lock) -> tuple[str, ...]:
    """Return a problem for each image that is asked for and not locked; items are reference, architecture and place."""
    return tuple(
        f"{where}: {reference} for {arch} is not in the lock; {_ADVICE}"
        for reference, arch, where in wanted
        if lock.image_for(reference, arch) is None
    )
