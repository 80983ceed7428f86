"""The image in an archive of `docker save` or `podman save`, with the manifest that it has not.

The archive holds a configuration and layers, but no manifest. One is made, the same for the same archive: an OCI
manifest of just those bytes. Spec: docker's image-spec v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

import hashlib
import json
from contextlib import AbstractContextManager
from functools import cached_property
from typing import cast

from osc_containers.errors import RegistryError
from osc_containers.formats import strict_json
from osc_containers.formats.strict_json import Fields
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import (
    CONFIG_TYPES,
    LAYER_COUNT_LIMIT,
    MANIFEST,
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    Manifest,
    parse_document,
)
from osc_containers.oci.reference import Reference
from osc_containers.sources import oci_layout
from osc_containers.sources.blob_store import BlobStore, StoredFile
from osc_containers.sources.interface import Stream

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MAGIC = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}
_CHUNK = 1 << 20


class DockerArchive:
    """The only image in an archive, or the one called `name`, by its tag at least (`sources.ImageSource`)."""

    is_high_latency = False

    def __init__(self, storage: BlobStore, name: str) -> None:
        """Find the image.

        :raises RegistryError: it is no such archive, or has several images, of which not exactly one is called so.
        """
        self._storage = storage
        listing = storage.find("manifest.json")
        if listing is None:
            raise RegistryError(f"{storage.path}: there is no manifest.json, expected an archive of `docker save`")
        try:
            # The file is an array: put it into an object, for which there is a reader.
            text = b'{"images":' + listing.read(MANIFEST_LIMIT) + b"}"
            self._image = _choose(strict_json.load(text, f"{storage.path}: manifest.json"), name)
            self._names = (self._image.line("Config"), *_layers(self._image))
        except ValueError as error:
            raise RegistryError(str(error)) from None

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest of the manifest that is made for the image, or that of the reference."""
        return reference.digest or self._manifest.digest

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return the manifest that is made for the image."""
        digest = digest or self.resolve(reference)
        if digest != self._manifest.digest:
            raise RegistryError(f"{self._storage.path}: got the image {self._manifest.digest}, expected {digest}")
        return self._manifest

    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> AbstractContextManager[Stream]:
        """Open the configuration or a layer."""
        if blob.digest not in self._pieces:
            raise RegistryError(f"{self._storage.path}: there is no blob {blob.digest}")
        return oci_layout.open_blob(self._pieces[blob.digest], blob, start, stop)

    @cached_property
    def _digests(self) -> tuple[tuple[Digest, StoredFile], ...]:
        """The configuration and the layers; reads each of them once."""
        pieces = [self._find(name) for name in self._names]
        digests = {piece: _digest_of(piece) for piece in set(pieces)}
        return tuple((digests[piece], piece) for piece in pieces)

    @cached_property
    def _pieces(self) -> dict[Digest, StoredFile]:
        return dict(self._digests)

    @cached_property
    def _manifest(self) -> Manifest:
        config, *layers = self._digests
        document = {
            "config": _descriptor(*config, CONFIG_TYPES[0]),
            "layers": [_descriptor(digest, piece, _layer_type(piece)) for digest, piece in layers],
            "mediaType": MANIFEST,
            "schemaVersion": 2,
        }
        raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        try:
            manifest = parse_document(raw, MANIFEST, str(self._storage.path))
        except ValueError as error:
            raise RegistryError(str(error)) from None
        return cast(Manifest, manifest)

    def _find(self, name: str) -> StoredFile:
        piece = self._storage.find(name)
        if piece is None:
            raise RegistryError(f"{self._storage.path}: there is no member {name[:160]!r}")
        return piece


def _choose(document: Fields, name: str) -> Fields:
    images = document.members("images")
    named = [image for image in images if any(oci_layout.is_called(tag, name) for tag in image.lines("RepoTags"))]
    found = images if len(images) == 1 else named
    if len(found) == 1:
        return found[0]
    known = ", ".join(repr(tag[:160]) for image in images for tag in image.lines("RepoTags")) or "none"
    wanted = f"one called {name[:160]!r}" if name else "just one; choose by its tag"
    raise ValueError(f"{document.where}: got the images {known[:800]}, expected {wanted}")


def _layers(image: Fields) -> tuple[str, ...]:
    """Return the names of the layers, counted here since the manifest can be made only when all of them are read."""
    names = image.lines("Layers")
    if len(names) > LAYER_COUNT_LIMIT:
        raise ValueError(f"{image.path('Layers')}: got {len(names)} entries, expected at most {LAYER_COUNT_LIMIT}")
    return names


def _descriptor(digest: Digest, piece: StoredFile, media_type: str) -> dict[str, object]:
    return {"digest": str(digest), "mediaType": media_type, "size": piece.size}


def _layer_type(piece: StoredFile) -> str:
    buffer = memoryview(bytearray(4))
    with piece.open(0, min(piece.size, 4)) as stream:
        stream.readinto(buffer)
    return _LAYER + next((suffix for magic, suffix in _MAGIC.items() if bytes(buffer).startswith(magic)), "")


def _digest_of(piece: StoredFile) -> Digest:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with piece.open() as stream:
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return Digest("sha256", digest.hexdigest())
