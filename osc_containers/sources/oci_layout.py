"""Images in an OCI image layout or in a directory of skopeo's `dir:` transport; both keep the bytes of the registry.

Spec: OCI image-spec v1.1, image-layout.md; containers-transports(5).
"""

from contextlib import AbstractContextManager

from osc_containers.errors import ArtifactError, RegistryError
from osc_containers.formats import strict_json
from osc_containers.formats.strict_json import Fields
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import MANIFEST_LIMIT, Descriptor, Index, Manifest, NotAnImageError, parse_document
from osc_containers.oci.reference import Reference
from osc_containers.sources.blob_store import BlobStore, StoredFile
from osc_containers.sources.interface import Stream

_REF_NAME = "org.opencontainers.image.ref.name"


class OciLayout:
    """The image with the name `name` in an OCI image layout, or the only image in it (`interface.ImageSource`)."""

    is_high_latency = False

    def __init__(self, storage: BlobStore, name: str) -> None:
        """Find the image.

        :raises RegistryError: it is not a layout, or does not have exactly one such image.
        """
        self._storage = storage
        index = storage.find("index.json")
        if index is None:
            raise RegistryError(f"{storage.path}: no index.json, expected an OCI image layout")
        try:
            document = strict_json.load(index.read(MANIFEST_LIMIT), f"{storage.path}: index.json")
            self._top = _choose(document, name)
        except ValueError as error:
            raise RegistryError(str(error)) from None

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest in the reference, or else that of the image."""
        return reference.digest or self._top.digest

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return a manifest or index of the layout."""
        digest = digest or self.resolve(reference)
        # `index.json` has the type of its own entries only; for other documents, their properties decide.
        media_type = self._top.media_type if digest == self._top.digest else ""
        return verified_manifest(self._find(digest), digest, media_type)

    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> AbstractContextManager[Stream]:
        """Open a blob of the layout."""
        return open_blob(self._find(blob.digest), blob, start, stop)

    def _find(self, digest: Digest) -> StoredFile:
        file = self._storage.find(f"blobs/{digest.algorithm}/{digest.hex}")
        if file is None:
            raise RegistryError(f"{self._storage.path}: it has no blob {digest}")
        return file


def _choose(document: Fields, name: str) -> Descriptor:
    entries = [(_name(item), item) for item in document.members("manifests")]
    # An image may be listed several times, for example once for each of its names.
    matches = [Descriptor.from_fields(item) for own_name, item in entries if not name or has_name(own_name, name)]
    if len({entry.digest for entry in matches}) == 1:
        return matches[0]
    names = ", ".join(sorted(repr(own_name[:160]) for own_name, _ in entries)) or "none"
    raise ValueError(f"{document.where}: got the images {names[:800]}, expected {expectation(name)}")


def expectation(name: str) -> str:
    """Return what an error message says that it expected of the images in an archive."""
    return f"one called {name[:160]!r}" if name else "only one; select it by its tag"


def has_name(own_name: str, name: str) -> bool:
    """Tell whether an image with the name `own_name` in an archive is meant by `name`, which may be only its tag.

    podman and docker save the complete name of an image, skopeo the one that its user typed.
    """
    return bool(name) and (own_name == name or own_name.endswith(f":{name}"))


def _name(item: Fields) -> str:
    return item.member("annotations").line(_REF_NAME, "") if "annotations" in item else ""


class DirLayout:
    """The image in a directory of the `dir:` transport (`interface.ImageSource`)."""

    is_high_latency = False

    def __init__(self, storage: BlobStore) -> None:
        """Find the image.

        :raises RegistryError: it is not such a directory.
        """
        self._storage = storage
        top = storage.find("manifest.json")
        if top is None:
            raise RegistryError(f"{storage.path}: no manifest.json, expected a directory of `skopeo copy … dir:`")
        self._top = top
        # The manifest is small, and every other digest is checked against it.
        self._digest = Digest.of(top.read(MANIFEST_LIMIT))

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest in the reference, or else that of the image."""
        return reference.digest or self._digest

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return the manifest or index of the image, or a manifest that the index lists."""
        digest = digest or self.resolve(reference)
        # After `skopeo copy --all`, manifest.json is the index, and the manifests that it lists are named by digest.
        file = self._storage.find(f"{_file_name(digest)}.manifest.json") or self._top
        return verified_manifest(file, digest, "")

    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> AbstractContextManager[Stream]:
        """Open a blob of the directory."""
        file = self._storage.find(_file_name(blob.digest))
        if file is None:
            raise RegistryError(f"{self._storage.path}: it has no blob {blob.digest}")
        return open_blob(file, blob, start, stop)


def _file_name(digest: Digest) -> str:
    return digest.hex if digest.algorithm == "sha256" else f"{digest.algorithm}-{digest.hex}"


def verified_manifest(file: StoredFile, digest: Digest, media_type: str) -> Manifest | Index:
    """Read a manifest or index, and verify its digest.

    :raises RegistryError: it has another digest, is malformed, or belongs to an artifact.
    """
    raw = file.read(MANIFEST_LIMIT)
    if not digest.matches(raw):
        raise RegistryError(f"{file.path}: got a manifest {Digest.of(raw, digest.algorithm)}, expected {digest}")
    try:
        return parse_document(raw, media_type, str(file.path))
    except NotAnImageError as error:
        raise ArtifactError(str(error)) from None
    except ValueError as error:
        raise RegistryError(str(error)) from None


def open_blob(file: StoredFile, blob: Descriptor, start: int, stop: int | None) -> AbstractContextManager[Stream]:
    """Open a part of a blob.

    :raises RegistryError: it has another size than its descriptor says, or is a pointer of git-lfs.
    """
    if file.size != blob.size:
        with file.open():  # A pointer is refused here, with what to do.
            raise RegistryError(f"{file.path}: blob {blob.digest}: got {file.size} bytes, expected {blob.size}")
    return file.open(start, stop)
