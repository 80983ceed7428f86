"""One image for one platform: the descriptors of its manifest, config and layers."""

from typing import NamedTuple

from osc_containers.oci.manifest import Descriptor, Manifest


class Image(NamedTuple):
    """The content of one image for one platform; layers are in the order of the manifest."""

    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> "Image":
        """Return the image that `manifest` describes."""
        descriptor = Descriptor(digest=manifest.digest, size=len(manifest.raw), media_type=manifest.media_type)
        return cls(manifest=descriptor, config=manifest.config, layers=manifest.layers)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Layers, config and manifest without duplicates, in the order of the archive."""
        return tuple({blob.digest: blob for blob in (*self.layers, self.config, self.manifest)}.values())
