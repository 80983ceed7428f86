"""Images on this machine, in an OCI image layout or in skopeo's `dir:`; both give the bytes as they were pulled.

Spec: OCI image-spec v1.1, image-layout.md; containers-transports(5).
"""

from contextlib import AbstractContextManager

from osc_containers.errors import RegistryError
from osc_containers.formats import strict_json
from osc_containers.formats.strict_json import Fields
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import MANIFEST_LIMIT, Descriptor, Index, Manifest, parse_document
from osc_containers.oci.reference import Reference
from osc_containers.sources.blob_store import BlobStore, StoredFile
from osc_containers.sources.interface import Stream

_REF_NAME = "org.opencontainers.image.ref.name"


class OciLayout:
    """The image called `name` in an OCI image layout, or the only one (`sources.ImageSource`)."""

    is_high_latency = False

    def __init__(self, storage: BlobStore, name: str) -> None:
        """Find the image.

        :raises RegistryError: it is no layout, or has not exactly one such image.
        """
        self._storage = storage
        index = storage.find("index.json")
        if index is None:
            raise RegistryError(f"{storage.path}: there is no index.json, expected an OCI image layout")
        try:
            document = strict_json.load(index.read(MANIFEST_LIMIT), f"{storage.path}: index.json")
            self._top = _choose(document, name)
        except ValueError as error:
            raise RegistryError(str(error)) from None

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest of the image, or that of the reference."""
        return reference.digest or self._top.digest

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return a manifest or index of the layout."""
        digest = digest or self.resolve(reference)
        media_type = self._top.media_type if digest == self._top.digest else ""
        return verified_manifest(self._find(digest), digest, media_type)

    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> AbstractContextManager[Stream]:
        """Open a blob of the layout."""
        return open_blob(self._find(blob.digest), blob, start, stop)

    def _find(self, digest: Digest) -> StoredFile:
        piece = self._storage.find(f"blobs/{digest.algorithm}/{digest.hex}")
        if piece is None:
            raise RegistryError(f"{self._storage.path}: there is no blob {digest}")
        return piece


def _choose(document: Fields, name: str) -> Descriptor:
    entries = [(_name(item), item) for item in document.members("manifests")]
    found = [Descriptor.from_fields(item) for known, item in entries if not name or is_called(known, name)]
    if len({entry.digest for entry in found}) == 1:
        return found[0]
    known = ", ".join(sorted(repr(known[:160]) for known, _ in entries)) or "none"
    wanted = f"one called {name[:160]!r}" if name else "just one; choose by its tag"
    raise ValueError(f"{document.where}: got the images {known[:800]}, expected {wanted}")


def is_called(known: str, name: str) -> bool:
    """Tell whether an image that an archive knows as `known` is the one called `name`, which may be its tag.

    podman and docker save with the whole name, skopeo with what the user gave.
    """
    return bool(name) and (known == name or known.endswith(f":{name}"))


def _name(item: Fields) -> str:
    return item.member("annotations").line(_REF_NAME, "") if "annotations" in item else ""


class DirLayout:
    """The image in a directory of the `dir:` transport (`sources.ImageSource`)."""

    is_high_latency = False

    def __init__(self, storage: BlobStore) -> None:
        """Find the image.

        :raises RegistryError: it is no such directory.
        """
        self._storage = storage
        top = storage.find("manifest.json")
        if top is None:
            raise RegistryError(
                f"{storage.path}: there is no manifest.json, expected a directory of `skopeo copy … dir:`"
            )
        self._top = top
        self._digest = Digest.of(top.read(MANIFEST_LIMIT))

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest of the image, or that of the reference."""
        return reference.digest or self._digest

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return the image's manifest or index, or a manifest of that index."""
        digest = digest or self.resolve(reference)
        piece = self._storage.find(f"{_file_name(digest)}.manifest.json") or self._top
        return verified_manifest(piece, digest, "")

    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> AbstractContextManager[Stream]:
        """Open a blob of the directory."""
        piece = self._storage.find(_file_name(blob.digest))
        if piece is None:
            raise RegistryError(f"{self._storage.path}: there is no blob {blob.digest}")
        return open_blob(piece, blob, start, stop)


def _file_name(digest: Digest) -> str:
    return digest.hex if digest.algorithm == "sha256" else f"{digest.algorithm}-{digest.hex}"


def verified_manifest(piece: StoredFile, digest: Digest, media_type: str) -> Manifest | Index:
    """Read a manifest or index.

    :raises RegistryError: it has another digest, or is malformed.
    """
    raw = piece.read(MANIFEST_LIMIT)
    if not digest.matches(raw):
        raise RegistryError(f"{piece.path}: got a manifest {Digest.of(raw, digest.algorithm)}, expected {digest}")
    try:
        return parse_document(raw, media_type, str(piece.path))
    except ValueError as error:
        raise RegistryError(str(error)) from None


def open_blob(piece: StoredFile, blob: Descriptor, start: int, stop: int | None) -> AbstractContextManager[Stream]:
    """Open a part of a blob.

    :raises RegistryError: it has another size than its descriptor says.
    """
    if piece.size != blob.size:
        raise RegistryError(f"{piece.path}: blob {blob.digest}: got {piece.size} bytes, expected {blob.size}")
    return piece.open(start, stop)
