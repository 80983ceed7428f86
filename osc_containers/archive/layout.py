"""Layout of the OCI archive: one image for one architecture in an uncompressed tar that all engines can load.

It is an OCI image layout, plus the `manifest.json` of `docker save`:

    oci-layout
    blobs/, blobs/<algorithm>/  directories, without which some programs do not find the blobs
    blobs/<algorithm>/<hex>     layers in the order of the manifest, then config, manifest and indexes
    index.json                  one entry, with the full reference as its name
    manifest.json

The entry is the index that lists the manifest. Engines then know the image by the digests of both. It is the manifest
if there is no index, or if engines would choose something else from it, like an artifact. The blobs of other platforms
are not in the archive.

The indexes lead from the digest of the reference to the manifest, so that the chain can be checked offline
(`oci.chain`). The archive depends on nothing but its documents, the reference and the architecture. The offset of every
byte is known before the first blob is downloaded, and everything between the blobs follows from their descriptors.

Spec: OCI image-spec v1.1, image-layout.md; Docker image-spec v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from osc_containers.formats import tar
from osc_containers.fs.ranges import FileSlice
from osc_containers.oci.chain import Claim
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import INDEX, Descriptor
from osc_containers.oci.platform import canonical
from osc_containers.oci.reference import Reference

# containerd prefers the first one; podman and skopeo read the second one.
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_OLD_ARM = ("armv5tel", "armv6l")


class Member(NamedTuple):
    """A file or directory in the archive.

    `start` is the offset of its header, `offset` that of its content, in bytes. The name of a directory ends in `/`.
    """

    name: str
    start: int
    offset: int
    size: int
    content: bytes | None
    """The content of a generated file, empty for a directory; None for a blob."""
    digest: Digest
    """The digest of the content."""

    @property
    def header(self) -> bytes:
        """The bytes from `start` to `offset`."""
        # Computed on demand, because storing the headers of a thousand archives would take megabytes.
        return tar.header(self.name, self.size)

    @property
    def end(self) -> int:
        """The offset of the next header."""
        return self.offset + self.size + tar.padding(self.size)


def has_parts(file: FileSlice, parts: Iterable[tuple[int, bytes]]) -> bool:
    """Return whether a file has each of these parts at its offset."""
    return all(file.read(offset, offset + len(part)) == part for offset, part in parts)


class Layout(NamedTuple):
    """The members of an archive of `size` bytes."""

    members: tuple[Member, ...]
    size: int

    def blobs(self) -> Iterator[Member]:
        """Yield the members that are blobs."""
        return (member for member in self.members if member.content is None)

    def frame(self) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of everything except the contents of blobs.

        That includes padding, because a file that is overwritten may have other bytes there.
        """
        for member in self.members:
            yield member.start, member.header + (member.content or b"")
            yield member.offset + member.size, bytes(tar.padding(member.size))
        yield self.members[-1].end, tar.END


def layout_of(claim: Claim) -> Layout:
    """Compute the layout of the archive of an image."""
    return lay_out(claim.image, claim.reference, claim.arch)


def lay_out(image: Image, reference: Reference, arch: str) -> Layout:
    """Compute the layout of the archive of `image` for a kiwi architecture, with the name `reference`."""
    members: list[Member] = []
    start = 0
    for name, size, content, digest in _contents(image, reference, arch):
        offset = start + len(tar.header(name, size))
        member = Member(name=name, start=start, offset=offset, size=size, content=content, digest=digest)
        members.append(member)
        start = member.end
    return Layout(members=tuple(members), size=start + len(tar.END))


def _contents(image: Image, reference: Reference, arch: str) -> Iterator[tuple[str, int, bytes | None, Digest]]:
    # Each once, and in the same order in every run, which a set would not give.
    directories = dict.fromkeys(["blobs/", *(f"blobs/{blob.digest.algorithm}/" for blob in image.blobs)])
    yield _generated("oci-layout", LAYOUT_VERSION)
    for name in directories:
        yield _generated(name, b"")
    for blob in image.blobs:
        yield path_of(blob.digest), blob.size, None, blob.digest
    yield _generated("index.json", index_json(image, reference, arch))
    yield _generated("manifest.json", _json(_docker_manifest(image, reference)))


def _generated(name: str, content: bytes) -> tuple[str, int, bytes, Digest]:
    return name, len(content), content, Digest.of(content)


def path_of(digest: Digest) -> str:
    """Return the path of a blob in an OCI image layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def top(image: Image, arch: str) -> Descriptor:
    """Return the document that `index.json` names: what an engine starts from on a machine of this architecture."""
    # An engine takes the entry of an index that fits its own processor best. A later ARM processor would want another
    # entry than the one that is in the archive. No engine follows an index to another index.
    if not image.indexes or image.starts_at_manifest or canonical(arch) in _OLD_ARM:
        return image.manifest
    return image.indexes[-1]


def index_json(image: Image, reference: Reference, arch: str) -> bytes:
    """Return the `index.json` of an OCI image layout with this image."""
    document = top(image, arch)
    # podman refuses a name with another digest than that of the document.
    name = reference.engine_name if reference.tag else f"{reference.name}@{document.digest}"
    entry = {
        "mediaType": document.media_type,
        "digest": str(document.digest),
        "size": document.size,
        "annotations": dict.fromkeys(NAME_ANNOTATIONS, name),
    }
    return _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})


def _docker_manifest(image: Image, reference: Reference) -> list[dict[str, object]]:
    return [
        {
            "Config": path_of(image.config.digest),
            # Docker refuses a digest as a tag. An image without tags is loaded, but only known by its ID.
            "RepoTags": [reference.engine_name] if reference.tag else None,
            "Layers": [path_of(layer.digest) for layer in image.layers],
        }
    ]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


LAYOUT_VERSION = _json({"imageLayoutVersion": "1.0.0"})
"""The content of the file `oci-layout`."""
