"""Archives for boot tests, packed from images in memory, with the arguments for the loader."""

from dataclasses import dataclass

from osc_containers.archive.layout import lay_out
from osc_containers.formats import tar
from osc_containers.inject.units import ARCHIVES, Load
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor, Manifest, parse_document
from osc_containers.oci.reference import Reference
from tests.support import images


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An archive and its load."""

    content: bytes
    load: Load

    @property
    def in_podman(self) -> str:
        """The line in which a machine reports the image."""
        return f"{self.load.reference} {self.load.manifest} {self.load.image_id}"

    def for_engine(self, backend: str) -> Load:
        """Return the load of the same archive into another engine."""
        return self.load._replace(backend=backend)


def pack(name: str, image: images.Image) -> Packed:
    """Pack `image` as `name`, at kiwi's path in the machine."""
    reference = Reference.parse(name)
    manifest = parse_document(image.raw, image.media_type, name)
    assert isinstance(manifest, Manifest)
    pinned = Image(
        manifest=Descriptor(digest=image.digest, size=len(image.raw), media_type=image.media_type),
        config=manifest.config,
        layers=manifest.layers,
    )
    blobs = {Digest.of(content): content for content in (image.raw, *image.blobs)}
    members = lay_out(pinned, reference, "x86_64").members
    parts = [
        member.header + (member.content or blobs[member.digest]) + bytes(tar.padding(member.size)) for member in members
    ]
    content = b"".join([*parts, tar.END])
    load = Load(
        backend="podman",
        reference=reference,
        path=f"{ARCHIVES}/{reference.repository.rpartition('/')[2]}_{reference.tag}",
        size=len(content),
        sha256=Digest.of(content).hex,
        manifest=image.digest,
        image_id=manifest.config.digest,
    )
    return Packed(content=content, load=load)
