"""The OCI archive: one image, one architecture, one uncompressed tar that every engine loads.

It is an OCI image layout and carries the `manifest.json` of Docker's classic loader too:

    oci-layout
    blobs/<algorithm>/<hex>     layers in the order of the manifest, the config, the manifest
    index.json                  one entry, named by the full reference
    manifest.json

Nothing in it depends on anything but the manifest and the reference, and the offset of every byte is known before the
first one arrives. The layers come first: archives of images on one base then begin with the same bytes, which need
hashing once.

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

NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Member(NamedTuple):
    """One file in the archive; `start` is the offset of its header, `offset` that of its content, all in bytes."""

    name: str
    start: int
    offset: int
    size: int
    content: bytes | None
    """The content, of a file that is ours; None for a blob."""
    digest: Digest
    """Of the content."""

    @property
    def header(self) -> bytes:
        """The bytes from `start` to `offset`; to keep those of a thousand archives takes megabytes."""
        return tar.header(self.name, self.size)

    @property
    def end(self) -> int:
        """Where the next header begins."""
        return self.offset + self.size + tar.padding(self.size)


class Layout(NamedTuple):
    """Where everything lies in an archive of `size` bytes."""

    members: tuple[Member, ...]
    size: int

    def blobs(self) -> Iterator[Member]:
        """Yield the members that hold blobs."""
        return (member for member in self.members if member.content is None)

    def frame(self) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of all that is not a blob's content, zeros too: a file may have had others there."""
        for member in self.members:
            yield member.start, member.header + (member.content or b"")
            yield member.offset + member.size, bytes(tar.padding(member.size))
        yield self.members[-1].end, tar.END


def lay_out(image: Image, reference: Reference) -> Layout:
    """Compute the archive of `image` under the name `reference`."""
    members: list[Member] = []
    start = 0
    for name, size, content, digest in _contents(image, reference):
        offset = start + len(tar.header(name, size))
        member = Member(name=name, start=start, offset=offset, size=size, content=content, digest=digest)
        members.append(member)
        start = member.end
    return Layout(members=tuple(members), size=start + len(tar.END))


def _contents(image: Image, reference: Reference) -> Iterator[tuple[str, int, bytes | None, Digest]]:
    ours = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(_index(image, reference)),
        "manifest.json": _json(_docker_manifest(image, reference)),
    }
    yield "oci-layout", len(ours["oci-layout"]), ours["oci-layout"], Digest.of(ours["oci-layout"])
    for blob in image.blobs:
        yield path_of(blob.digest), blob.size, None, blob.digest
    for name in ("index.json", "manifest.json"):
        yield name, len(ours[name]), ours[name], Digest.of(ours[name])


def path_of(digest: Digest) -> str:
    """Return the path of a blob in an image layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _index(image: Image, reference: Reference) -> dict[str, object]:
    entry = {
        "mediaType": image.manifest.media_type,
        "digest": str(image.manifest.digest),
        "size": image.manifest.size,
        "annotations": dict.fromkeys(NAME_ANNOTATIONS, _name(image, reference)),
    }
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}


def _name(image: Image, reference: Reference) -> str:
    """Return what engines call the image: podman takes no digest but the manifest's own, and the index has another."""
    return reference.engine_name if reference.tag else f"{reference.name}@{image.manifest.digest}"


def _docker_manifest(image: Image, reference: Reference) -> list[dict[str, object]]:
    return [
        {
            "Config": path_of(image.config.digest),
            # Docker refuses a digest in a tag, and loads an image without one by its id alone.
            "RepoTags": [reference.engine_name] if reference.tag else None,
            "Layers": [path_of(layer.digest) for layer in image.layers],
        }
    ]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
