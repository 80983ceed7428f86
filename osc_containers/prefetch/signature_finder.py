"""Finding the signatures of images, in the registry and in the stores that registries.d names.

Source: docs/signature-protocols.md of containers/image; cosign's "signature specification".
"""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from osc_containers.errors import PolicyError, RegistryError
from osc_containers.evidence.policy import locations, registries_d
from osc_containers.evidence.policy.identity import Identity
from osc_containers.evidence.policy.registries_d import SignatureStores
from osc_containers.evidence.signatures import payload, signature
from osc_containers.evidence.signatures.signature import Signature
from osc_containers.formats import strict_json
from osc_containers.fs import plain_file
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import MANIFEST, MANIFEST_LIMIT
from osc_containers.oci.reference import Reference
from osc_containers.registry import url_policy
from osc_containers.sources.registry import RegistryImages
from osc_containers.sources.repository import Repository

_COUNT_LIMIT = 128
"""Signatures of one image; podman refuses more in a signature store."""


class Found(NamedTuple):
    """The signatures of one image, and what explains that some were not looked for."""

    signatures: tuple[Signature, ...]
    hints: tuple[str, ...] = ()


class StoreReader:
    """Reads registries.d once for all images of a run, when the first of them is looked for."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._stores: SignatureStores | None = None
        self._lock = threading.Lock()

    def read(self) -> SignatureStores:
        """Return the stores of signatures; may be called from several threads.

        :raises PolicyError: registries.d is not valid.
        """
        with self._lock:
            if self._stores is None:
                self._stores = registries_d.load(locations.registries_d(self._environ), self._environ)
            return self._stores


class SignatureFinder:
    """Looks for signatures where registries.d says."""

    def __init__(self, images: RegistryImages, reader: StoreReader) -> None:
        self._images = images
        self._reader = reader

    def find(self, reference: Reference, digest: Digest, index: Digest | None = None) -> Found:
        """Return the signatures of the manifest with `digest`. `index` is that of the index that lists it, if any.

        :raises PolicyError: registries.d is not valid.
        :raises RegistryError: a store of signatures failed, or has what is none.
        """
        repository = self._images.locate(reference, digest)
        # As in podman: registries.d and the stores go by the place that the image comes from, policies by its name.
        physical = Identity.of(reference)._replace(name=repository.name)
        scopes = tuple(physical.scopes())
        stores = self._reader.read()
        signatures = self._from_lookaside(stores.lookaside(scopes), physical, digest)
        hints = []
        if stores.uses_attachments(scopes):
            signatures += _attachments(repository, digest)
            if not signatures and index and index != digest and _attachments(repository, index):
                hints.append(
                    "only the index is signed, but podman checks the manifest of the platform: sign with 'cosign sign "
                    "--recursive'"
                )
            elif not signatures and _has_bundle(repository, digest):
                hints.append(
                    "it has a signature in cosign 3's bundle format, which podman does not read: sign with 'cosign "
                    "sign --new-bundle-format=false'"
                )
        else:
            host = repository.name.partition("/")[0]
            hints.append(
                f"registries.d does not enable use-sigstore-attachments for {host}, so no sigstore signature was "
                "looked for"
            )
        return Found(tuple(signatures), tuple(hints))

    def _from_lookaside(self, base: str, physical: Identity, digest: Digest) -> list[Signature]:
        parts = _split(base)
        # BASE/PATH@ALGORITHM=HEX/signature-NUMBER, where PATH is without the host (docs/signature-protocols.md). The
        # numbers begin with 1 and have no gaps, so the first file that is missing is the end.
        path = f"{unquote(parts.path)}/{physical.name.partition('/')[2]}@{digest.algorithm}={digest.hex}"
        signatures: list[Signature] = []
        while True:
            file = f"{path}/signature-{len(signatures) + 1}"
            # A `file:` URL names a plain path, but a path of HTTP must be quoted.
            url = parts._replace(path=quote(file, safe="/@=:")).geturl()
            content = _read(file) if parts.scheme == "file" else self._images.read_file(url, payload.LIMIT)
            if content is None:
                return signatures
            if len(signatures) == _COUNT_LIMIT:
                raise RegistryError(f"{url_policy.redact(base)}: got more than {_COUNT_LIMIT} signatures of one image")
            try:
                signatures.append(signature.of_file(content))
            except ValueError as error:
                # A query may be a secret.
                where = file if parts.scheme == "file" else f"{url_policy.redact(url)}{url_policy.path(url)}"
                raise RegistryError(f"{where}: {error}") from None


def _split(base: str) -> SplitResult:
    """Return the parts of the URL of a store of signatures."""
    try:
        parts = urlsplit(base)
        problem = "" if parts.scheme in ("file", "http", "https") else "expected file:, http: or https:"
        if parts.scheme in ("http", "https"):
            url_policy.origin(base)  # raises ValueError if host or port are malformed
            if "@" in parts.netloc:
                problem = "got a user name, but stores with a login are not supported"
    except ValueError as error:
        problem = str(error)
    if problem:
        raise PolicyError(f"registries.d: lookaside {url_policy.redact(base)!r}: {problem}")
    return parts


def _read(path: str) -> bytes | None:
    try:
        return plain_file.read_linked(Path(path), payload.LIMIT)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RegistryError(f"{path!r}: {reason}, expected a signature") from None


def _attachments(repository: Repository, digest: Digest) -> list[Signature]:
    # cosign keeps the signatures of a manifest as the layers of an image with this tag.
    tag = f"{digest.algorithm}-{digest.hex}.sig"
    document = repository.document(tag, MANIFEST_LIMIT)
    if document is None:
        return []
    content, media_type = document
    where = f"{repository.name}:{tag}"
    if media_type != MANIFEST:
        raise RegistryError(f"{where}: got {media_type[:80]!r}, expected an OCI manifest of signatures")
    try:
        layers = strict_json.load(content, where).members("layers")
        if len(layers) > _COUNT_LIMIT:
            raise RegistryError(f"{where}: got more than {_COUNT_LIMIT} signatures of one image")
        signatures = []
        for layer in layers:
            annotations = layer.member("annotations") if "annotations" in layer else strict_json.Fields({}, "")
            blob = repository.blob(Digest.parse(layer.text("digest")), payload.LIMIT)
            texts = {key: annotations.text(key, "") for key in annotations.values}
            signatures.append(signature.of_attachment(layer.text("mediaType", ""), blob, texts))
    except ValueError as error:
        raise RegistryError(str(error)) from None
    return signatures


def _has_bundle(repository: Repository, digest: Digest) -> bool:
    """Return whether cosign 3 has signed: its signatures are referrers, at a fallback tag in older registries."""
    try:
        # The tag is that of the referrers tag schema (OCI distribution-spec, "Referrers Tag Schema").
        document = repository.document(f"{digest.algorithm}-{digest.hex}", MANIFEST_LIMIT)
        referrers = repository.referrers(digest, MANIFEST_LIMIT)
    except RegistryError:
        # The result is for a hint only, so it need not be known.
        return False
    return any(signature.BUNDLE_TYPE.encode() in each for each in (document[0] if document else b"", referrers))
