"""Images in registries, over the distribution API.

Source: OCI distribution-spec v1.1, "Pull". Digests are computed from the bytes received, and headers only claim them.
"""

import logging
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from osc_containers.errors import ArtifactError, MissingError, RegistryError
from osc_containers.formats import strict_json
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import (
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    Manifest,
    NotAnImageError,
    parse_document,
)
from osc_containers.oci.reference import Reference
from osc_containers.registry.client import Registry
from osc_containers.registry.download import Download
from osc_containers.registry.errors import Failure
from osc_containers.registry.response import Response, error_message, is_web_page
from osc_containers.registry.retry import Policy
from osc_containers.sources.registries import Endpoint, Registries
from osc_containers.sources.repository import ACCEPT, Repository

logger = logging.getLogger(__name__)

_GET_STATUSES = frozenset({200, 404})
_NO_DIGEST_STATUSES = frozenset({400, 404, 405, 406, 410, 415, 501})
"""How registries say that they do not serve a manifest by its digest. Some serve the same one by its tag."""
_HEAD_STATUSES = frozenset(range(200, 600)) - {401, 408, 429, 502, 503, 504}
"""Some registries, and stores that they redirect to, refuse HEAD but answer GET. The others mean both methods."""
# Manifests that are kept in memory, each of up to `MANIFEST_LIMIT` bytes.
_MANIFEST_COUNT = 64
_Answer = TypeVar("_Answer")


