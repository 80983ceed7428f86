"""What changed between two states of the containers of a package: locked ones, or what their tags name now."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference


class Version(Protocol):
    """An image for one architecture, and when it was made (RFC 3339, or empty): of a lock, or just pinned."""

    @property
    def image(self) -> Image:
        """What is pinned of it."""

    @property
    def created(self) -> str:
        """The creation date in its configuration."""


class Pinned(Protocol):
    """What a reference names or named, and its image for each architecture."""

    @property
    def digest(self) -> Digest:
        """The digest of an index, or of the only manifest."""

    @property
    def images(self) -> Mapping[str, Version]:
        """The images by architecture."""


class ImageChange(NamedTuple):
    """One image for one architecture; a side is None where there was or is none. `fetched` counts bytes."""

    arch: str
    old: Version | None
    new: Version | None
    fetched: int
    """Of the new image's blobs that nothing old has, each blob counted at the first image that needs it."""

    @property
    def kept(self) -> tuple[Descriptor, ...]:
        """Layers of the new image that the old one has."""
        return _layers(self.new, {layer.digest for layer in _layers(self.old)})

    @property
    def added(self) -> tuple[Descriptor, ...]:
        """Layers of the new image that the old one does not have."""
        kept = set(self.kept)
        return tuple(layer for layer in _layers(self.new) if layer not in kept)

    @property
    def dropped(self) -> tuple[Descriptor, ...]:
        """Layers of the old image that the new one does not have."""
        new = {layer.digest for layer in _layers(self.new)}
        return tuple(layer for layer in _layers(self.old) if layer.digest not in new)


def _layers(version: Version | None, among: Iterable[Digest] | None = None) -> tuple[Descriptor, ...]:
    layers = version.image.layers if version else ()
    return layers if among is None else tuple(layer for layer in layers if layer.digest in among)


class Change(NamedTuple):
    """A reference of which at least one image changed, with those images."""

    reference: Reference
    old: Digest | None
    new: Digest | None
    images: tuple[ImageChange, ...]

    @property
    def fetched(self) -> int:
        """The bytes to fetch for all of it."""
        return sum(image.fetched for image in self.images)


def compare(old: Mapping[Reference, Pinned], new: Mapping[Reference, Pinned]) -> tuple[Change, ...]:
    """Return the references with a changed image, sorted.

    An index that changed only in what nobody here asked for is no change.
    """
    held = {
        blob.digest for pinned in old.values() for version in pinned.images.values() for blob in version.image.blobs
    }
    changes = []
    for reference in sorted({*old, *new}, key=str):
        before, after = old.get(reference), new.get(reference)
        images = tuple(_compare_images(before.images if before else {}, after.images if after else {}, held))
        if images:
            digests = (before.digest if before else None, after.digest if after else None)
            changes.append(Change(reference=reference, old=digests[0], new=digests[1], images=images))
    return tuple(changes)


def moved(locked: Mapping[Reference, Pinned], now: Mapping[Reference, Pinned]) -> tuple[Change, ...]:
    """Return what of `now` is not `locked`; what is only locked is not looked at."""
    changes = []
    for change in compare(locked, now):
        images = tuple(image for image in change.images if image.new)
        if images:
            changes.append(change._replace(images=images))
    return tuple(changes)


def _compare_images(old: Mapping[str, Version], new: Mapping[str, Version], held: set[Digest]) -> Iterable[ImageChange]:
    """Yield what changed; `held` has the blobs that need not be fetched, and gets those that will be."""
    for arch in sorted({*old, *new}):
        before, after = old.get(arch), new.get(arch)
        if before and after and before.image == after.image:
            continue
        missing = [blob for blob in after.image.blobs if blob.digest not in held] if after else []
        held.update(blob.digest for blob in missing)
        yield ImageChange(arch=arch, old=before, new=after, fetched=sum(blob.size for blob in missing))


def as_objects(changes: Iterable[Change]) -> list[dict[str, object]]:
    """Return the changes for JSON; sizes are in bytes."""
    return [
        {
            "reference": str(change.reference),
            "old": str(change.old) if change.old else None,
            "new": str(change.new) if change.new else None,
            "architectures": {image.arch: _object(image) for image in change.images},
        }
        for change in changes
    ]


def _object(image: ImageChange) -> dict[str, object]:
    return {
        "old": _side(image.old),
        "new": _side(image.new),
        "layers": {
            name: [{"digest": str(layer.digest), "size": layer.size} for layer in layers]
            for name, layers in (("kept", image.kept), ("added", image.added), ("dropped", image.dropped))
        },
        "fetch": image.fetched,
    }


def _side(version: Version | None) -> dict[str, str | None] | None:
    return {"digest": str(version.image.manifest.digest), "created": version.created or None} if version else None
