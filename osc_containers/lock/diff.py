"""Differences between two states of a package's containers: two locks, or a lock and what the tags refer to now."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from osc_containers.lock.lockfile import Lock, LockedImage
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference


class Version(Protocol):
    """An image for one architecture, from a lock or just resolved."""

    @property
    def image(self) -> Image:
        """Its descriptors."""

    @property
    def created(self) -> str:
        """Its creation date (RFC 3339), possibly empty."""


class Resolution(Protocol):
    """The content that a reference refers to, or referred to when it was locked."""

    @property
    def digest(self) -> Digest:
        """The digest of the index, or of the only manifest."""

    @property
    def images(self) -> Mapping[str, Version]:
        """The images by architecture."""


class ImageChange(NamedTuple):
    """A new, removed or different image for one architecture; `old` or `new` is None if there is no such image."""

    arch: str
    old: Version | None
    new: Version | None
    fetch_size: int
    """Bytes of the new image's blobs that no old image has; each blob counts only for the first image that needs it."""

    @property
    def kept(self) -> tuple[Descriptor, ...]:
        """Layers of the new image that the old one has, too."""
        return _layers(self.new, self.old, is_common=True)

    @property
    def added(self) -> tuple[Descriptor, ...]:
        """Layers of the new image that the old one does not have."""
        return _layers(self.new, self.old, is_common=False)

    @property
    def dropped(self) -> tuple[Descriptor, ...]:
        """Layers of the old image that the new one does not have."""
        return _layers(self.old, self.new, is_common=False)


def _layers(version: Version | None, other: Version | None, *, is_common: bool) -> tuple[Descriptor, ...]:
    """Return those layers of a version that are, or are not, in the other one."""
    digests = {layer.digest for layer in other.image.layers} if other else set()
    layers = version.image.layers if version else ()
    return tuple(layer for layer in layers if (layer.digest in digests) is is_common)


class Change(NamedTuple):
    """A reference with at least one changed image. A digest is None if there was or is no such reference."""

    reference: Reference
    old: Digest | None
    new: Digest | None
    images: tuple[ImageChange, ...]

    @property
    def fetch_size(self) -> int:
        """The bytes to fetch for all images."""
        return sum(image.fetch_size for image in self.images)


def compare(old: Mapping[Reference, Resolution], new: Mapping[Reference, Resolution]) -> tuple[Change, ...]:
    """Return the references with changed images, sorted.

    An index with a new digest is no change if the images for the architectures of this package are the same.
    """
    # The digests of all blobs that need not be fetched; those of new images are added on the way.
    available = {
        blob.digest
        for resolution in old.values()
        for version in resolution.images.values()
        for blob in version.image.blobs
    }
    changes = []
    for reference in sorted({*old, *new}, key=str):
        before, after = old.get(reference), new.get(reference)
        images = tuple(_compare_images(before.images if before else {}, after.images if after else {}, available))
        if images:
            digests = (before.digest if before else None, after.digest if after else None)
            changes.append(Change(reference=reference, old=digests[0], new=digests[1], images=images))
    return tuple(changes)


def find_updates(locked: Mapping[Reference, Resolution], current: Mapping[Reference, Resolution]) -> tuple[Change, ...]:
    """Return those changes from `locked` to `current` that have a new image; `current` may be incomplete."""
    changes = []
    for change in compare(locked, current):
        images = tuple(image for image in change.images if image.new)
        if images:
            changes.append(change._replace(images=images))
    return tuple(changes)


def _compare_images(
    old: Mapping[str, Version], new: Mapping[str, Version], available: set[Digest]
) -> Iterable[ImageChange]:
    """Yield the changed images, and add the digests of their blobs to `available`."""
    for arch in sorted({*old, *new}):
        before, after = old.get(arch), new.get(arch)
        if before and after and before.image == after.image:
            continue
        missing = [blob for blob in after.image.blobs if blob.digest not in available] if after else []
        available.update(blob.digest for blob in missing)
        yield ImageChange(arch=arch, old=before, new=after, fetch_size=sum(blob.size for blob in missing))


class SignerChange(NamedTuple):
    """An image that is signed by other keys than before; a change of the image itself does not matter here."""

    reference: Reference
    arch: str
    old: tuple[str, ...]
    new: tuple[str, ...]


def compare_signers(old: Lock, new: Lock) -> tuple[SignerChange, ...]:
    """Return the images of both locks whose signatures are by other keys, sorted; those of new images, too."""
    changes = []
    for reference, arch, locked in new.images():
        before = old.image_for(reference, arch)
        keys = _keys(locked)
        if keys != (old_keys := _keys(before) if before else ()):
            changes.append(SignerChange(reference, arch, old_keys, keys))
    return tuple(changes)


def _keys(locked: LockedImage) -> tuple[str, ...]:
    return tuple(sorted({each.key for each in locked.signatures}))


def as_objects(changes: Iterable[Change]) -> list[dict[str, object]]:
    """Return the changes as values for JSON; sizes are in bytes."""
    return [
        {
            "reference": str(change.reference),
            "old": str(change.old) if change.old else None,
            "new": str(change.new) if change.new else None,
            "architectures": {image.arch: _image_object(image) for image in change.images},
        }
        for change in changes
    ]


def _image_object(image: ImageChange) -> dict[str, object]:
    versions = {
        side: {"digest": str(version.image.manifest.digest), "created": version.created or None} if version else None
        for side, version in (("old", image.old), ("new", image.new))
    }
    layers = {
        name: [{"digest": str(layer.digest), "size": layer.size} for layer in group]
        for name, group in (("kept", image.kept), ("added", image.added), ("dropped", image.dropped))
    }
    return {**versions, "layers": layers, "fetch": image.fetch_size}
