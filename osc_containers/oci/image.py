"""One image for one platform: the descriptors of its manifest, config and layers."""

from typing import NamedTuple

from osc_containers.oci.manifest import Descriptor, Manifest


class Image(NamedTuple):
    """What is pinned of one image for one architecture: descriptors, in the order of the manifest."""

    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> "Image":
        """Return the image that a manifest describes."""
        descriptor = Descriptor(digest=manifest.digest, size=len(manifest.raw), media_type=manifest.media_type)
        return cls(manifest=descriptor, config=manifest.config, layers=manifest.layers)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Layers, config and manifest, each once, in the order of the archive."""
        return tuple({blob.digest: blob for blob in (*self.layers, self.config, self.manifest)}.values())
