"""Pinning: from references that may move to images that cannot.

Nothing is fetched here but manifests, indexes and configurations.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from osc_containers.errors import Error, LockError, RegistryError, VerificationError
from osc_containers.lock.lockfile import Lock, LockedReference
from osc_containers.obs.selection import ImageRequest
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor, Index, Manifest, created_of, platform_of, select
from osc_containers.oci.reference import Reference
from osc_containers.sources.interface import ATTEMPTS, ImageSource, Stream

_INDEX_DEPTH = 4
_AT_ONCE = 4


class PinnedImage(NamedTuple):
    """The image that a reference has for one architecture; `small` has the bytes of its manifest and configuration."""

    image: Image
    created: str
    small: Mapping[Digest, bytes]


class ResolvedReference(NamedTuple):
    """What a reference named just now, with its image for each architecture."""

    reference: Reference
    origin: str
    digest: Digest
    media_type: str
    images: Mapping[str, PinnedImage]


def pin(
    wanted: Sequence[ImageRequest], open_source: Callable[[str], ImageSource], lock: Lock
) -> tuple[ResolvedReference, ...]:
    """Ask for every reference what it names now; what `lock` already says of the same digest is not asked again.

    :raises Error: some could not be pinned; all of them are named, each with its place in the description.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        tasks = [pool.submit(_pin_one, item, open_source, lock.references.get(item.reference)) for item in wanted]
    pins: list[ResolvedReference] = []
    errors: list[tuple[str, Error]] = []
    for item, task in zip(wanted, tasks, strict=True):
        try:
            pins.append(task.result())
        except Error as error:
            errors.append((item.where, error))
    if errors:
        kind = type(errors[0][1])
        raise kind(*(f"{where}: {problem}" for where, error in errors for problem in error.problems))
    return tuple(pins)


def _pin_one(
    wanted: ImageRequest, open_source: Callable[[str], ImageSource], locked: LockedReference | None
) -> ResolvedReference:
    source = open_source(wanted.origin)
    digest = wanted.reference.digest
    if locked:
        digest = digest or source.resolve(wanted.reference)
        if locked.digest == digest and (known := _from_lock(wanted, locked)):
            return known
    top = source.manifest(wanted.reference, digest)
    try:
        images = {arch: _pin_image(wanted.reference, top, arch, source) for arch in wanted.architectures}
    except ValueError as error:
        raise RegistryError(str(error)) from None
    return ResolvedReference(
        reference=wanted.reference,
        origin=wanted.origin,
        digest=digest or top.digest,
        media_type=top.media_type,
        images=images,
    )


def _from_lock(wanted: ImageRequest, locked: LockedReference) -> ResolvedReference | None:
    if any(arch not in locked.images for arch in wanted.architectures):
        return None
    known = {arch: locked.images[arch] for arch in wanted.architectures}
    return ResolvedReference(
        reference=wanted.reference,
        origin=wanted.origin,
        digest=locked.digest,
        media_type=locked.media_type,
        images={arch: PinnedImage(image=item.image, created=item.created, small={}) for arch, item in known.items()},
    )


def _pin_image(reference: Reference, top: Manifest | Index, arch: str, source: ImageSource) -> PinnedImage:
    wanted = platform.of_architecture(arch)
    current = top
    for _ in range(_INDEX_DEPTH):
        if isinstance(current, Manifest):
            break
        entry = select(current, wanted, str(reference))
        current = source.manifest(reference, entry.digest)
    else:
        raise ValueError(f"{reference}: got an index inside {_INDEX_DEPTH - 1} others, expected a manifest")
    config = read_blob(source, reference, current.config)
    offered = platform_of(config, f"{reference}: config")
    if platform.rank(wanted, offered) is None:
        raise ValueError(f"{reference}: no image for {wanted} ({arch}); it is for {offered} only")
    return PinnedImage(
        image=Image.from_manifest(current),
        created=created_of(config, f"{reference}: config"),
        small={current.digest: current.raw, current.config.digest: config},
    )


def read_blob(source: ImageSource, reference: Reference, blob: Descriptor) -> bytes:
    """Read a small blob whole and verify it; one that arrives damaged is asked for again.

    :raises VerificationError: its bytes are not those of the descriptor.
    """
    buffer = memoryview(bytearray(blob.size + 1))
    for attempt in range(ATTEMPTS):
        with source.blob(reference, blob, is_retry=attempt > 0) as stream:
            length = _fill(stream, buffer)
        content = bytes(buffer[:length])
        if length == blob.size and blob.digest.matches(content):
            return content
    raise VerificationError(
        f"{reference}: blob {blob.digest}: got {length} bytes of {Digest.of(content, blob.digest.algorithm)}, "
        f"expected {blob.size}, {ATTEMPTS} times; the registry or something before it damages it"
    )


def _fill(stream: Stream, buffer: memoryview) -> int:
    length = 0
    while length < len(buffer) and (count := stream.readinto(buffer[length:])):
        length += count
    return length


def from_lock(wanted: Iterable[ImageRequest], lock: Lock) -> tuple[ResolvedReference, ...]:
    """Return the pins that the lock has for what is wanted.

    :raises LockError: it does not have all; each that is missing is named.
    """
    items = list(wanted)
    problems = [
        f"{item.where}: {item.reference} for {arch} is not in the lock; run the prefetch without 'locked'"
        for item in items
        for arch in item.architectures
        if item.reference not in lock.references or arch not in lock.references[item.reference].images
    ]
    if problems:
        raise LockError(*problems)
    return tuple(pin for item in items if (pin := _from_lock(item, lock.references[item.reference])))
