"""The image in an archive of `docker save` or `podman save`, with a generated manifest.

Such an archive has a configuration and layers, but no manifest. An OCI manifest of exactly these bytes is generated; it
is always the same for the same archive.

Spec: Docker's image-spec v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

import hashlib
import json
import threading
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
# The first bytes of gzip (RFC 1952, 2.3.1) and zstd (RFC 8878, 3.1.1), with the suffixes of the media type.
_MAGIC = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}
_CHUNK = 1 << 20


class DockerArchive:
    """The only image in an archive, or the one with the name or tag `name` (`interface.ImageSource`)."""

    is_high_latency = False

    def __init__(self, storage: BlobStore, name: str) -> None:
        """Find the image.

        :raises RegistryError: it is not such an archive, or does not have exactly one image with that name.
        """
        self._storage = storage
        self._lock = threading.Lock()
        listing = storage.find("manifest.json")
        if listing is None:
            raise RegistryError(f"{storage.path}: no manifest.json, expected an archive of `docker save`")
        try:
            # The file is an array, but the reader only takes objects.
            text = b'{"images":' + listing.read(MANIFEST_LIMIT) + b"}"
            self._image = _choose(strict_json.load(text, f"{storage.path}: manifest.json"), name)
            self._names = (self._image.line("Config"), *_layers(self._image))
        except ValueError as error:
            raise RegistryError(str(error)) from None

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest in the reference, or else that of the generated manifest."""
        return reference.digest or self._manifest.digest

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return the generated manifest."""
        digest = digest or self.resolve(reference)
        if digest != self._manifest.digest:
            raise RegistryError(f"{self._storage.path}: got the image {self._manifest.digest}, expected {digest}")
        return self._manifest

    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> AbstractContextManager[Stream]:
        """Open the configuration or a layer."""
        if blob.digest not in self._files:
            raise RegistryError(f"{self._storage.path}: it has no blob {blob.digest}")
        return oci_layout.open_blob(self._files[blob.digest], blob, start, stop)

    def _read(self) -> tuple[tuple[Digest, StoredFile], ...]:
        # Since Python 3.12, `cached_property` lets several threads compute the same value at the same time.
        with self._lock:
            return self._digests

    # An archive has no digests. They are computed when they are first needed, because that reads all of it.
    @cached_property
    def _digests(self) -> tuple[tuple[Digest, StoredFile], ...]:
        """The digests of the configuration and the layers; each of them is read once."""
        files = [self._find(name) for name in self._names]
        # A layer that occurs twice, under one name or by a link, is one file.
        digests = {file: _digest_of(file) for file in set(files)}
        return tuple((digests[file], file) for file in files)

    @cached_property
    def _files(self) -> dict[Digest, StoredFile]:
        return dict(self._read())

    @cached_property
    def _manifest(self) -> Manifest:
        config, *layers = self._read()
        document = {
            "config": _descriptor(*config, CONFIG_TYPES[0]),
            "layers": [_descriptor(digest, file, _layer_type(file)) for digest, file in layers],
            "mediaType": MANIFEST,
            "schemaVersion": 2,
        }
        # Sorted and without blanks, so that the text depends on the content alone: the lock pins its digest.
        raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        try:
            # The archive may be hostile, so the limits for the manifests of registries hold for this one, too.
            manifest = parse_document(raw, MANIFEST, str(self._storage.path))
        except ValueError as error:
            raise RegistryError(str(error)) from None
        return cast(Manifest, manifest)

    def _find(self, name: str) -> StoredFile:
        file = self._storage.find(name)
        if file is None:
            raise RegistryError(f"{self._storage.path}: it has no member {name[:160]!r}")
        return file


def _choose(document: Fields, name: str) -> Fields:
    images = document.members("images")
    named = [image for image in images if any(oci_layout.has_name(tag, name) for tag in image.lines("RepoTags"))]
    matches = images if len(images) == 1 else named
    if len(matches) == 1:
        return matches[0]
    names = ", ".join(repr(tag[:160]) for image in images for tag in image.lines("RepoTags")) or "none"
    raise ValueError(f"{document.where}: got the images {names[:800]}, expected {oci_layout.expectation(name)}")


def _layers(image: Fields) -> tuple[str, ...]:
    """Return the names of the layers. Their number is limited before any of them is read."""
    names = image.lines("Layers")
    if len(names) > LAYER_COUNT_LIMIT:
        raise ValueError(f"{image.path('Layers')}: got {len(names)} entries, expected at most {LAYER_COUNT_LIMIT}")
    return names


def _descriptor(digest: Digest, file: StoredFile, media_type: str) -> dict[str, object]:
    return {"digest": str(digest), "mediaType": media_type, "size": file.size}


def _layer_type(file: StoredFile) -> str:
    # The archive does not say how its layers are compressed. Engines look at the first bytes, too.
    buffer = memoryview(bytearray(4))
    with file.open(0, min(file.size, 4)) as stream:
        stream.readinto(buffer)
    return _LAYER + next((suffix for magic, suffix in _MAGIC.items() if bytes(buffer).startswith(magic)), "")


def _digest_of(file: StoredFile) -> Digest:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with file.open() as stream:
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return Digest("sha256", digest.hexdigest())