class RegistryImages:
    """Images in any registry: an `ImageSource` for the registries of all references."""

    def __init__(
        self, policy: Policy, environ: Mapping[str, str], system_context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._registries = Registries(policy, environ, system_context)
        self._lock = threading.Lock()
        self._manifests: dict[Digest, Manifest | Index] = {}

    @property
    def is_high_latency(self) -> bool:
        """Whether some registry answers slowly, or none has answered yet."""
        return self._registries.is_high_latency

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest that `reference` names now, by HEAD if the response has a digest."""
        if reference.digest:
            return reference.digest
        endpoints = self._registries.endpoints(reference, by_digest=False)
        return _first(endpoints, lambda registry, repository: self._head(registry, repository, reference))

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return the manifest or index with `digest`, or without one, what `reference` names."""
        digest = digest or reference.digest
        # Without a digest a tag is requested, which may have moved since.
        if digest and (known := self._manifests.get(digest)):
            return known
        try:
            return self._fetch(reference, digest)
        except MissingError as error:
            if digest is None or reference.tag is None:
                raise
            # Some registries serve manifests by tag only. The tag may have moved, so the digest decides.
            document = self._tagged(reference)
            if document and digest.matches(document.raw):
                return document
            raise MissingError(f"{error}; {_reason(reference, digest, document)}") from None

    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> Download:
        """Open a blob (see `ImageSource`). After a damaged download, the registry is tried before its mirrors."""
        endpoints = self._registries.endpoints(reference, by_digest=True)
        # The registry is authoritative, a mirror may have stored a damaged copy.
        if is_retry:
            endpoints = (endpoints[-1], *endpoints[:-1])
        return Download(endpoints, blob, start, stop, str(reference))

    def locate(self, reference: Reference, digest: Digest) -> Repository:
        """Return the repository of the first endpoint that has the manifest with `digest`.

        Its signatures are there, and not at the registry that a mirror stands for.
        """
        endpoints = self._registries.endpoints(reference, by_digest=reference.digest is not None)
        if len(endpoints) > 1:
            return _first(endpoints, lambda registry, name: self._probe(registry, name, reference, digest))
        return Repository(*endpoints[0])

    def hosts_with_login(self, reference: Reference) -> tuple[str, ...]:
        """Return the registries and mirrors that were sent a login of the user for this image."""
        return self._registries.hosts_with_login(reference)

    def cancel(self) -> None:
        """Interrupt every request, those in progress and those to come."""
        self._registries.cancel()

    def close(self) -> None:
        """Close all connections."""
        self._registries.close()

    def _fetch(self, reference: Reference, digest: Digest | None) -> Manifest | Index:
        endpoints = self._registries.endpoints(reference, by_digest=digest is not None)
        return _first(endpoints, lambda registry, repository: self._get(registry, repository, reference, digest))

    def _tagged(self, reference: Reference) -> Manifest | Index | None:
        """Return what the tag of a reference names; None if that cannot be had."""
        try:
            return self._fetch(reference, None)
        except RegistryError:
            return None

    def read_file(self, url: str, limit: int) -> bytes | None:
        """Return a file at an HTTP server, or None if it does not exist; for URLs of the user's configuration.

        :raises RegistryError: the server failed or refused, or sent more than `limit` bytes.
        """
        return self._registries.client(urlsplit(url).netloc).read_file(url, limit)

    def _probe(self, registry: Registry, name: str, reference: Reference, digest: Digest) -> Repository:
        # Never from memory, since the question is which endpoint has it.
        self._get(registry, name, reference, digest)
        return Repository(registry, name)

    def _head(self, registry: Registry, repository: str, reference: Reference) -> Digest:
        def claimed_digest(response: Response) -> Digest | None:
            # The response to HEAD has no body, but its connection has to go back to the pool.
            response.discard()
            return _claimed_digest(response) if response.status == 200 else None

        digest = registry.request(
            "HEAD",
            f"{repository}/manifests/{reference.tag}",
            repository=repository,
            where=str(reference),
            headers=ACCEPT,
            expected=_HEAD_STATUSES,
            consume=claimed_digest,
        )
        return digest or self._get(registry, repository, reference, None).digest

    def _get(
        self, registry: Registry, repository: str, reference: Reference, digest: Digest | None
    ) -> Manifest | Index:
        refused: set[bytes] = set()
        manifest = registry.request(
            "GET",
            f"{repository}/manifests/{digest or reference.tag}",
            repository=repository,
            where=str(reference),
            headers=ACCEPT,
            expected=_NO_DIGEST_STATUSES | {200} if digest else _GET_STATUSES,
            consume=lambda response: _read_manifest(response, registry.host, reference, digest, refused),
        )
        # A manifest that was fetched to learn its digest is soon requested by that digest.
        with self._lock:
            # A dict keeps the order of insertion, so this drops the oldest. Another thread may just look for that one.
            while len(self._manifests) >= _MANIFEST_COUNT:
                del self._manifests[next(iter(self._manifests))]
            self._manifests[digest or manifest.digest] = manifest
        return manifest


def _first(endpoints: Iterable[Endpoint], ask: Callable[[Registry, str], _Answer]) -> _Answer:
    """Ask one endpoint after the other until one answers."""
    problems: list[str] = []
    kind = RegistryError
    for registry, repository in endpoints:
        try:
            return ask(registry, repository)
        except ArtifactError:
            # Something was found under this name; the other endpoints have the same.
            raise
        except RegistryError as error:
            problems.extend(error.problems)
            # The last endpoint is the registry itself, so its error decides whether the image is missing.
            kind = type(error)
    raise kind(*problems)


def _reason(reference: Reference, digest: Digest, document: Manifest | Index | None) -> str:
    """Say why a tag does not help to get a manifest, and what to do."""
    if document is None:
        return f"tag {reference.tag!r} cannot be fetched either"
    if isinstance(document, Index) and any(entry.digest == digest for entry in document.manifests):
        return (
            f"the index of tag {reference.tag!r} lists it, and it can be had by its digest only: push the image again, "
            "or ask the registry's administrator"
        )
    advice = "correct the digest in the description" if reference.digest else "run the prefetch without 'locked'"
    return f"tag {reference.tag!r} names {document.digest} now: {advice}"


def _read_manifest(
    response: Response, host: str, reference: Reference, digest: Digest | None, refused: set[bytes]
) -> Manifest | Index:
    """Read and verify a manifest. `refused` keeps what did not match the header in earlier attempts."""
    if response.status != 200:
        name = f"manifest {digest}" if digest else f"tag {reference.tag!r}"
        hint = "it may have been removed" if digest else "the tag or the repository does not exist"
        problem = f"no {name} at {host}: {response.refusal()}; {hint}"
        raise Failure(problem, is_final=True, raises=MissingError)
    raw = response.read(MANIFEST_LIMIT)
    if is_web_page(raw, response.content_type):
        raise response.web_page("a manifest")
    # What the header claims proves nothing, but it reveals a response that was damaged on its way.
    expected = digest or _claimed_digest(response)
    is_expected = expected is not None and expected.matches(raw)
    if not is_expected and (message := error_message(raw)):
        problem = f"manifest from {host}: got an error although the status is {response.status}{message}"
        raise Failure(problem, is_final=True)
    if expected and not is_expected:
        actual = Digest.of(raw, expected.algorithm)
        # Some registries compute the header from something else than what they send. Damage is not the same twice.
        if digest or raw not in refused:
            refused.add(raw)
            raise Failure(f"manifest from {host}: got {actual}, expected {expected}", max_attempts=3)
        logger.warning("%s: the header of %s says %s, but what it sends is %s", reference, host, expected, actual)
    try:
        return parse_document(raw, response.content_type, str(reference))
    except NotAnImageError as error:
        problem = str(error).removeprefix(f"{reference}: ")
        raise Failure(f"manifest from {host}: {problem}", is_final=True, raises=ArtifactError) from None
    except ValueError as error:
        # With the right digest, it is malformed in the registry. Other JSON comes from there, too, or from a portal.
        problem = str(error).removeprefix(f"{reference}: ")
        is_final = expected is not None or strict_json.is_object(raw)
        raise Failure(f"manifest from {host}: {problem}", max_attempts=3, is_final=is_final) from None


def _claimed_digest(response: Response) -> Digest | None:
    try:
        return Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except ValueError:
        return None
