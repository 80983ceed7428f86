"""Layout of the OCI archive: one image for one architecture in an uncompressed tar that all engines can load.

It is an OCI image layout, plus the `manifest.json` of `docker save`:

    oci-layout
    blobs/<algorithm>/<hex>     layers in the order of the manifest, then config, manifest and indexes
    index.json                  one entry, the manifest, with the full reference as its name
    manifest.json

The indexes lead from the digest of the reference to the manifest, so that the chain can be checked offline
(`oci.chain`). The archive depends on nothing but its documents and the reference. The offset of every byte is known
before the first blob is downloaded. Layers come first, so that archives of images with a common base start with the
same bytes, which are hashed only once.

Spec: OCI image-spec v1.1, image-layout.md; Docker image-spec v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from osc_containers.formats import tar
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import INDEX
from osc_containers.oci.reference import Reference

# containerd prefers the first one; podman and skopeo read the second one.
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Member(NamedTuple):
    """A file in the archive: `start` is the offset of its header, `offset` that of its content, all in bytes."""

    name: str
    start: int
    offset: int
    size: int
    content: bytes | None
    """The content of a generated file; None for a blob."""
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


def lay_out(image: Image, reference: Reference) -> Layout:
    """Compute the layout of the archive of `image` with the name `reference`."""
    members: list[Member] = []
    start = 0
    for name, size, content, digest in _contents(image, reference):
        offset = start + len(tar.header(name, size))
        member = Member(name=name, start=start, offset=offset, size=size, content=content, digest=digest)
        members.append(member)
        start = member.end
    return Layout(members=tuple(members), size=start + len(tar.END))


def _contents(image: Image, reference: Reference) -> Iterator[tuple[str, int, bytes | None, Digest]]:
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(_index(image, reference)),
        "manifest.json": _json(_docker_manifest(image, reference)),
    }
    # This file is the same in all archives, so the common start of archives with the same base includes it.
    yield "oci-layout", len(files["oci-layout"]), files["oci-layout"], Digest.of(files["oci-layout"])
    for blob in image.blobs:
        yield path_of(blob.digest), blob.size, None, blob.digest
    for name in ("index.json", "manifest.json"):
        yield name, len(files[name]), files[name], Digest.of(files[name])


def path_of(digest: Digest) -> str:
    """Return the path of a blob in an OCI image layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _index(image: Image, reference: Reference) -> dict[str, object]:
    # A reference by digest may have the digest of an index, which the archive does not contain. podman refuses any
    # digest but that of the manifest.
    name = reference.engine_name if reference.tag else f"{reference.name}@{image.manifest.digest}"
    entry = {
        "mediaType": image.manifest.media_type,
        "digest": str(image.manifest.digest),
        "size": image.manifest.size,
        "annotations": dict.fromkeys(NAME_ANNOTATIONS, name),
    }
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}


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
