"""Finding the signatures of images, and judging the images by the policies, before any layer is fetched.

Source: docs/signature-protocols.md of containers/image; cosign's "signature specification".
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from osc_containers.errors import PolicyError, RegistryError, VerificationError
from osc_containers.evidence import evaluate
from osc_containers.evidence.evaluate import Evidence, Image, Verdict, Verifier
from osc_containers.evidence.policy import locations, registries_d
from osc_containers.evidence.policy.identity import Identity
from osc_containers.evidence.policy.load import read_keys
from osc_containers.evidence.policy.registries_d import SignatureStores
from osc_containers.evidence.policy.requirements import Policy
from osc_containers.evidence.signatures import payload, programs, signature
from osc_containers.evidence.signatures.signature import Signature
from osc_containers.formats import strict_json
from osc_containers.fs import plain_file, program
from osc_containers.lock.signature import RecordedSignature
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import MANIFEST, MANIFEST_LIMIT
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.pin import Checked, ResolvedReference
from osc_containers.registry import url_policy
from osc_containers.sources.registry import RegistryImages
from osc_containers.sources.repository import Repository

logger = logging.getLogger(__name__)

_COUNT_LIMIT = 128
"""Signatures of one image; podman refuses more in a signature store."""
_PARALLEL_CHECKS = 4


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


class Judgement(NamedTuple):
    """What all policies say of one image; `problem` is empty if they accept it."""

    verdicts: tuple[Verdict, ...]
    found: Found
    problem: str

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The signatures that met a requirement, each once."""
        every = (evidence for verdict in self.verdicts for evidence in verdict.evidence)
        return tuple({evidence.signature: evidence for evidence in every}.values())


class Judge:
    """Judges images by one or more policies, which all must accept them.

    With `is_required`, an image without an accepted signature is refused even if the policies accept anything.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        finder: SignatureFinder | None,
        verifier: Verifier,
        *,
        is_required: bool = False,
    ) -> None:
        self._policies = policies
        self._finder = finder
        self._verifier = verifier
        self._is_required = is_required

    def judge(
        self, image: Image, reference: Reference, index: Digest | None, recorded: Sequence[Signature] = ()
    ) -> Judgement:
        """Judge an image. `recorded` are signatures in the lock; others are looked for only if those do not suffice.

        :raises PolicyError: the configuration of signatures is not valid.
        :raises RegistryError: a store of signatures failed.
        :raises Error: a program that verifies signatures is missing.
        """
        is_needed = evaluate.is_needed(self._policies, image)
        found = Found(tuple(recorded))
        verdicts = self._verdicts(image, found)
        if is_needed and self._finder and not all(verdict.is_accepted for verdict in verdicts):
            found = self._finder.find(reference, image.digest, index)
            verdicts = self._verdicts(image, found)
        return Judgement(verdicts=verdicts, found=found, problem=self._problem(verdicts, found))

    def _verdicts(self, image: Image, found: Found) -> tuple[Verdict, ...]:
        return tuple(
            evaluate.evaluate(each, image, found.signatures, self._verifier, read_keys) for each in self._policies
        )

    def _problem(self, verdicts: Sequence[Verdict], found: Found) -> str:
        refusal = next((verdict for verdict in verdicts if not verdict.is_accepted), None)
        if refusal:
            return "; ".join((refusal.problem(), *found.hints))
        if self._is_required and not any(verdict.is_signed for verdict in verdicts):
            scopes = ", ".join(f"{verdict.policy} (scope {verdict.scope})" for verdict in verdicts)
            return (
                f"signatures=required, but {scopes or 'there is no policy.json, which'} asks for no signature of it; "
                'add a scope with "sigstoreSigned" or "signedBy" for it'
            )
        return ""


class CheckedImage(NamedTuple):
    """An image to check: where it comes from, and what the lock has of its signatures.

    `where` is the line of the description; `index_digest` that of the index that lists the manifest, if there is one.
    """

    where: str
    reference: Reference
    arch: str
    location: str
    digest: Digest
    index_digest: Digest | None
    recorded: tuple[RecordedSignature, ...] = ()


def checked_image(where: str, resolved: ResolvedReference, arch: str) -> CheckedImage:
    """Return the image for an architecture of a resolved reference."""
    image = resolved.images[arch].image
    return CheckedImage(
        where=where,
        reference=resolved.reference,
        arch=arch,
        location=resolved.location,
        digest=image.manifest.digest,
        # The outermost one, which the tag names, and which `cosign sign` signs without --recursive.
        index_digest=image.indexes[0].digest if image.indexes else None,
        recorded=resolved.images[arch].signatures,
    )


def judge(
    image: CheckedImage,
    policies: Sequence[Policy],
    open_source: Callable[[str], object],
    package: Path,
    reader: StoreReader,
    *,
    is_required: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Judgement:
    """Judge one image; `reader` is the same for all images of a run.

    :raises Error: as `Judge.judge`.
    """
    transport, _, path = image.location.partition(":")
    # Only images in registries have a name for policies; for others, scopes are paths (containers-policy.json(5)).
    identity = Identity.of(image.reference) if transport == "docker" else None
    source = open_source(image.location) if identity else None
    subject = Image(
        identity=identity,
        digest=image.digest,
        transport=transport,
        path_scopes=() if identity else _path_scopes(package, path),
    )
    finder = SignatureFinder(source, reader) if isinstance(source, RegistryImages) else None
    verifier = programs.Verifier(program.outside(package, environ))
    judge = Judge(policies, finder, verifier, is_required=is_required)
    return judge.judge(
        subject, image.reference, image.index_digest, [evaluate.signature_of(each) for each in image.recorded]
    )


def check(
    resolved: Iterable[ResolvedReference],
    where_of: Mapping[Reference, str],
    policies: Sequence[Policy],
    open_source: Callable[[str], object],
    package: Path,
    *,
    is_required: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Checked:
    """Check all images, several at the same time. `where_of` has the line of the description for each reference.

    :raises VerificationError: some images are not accepted; each is named with its line in the description.
    :raises Error: as `Judge.judge`.
    """
    reader = StoreReader(environ)

    def judge_one(image: CheckedImage) -> Judgement:
        return judge(image, policies, open_source, package, reader, is_required=is_required, environ=environ)

    images = [checked_image(where_of.get(each.reference, ""), each, arch) for each in resolved for arch in each.images]
    with ThreadPoolExecutor(_PARALLEL_CHECKS) as pool:
        judgements = list(pool.map(judge_one, images))
    pairs = list(zip(images, judgements, strict=True))
    problems = [
        f"{image.where}: {image.reference} ({image.arch}): {each.problem}" for image, each in pairs if each.problem
    ]
    if problems:
        raise VerificationError(*problems)
    return Checked(
        signatures={
            (image.reference, image.arch): tuple(evidence.signature for evidence in each.evidence)
            for image, each in pairs
        },
        keys={evidence.signature.key: evidence.key for _, each in pairs for evidence in each.evidence},
    )


def _path_scopes(package: Path, path: str) -> tuple[str, ...]:
    """Return the scopes of an image in a file or a directory: its path, and those above it."""
    resolved = Path(os.path.realpath(package / path.partition(":")[0]))
    return tuple(str(each) for each in (resolved, *resolved.parents) if each != each.parent)
