"""Resolving references, which can move, to images, which cannot.

Only manifests, indexes and configurations are downloaded here.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

from osc_containers.archive.blobs import PackageBlobs
from osc_containers.errors import ArtifactError, Error, LockError, RegistryError, VerificationError
from osc_containers.lock.lockfile import Lock, LockedImage, LockedReference
from osc_containers.lock.signature import RecordedSignature
from osc_containers.obs.package import Package
from osc_containers.obs.selection import ImageRequest
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor, Index, Manifest, candidates, created_of, platform_of
from osc_containers.oci.platform import Platform
from osc_containers.oci.reference import Reference
from osc_containers.sources.interface import ATTEMPTS, ImageSource

logger = logging.getLogger(__name__)

# Together with `_ENTRY_LIMIT`, this bounds the requests that a hostile index can cause.
_INDEX_DEPTH = 3
_ENTRY_LIMIT = 8
"""Entries of an index that are tried; only artifacts that are not marked as such come before an image."""
_PARALLEL_REQUESTS = 8


class PinnedImage(NamedTuple):
    """The image of a reference for one architecture; `documents` may have the bytes of its documents.

    `warning` says what is unusual about the image, and is empty if nothing is.
    """

    image: Image
    created: str
    documents: Mapping[Digest, bytes]
    warning: str = ""
    signatures: tuple[RecordedSignature, ...] = ()

    @classmethod
    def from_lock(cls, locked: LockedImage) -> "PinnedImage":
        """Return a locked image."""
        return cls(image=locked.image, created=locked.created, documents={}, signatures=locked.signatures)


class ResolvedReference(NamedTuple):
    """The digest that a reference resolved to, with the image for each architecture.

    `location` says where to get it (containers-transports(5)).
    """

    reference: Reference
    location: str
    digest: Digest
    media_type: str
    images: Mapping[str, PinnedImage]


class Checked(NamedTuple):
    """The signatures of each image that met the policies, and their keys by id."""

    signatures: Mapping[tuple[Reference, str], tuple[RecordedSignature, ...]]
    keys: Mapping[str, bytes]

    def apply(self, resolved: Iterable[ResolvedReference]) -> tuple[ResolvedReference, ...]:
        """Return the references with their signatures. What the lock has stays where the policies ask for none."""
        result = []
        for each in resolved:
            images = {
                arch: pinned._replace(signatures=self.signatures.get((each.reference, arch)) or pinned.signatures)
                for arch, pinned in each.images.items()
            }
            result.append(each._replace(images=images))
        return tuple(result)


def resolve(
    requests: Sequence[ImageRequest], open_source: Callable[[str], ImageSource], lock: Lock
) -> tuple[ResolvedReference, ...]:
    """Ask for the current digest of every reference, and for its image.

    If the digest is still the one in `lock`, the images are taken from there and not asked for.

    :raises Error: some references could not be resolved; each is named with its place in the description.
    """
    # The block ends when all have ended, so that every problem is reported, and not only the first one.
    with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
        tasks = [
            pool.submit(_resolve_one, request, open_source, lock.references.get(request.reference))
            for request in requests
        ]
    resolved: list[ResolvedReference] = []
    errors: list[tuple[str, Error]] = []
    for request, task in zip(requests, tasks, strict=True):
        try:
            resolved.append(task.result())
        except Error as error:
            errors.append((request.where, error))
    if errors:
        kind = type(errors[0][1])
        raise kind(*(f"{where}: {problem}" for where, error in errors for problem in error.problems))
    for each in resolved:
        for arch, pinned in each.images.items():
            if pinned.warning:
                logger.warning("%s (%s): %s", each.reference, arch, pinned.warning)
    return tuple(resolved)


def resolved_from_lock(requests: Iterable[ImageRequest], lock: Lock) -> tuple[ResolvedReference, ...]:
    """Return what the lock says of the requests.

    :raises LockError: it does not cover them all; each missing image is named.
    """
    entries = [(request, lock.references.get(request.reference)) for request in requests]
    problems = [
        f"{request.where}: {request.reference} for {arch} is not in the lock; run the prefetch without 'locked'"
        for request, entry in entries
        for arch in request.architectures
        if entry is None or arch not in entry.images
    ]
    if problems:
        raise LockError(*problems)
    return tuple(_from_lock(request, entry) for request, entry in entries if entry)


def trusted_entries(package: Package, old: Lock, requests: Iterable[ImageRequest]) -> Lock:
    """Return the lock entries that the archives prove.

    Others may come from a merge of two locks, or from somebody who wants another image in the place of the pinned one.
    """
    with ExitStack() as stack:
        blobs = PackageBlobs(package, old, stack)
        return Lock(
            references={
                request.reference: entry
                for request in requests
                if (entry := old.references.get(request.reference))
                and all(
                    blobs.proves(entry.claim(request.reference, arch))
                    for arch in entry.images
                    if arch in request.architectures
                )
            }
        )


def _resolve_one(
    request: ImageRequest, open_source: Callable[[str], ImageSource], entry: LockedReference | None
) -> ResolvedReference:
    source = open_source(request.location)
    if entry and _is_locked(request, entry, source.resolve(request.reference)):
        return _from_lock(request, entry)
    # The digest was only claimed. What the registry sends counts, and may be what is locked.
    document = source.manifest(request.reference)
    # A reference may have a digest of another algorithm; that of the document is always a SHA-256.
    digest = request.reference.digest or document.digest
    if entry and _is_locked(request, entry, digest):
        return _from_lock(request, entry)
    try:
        images = {arch: _pin_image(request.reference, document, arch, source) for arch in request.architectures}
    except ValueError as error:
        raise RegistryError(str(error)) from None
    return ResolvedReference(
        reference=request.reference,
        location=request.location,
        digest=digest,
        media_type=document.media_type,
        images=images,
    )


def _is_locked(request: ImageRequest, entry: LockedReference, digest: Digest) -> bool:
    return entry.digest == digest and all(arch in entry.images for arch in request.architectures)


def _from_lock(request: ImageRequest, entry: LockedReference) -> ResolvedReference:
    return ResolvedReference(
        reference=request.reference,
        location=request.location,
        digest=entry.digest,
        media_type=entry.media_type,
        images={arch: PinnedImage.from_lock(entry.images[arch]) for arch in request.architectures},
    )


def _pin_image(reference: Reference, top: Manifest | Index, arch: str, source: ImageSource) -> PinnedImage:
    target = platform.of_architecture(arch)
    document, indexes, listed = _find_manifest(reference, _ListedDocument(top), target, source)
    config = read_blob(source, reference, document.config)
    offered = platform_of(config, f"{reference}: config")
    try:
        warning = platform.check_config(target, offered, listed=listed, is_chosen=reference.digest == document.digest)
    except ValueError as error:
        raise ValueError(f"{reference}: no image for {target} ({arch}); {error}") from None
    return PinnedImage(
        image=Image.from_documents(document, indexes, target),
        created=created_of(config, f"{reference}: config"),
        documents={
            **{index.digest: index.raw for index in indexes},
            document.digest: document.raw,
            document.config.digest: config,
        },
        warning=warning,
    )


class _ListedDocument(NamedTuple):
    """A document, the indexes that lead to it, outermost first, and the entry for it in the last one."""

    document: Manifest | Index
    indexes: tuple[Index, ...] = ()
    entry: Descriptor | None = None


def _find_manifest(
    reference: Reference, top: _ListedDocument, target: Platform, source: ImageSource
) -> tuple[Manifest, tuple[Index, ...], Platform | None]:
    """Return the manifest for a platform, the indexes that lead to it, and the platform that the last of them lists.

    An index may list artifacts for the same platform, and other indexes (image-spec, image-index.md), as deep as its
    author likes. The first entry that is an image counts.

    :raises ValueError: there is no image for the platform.
    """
    if top.entry and top.entry.digest != top.document.digest:
        problem = f"the index lists the image as {top.entry.digest}, and engines find it by sha256 only"
        raise ValueError(f"{reference}: {problem}; push it again with a current tool")
    if isinstance(top.document, Manifest):
        return top.document, top.indexes, top.entry and top.entry.platform
    if len(top.indexes) == _INDEX_DEPTH:
        raise ValueError(f"{reference}: got an index inside {_INDEX_DEPTH} others, expected a manifest")
    problems = []
    for entry in candidates(top.document, target, str(reference))[:_ENTRY_LIMIT]:
        try:
            document = source.manifest(reference, entry.digest)
            listed = _ListedDocument(document, (*top.indexes, top.document), entry)
            return _find_manifest(reference, listed, target, source)
        except (ArtifactError, ValueError) as error:
            problems.append(str(error).removeprefix(f"{reference}: "))
    raise ValueError(f"{reference}: {'; '.join(problems[:2])}")


def read_blob(source: ImageSource, reference: Reference, blob: Descriptor) -> bytes:
    """Download a small blob and verify it; one that arrives damaged is requested again.

    :raises VerificationError: its bytes do not match the descriptor.
    """
    # One byte of room more than expected shows a blob that is too long.
    buffer = memoryview(bytearray(blob.size + 1))
    for attempt in range(ATTEMPTS):
        length = 0
        with source.blob(reference, blob, is_retry=attempt > 0) as stream:
            while length < len(buffer) and (count := stream.readinto(buffer[length:])):
                length += count
        content = bytes(buffer[:length])
        if length == blob.size and blob.digest.matches(content):
            return content
    raise VerificationError(
        f"{reference}: blob {blob.digest}: got {length} bytes of {Digest.of(content, blob.digest.algorithm)}, "
        f"expected {blob.size}, {ATTEMPTS} times; the registry or a proxy damages it"
    )
