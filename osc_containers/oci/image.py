"""One image for one platform: the descriptors of its documents and layers."""

from collections.abc import Sequence
from typing import NamedTuple

from osc_containers.oci.manifest import Descriptor, Index, Manifest, engine_choice
from osc_containers.oci.platform import Platform


class Image(NamedTuple):
    """The content of one image for one platform; layers are in the order of the manifest.

    `starts_at_manifest` says that an engine which reads the last index would choose another entry than the manifest: an
    artifact, for example, or one for which it needs a platform that the index does not name.

    `indexes` lead from the digest of the reference to the manifest, the outermost first; there are none if the digest
    is that of the manifest itself.
    """

    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    indexes: tuple[Descriptor, ...] = ()
    starts_at_manifest: bool = False

    @classmethod
    def from_documents(
        cls, manifest: Manifest, indexes: Sequence[Index] = (), target: Platform | None = None
    ) -> "Image":
        """Return the image that `manifest` describes, found by way of `indexes` for the platform `target`."""
        return cls(
            manifest=_descriptor(manifest),
            config=manifest.config,
            layers=manifest.layers,
            indexes=tuple(map(_descriptor, indexes)),
            # The last index is the one that lists the manifest.
            starts_at_manifest=bool(indexes and target and engine_choice(indexes[-1], target) != manifest.digest),
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
