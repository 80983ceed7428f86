"""The chain of digests from a reference to its image: reference, index, manifest, config and layers.

Each document names the next by its digest. With the bytes of all documents, the whole chain can be checked offline.
"""

from collections.abc import Callable
from typing import NamedTuple

from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import (
    Descriptor,
    Index,
    Manifest,
    candidates,
    created_of,
    engine_choice,
    parse_document,
    platform_of,
)
from osc_containers.oci.platform import Platform
from osc_containers.oci.reference import Reference


class Claim(NamedTuple):
    """What is claimed of a reference: that it resolved to `digest`, and has this image for a kiwi architecture."""

    reference: Reference
    digest: Digest
    media_type: str
    arch: str
    image: Image
    created: str


def check(claim: Claim, read: Callable[[Descriptor], bytes]) -> None:
    """Check every link from the reference to the layers; `read` returns the bytes of a document.

    The entry of an index must be one that a prefetch would select (`candidates`), so that an image for another platform
    cannot take its place.

    :raises ValueError: a link does not hold, or a document is malformed or does not match its descriptor.
    """
    reference, image = claim.reference, claim.image
    if reference.digest and reference.digest != claim.digest:
        raise ValueError(f"the lock has the digest {claim.digest}, expected {reference.digest} as in the reference")
    # The first document must be the one that the reference resolved to.
    top = image.indexes[0] if image.indexes else image.manifest
    if (top.digest, top.media_type) != (claim.digest, claim.media_type):
        kind = "index" if image.indexes else "manifest"
        raise ValueError(
            f"its {kind} is {top.digest} of type {top.media_type[:120]!r}, but the lock says that the reference "
            f"resolved to {claim.digest} of type {claim.media_type[:120]!r}"
        )
    target = platform.of_architecture(claim.arch)
    listed: Platform | None = None
    # An index may list another index, which may list the manifest.
    for number, descriptor in enumerate(image.indexes):
        document = _parse(descriptor, read, "index")
        if not isinstance(document, Index):
            raise ValueError("index: got a manifest, expected an index")
        # The document that this index has to list: the next index, or the manifest after the last one.
        following = (*image.indexes[number + 1 :], image.manifest)[0]
        # Of two entries with the same digest the first one counts, as in a prefetch; it replaces the later one here.
        entries = {entry.digest: entry for entry in reversed(candidates(document, target, "index"))}
        if following.digest not in entries:
            available = " or ".join(map(str, reversed(entries)))[:400]
            raise ValueError(f"index: for {target} it has {available}, but the lock says {following.digest}")
        listed = entries[following.digest].platform
        # The lock must have `start` if, and only if, an engine would take another entry than the manifest.
        is_choice = engine_choice(document, target) == following.digest
        if following == image.manifest and is_choice == image.starts_at_manifest:
            problem = "an engine takes the manifest" if is_choice else "an engine takes another entry than the manifest"
            raise ValueError(f"index: {problem}, but the lock says otherwise")
    manifest = _parse(image.manifest, read, "manifest")
    if not isinstance(manifest, Manifest):
        raise ValueError("manifest: got an index, expected the manifest of one image")
    if (manifest.config, manifest.layers) != (image.config, image.layers):
        raise ValueError("manifest: its config and layers differ from those in the lock")
    config = _read(image.config, read, "config")
    try:
        platform.check_config(
            target, platform_of(config, "config"), listed=listed, is_chosen=reference.digest == image.manifest.digest
        )
    except ValueError as error:
        raise ValueError(f"{error}, expected an image for {target} ({claim.arch})") from None
    created = created_of(config, "config")
    if created != claim.created:
        raise ValueError(f"config: it was created {created or 'at no date'}, but the lock says {claim.created!r}")


def _parse(descriptor: Descriptor, read: Callable[[Descriptor], bytes], kind: str) -> Manifest | Index:
    document = parse_document(_read(descriptor, read, kind), descriptor.media_type, kind)
    if document.media_type != descriptor.media_type:
        raise ValueError(
            f"{kind}: its media type is {document.media_type!r}, but the lock says {descriptor.media_type[:120]!r}"
        )
    return document


def _read(descriptor: Descriptor, read: Callable[[Descriptor], bytes], kind: str) -> bytes:
    raw = read(descriptor)
    if len(raw) != descriptor.size or not descriptor.digest.matches(raw):
        raise ValueError(f"{kind}: its {len(raw)} bytes do not match {descriptor.digest} of {descriptor.size} bytes")
    return raw
