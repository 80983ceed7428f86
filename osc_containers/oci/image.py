"""One image for one platform: the descriptors of its documents and layers."""

from collections.abc import Sequence
from typing import NamedTuple

from osc_containers.oci.manifest import Descriptor, Index, Manifest


class Image(NamedTuple):
    """The content of one image for one platform; layers are in the order of the manifest.

    `indexes` lead from the digest of the reference to the manifest, the outermost first; there are none if the digest
    is that of the manifest itself.
    """

    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    indexes: tuple[Descriptor, ...] = ()

    @classmethod
    def from_documents(cls, manifest: Manifest, indexes: Sequence[Index] = ()) -> "Image":
        """Return the image that `manifest` describes, found by way of `indexes`."""
        return cls(
            manifest=_descriptor(manifest),
            config=manifest.config,
            layers=manifest.layers,
            indexes=tuple(map(_descriptor, indexes)),
        )

    @property
    def documents(self) -> tuple[Descriptor, ...]:
        """Everything but the layers: config, manifest and indexes, in the order of the archive."""
        return (self.config, self.manifest, *reversed(self.indexes))

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Layers and documents without duplicates, in the order of the archive."""
        return tuple({blob.digest: blob for blob in (*self.layers, *self.documents)}.values())


def _descriptor(document: Manifest | Index) -> Descriptor:
    return Descriptor(digest=document.digest, size=len(document.raw), media_type=document.media_type)
