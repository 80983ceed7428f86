"""Images for boot tests as the layout directories from which a machine loads them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from osc_containers.archive.layout import lay_out, top
from osc_containers.formats import tar
from osc_containers.inject import layout_directory, units
from osc_containers.inject.image_file import BlobFile
from osc_containers.inject.layout_directory import LAYOUTS
from osc_containers.inject.units import ARCHIVES, Load
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Index, Manifest, parse_document
from osc_containers.oci.reference import Reference
from tests.support import images


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An image, its blobs, and its load into podman."""

    load: Load
    blobs: Mapping[Digest, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """The name under which engines list the image, which is also the one in messages."""
        return self.load.reference.engine_name

    @property
    def in_podman(self) -> str:
        """The line in which a machine reports the image."""
        image = self.load.image
        return f"{self.name} {top(image, 'x86_64').digest} {image.config.digest}"

    @property
    def size(self) -> int:
        """The number of bytes of all blobs."""
        return sum(map(len, self.blobs.values()))

    @property
    def archive(self) -> bytes:
        """The archive of the image."""
        members = lay_out(self.load.image, self.load.reference, self.load.arch).members
        parts = [
            member.header
            + (self.blobs[member.digest] if member.content is None else member.content)
            + bytes(tar.padding(member.size))
            for member in members
        ]
        return b"".join([*parts, tar.END])

    def for_engine(self, backend: str) -> Load:
        """Return the load of the same image into another engine."""
        return self.load._replace(target=backend)

    def directory(self, root: Path) -> Path:
        """Return the layout directory below `root`."""
        return root / LAYOUTS.removeprefix("/") / self.load.id

    def write(self, root: Path, *, has_stream: bool = False) -> None:
        """Write the layout directory below `root`; a blob that another one has already is a hard link to it."""
        load = self.load
        for file in layout_directory.files(load.id, load.reference, load.image, load.arch, has_stream=has_stream):
            path = root / file.path.removeprefix("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if not isinstance(file, BlobFile):
                path.write_text(file.text)
            elif other := next(iter((root / LAYOUTS.removeprefix("/")).glob(f"*/blobs/*/{path.name}")), None):
                os.link(other, path)
            else:
                path.write_bytes(self.blobs[file.blob.digest])


def pack(name: str, image: images.Image) -> Packed:
    """Return the image `name` of a machine: `image`, or what it lists for amd64."""
    reference = Reference.parse(name)
    chain = [image]
    while chain[-1].children:
        chain.append(next(child for child in chain[-1].children if child.platform in (images.AMD64, None)))
    *indexes, manifest = (parse_document(each.raw, each.media_type, name) for each in chain)
    assert isinstance(manifest, Manifest)
    pinned = Image.from_documents(manifest, [index for index in indexes if isinstance(index, Index)])
    kiwi_path = f"{ARCHIVES}/{reference.repository.rpartition('/')[2]}_{reference.tag or 'latest'}"
    return Packed(
        load=Load(target="podman", id=units.load_id(kiwi_path), reference=reference, image=pinned, arch="x86_64"),
        blobs={Digest.of(content): content for content in (*(each.raw for each in chain), *chain[-1].blobs)},
    )
