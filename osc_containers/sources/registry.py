"""Images in registries, over the distribution API.

Source: OCI distribution-spec v1.1, "Pull". Digests are computed from the bytes received, and headers only claim them.
"""

import logging
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from osc_containers.errors import ArtifactError, MissingError, RegistryError
from osc_containers.formats import strict_json
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_LIMIT,
    MANIFEST_TYPES,
    Descriptor,
    Index,
    Manifest,
    NotAnImageError,
    parse_document,
)
from osc_containers.oci.reference import Reference
from osc_containers.registry.client import Registry
from osc_containers.registry.config import certs_d, registries_conf
from osc_containers.registry.config.auth_json import Logins
from osc_containers.registry.config.registries_conf import Configuration, PullEndpoint
from osc_containers.registry.download import Download
from osc_containers.registry.errors import Failure
from osc_containers.registry.response import Response, error_message, is_web_page
from osc_containers.registry.retry import Policy

logger = logging.getLogger(__name__)

_ACCEPT = {"Accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
_GET_STATUSES = frozenset({200, 404})
_NO_DIGEST_STATUSES = frozenset({400, 404, 405, 406, 410, 415, 501})
"""How registries say that they do not serve a manifest by its digest. Some serve the same one by its tag."""
_HEAD_STATUSES = frozenset(range(200, 600)) - {401, 408, 429, 502, 503, 504}
"""Some registries, and stores that they redirect to, refuse HEAD but answer GET. The others mean both methods."""
# Manifests that are kept in memory, each of up to `MANIFEST_LIMIT` bytes.
_MANIFEST_COUNT = 64
_HIGH_LATENCY = 0.01
"""Seconds. A registry that has answered some request in less is near."""
_MIRROR_ATTEMPTS = 2
"""Few, because there is another endpoint."""

_Endpoint = tuple[Registry, str]
"""A registry, and the name of the repository there."""
_Answer = TypeVar("_Answer")


class RegistryImages:
    """Images in any registry: an `ImageSource` for the registries of all references."""

    def __init__(
        self, policy: Policy, environ: Mapping[str, str], system_context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._registries = _Registries(policy, environ, system_context)
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

    def locate(self, reference: Reference, digest: Digest) -> "Repository":
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

    def _probe(self, registry: Registry, name: str, reference: Reference, digest: Digest) -> "Repository":
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
            headers=_ACCEPT,
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
            headers=_ACCEPT,
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


class Repository:
    """A repository at one endpoint, for small things beside the images: signatures."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name

    @property
    def name(self) -> str:
        """The name with the host, as it is at this endpoint."""
        return f"{self._registry.host}/{self._name}"

    def document(self, tag: str, limit: int) -> tuple[bytes, str] | None:
        """Return the manifest that has a tag, and its media type, or None if there is no such tag.

        :raises RegistryError: the registry failed, or the manifest has more than `limit` bytes.
        """

        def read(response: Response) -> tuple[bytes, str] | None:
            if response.status == 404:
                response.discard()
                return None
            return response.read(limit), response.headers.get("Content-Type", "").partition(";")[0].strip()

        return self._get(f"{self._name}/manifests/{tag}", read, frozenset({200, 404}))

    def blob(self, digest: Digest, limit: int) -> bytes:
        """Return a blob.

        :raises RegistryError: the registry failed or sent other content, or the blob has more than `limit` bytes.
        """

        def read(response: Response) -> bytes:
            content = response.read(limit)
            if not digest.matches(content):
                raise Failure(f"blob from {self._registry.host}: got other content, expected {digest}", max_attempts=3)
            return content

        return self._get(f"{self._name}/blobs/{digest}", read, frozenset({200}))

    def referrers(self, digest: Digest, limit: int) -> bytes:
        """Return the list of artifacts that refer to a manifest; empty without one (distribution-spec v1.1).

        :raises RegistryError: the registry failed.
        """

        def read(response: Response) -> bytes:
            if response.status == 200:
                return response.read(limit)
            response.discard()
            return b""

        # Registries from before version 1.1 of the specification do not know this path, and say so in several ways.
        return self._get(f"{self._name}/referrers/{digest}", read, frozenset({200, 400, 404, 405}))

    def _get(self, path: str, consume: Callable[[Response], _Answer], expected: frozenset[int]) -> _Answer:
        return self._registry.request(
            "GET",
            path,
            repository=self._name,
            where=self.name,
            headers=_ACCEPT,
            expected=expected,
            consume=consume,
        )


class _Registries:
    """One client for each registry. The configuration is read when it is first needed."""

    def __init__(
        self, policy: Policy, environ: Mapping[str, str], system_context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._policy = policy
        self._system_context = system_context
        self._mirror_policy = policy._replace(attempts=min(policy.attempts, _MIRROR_ATTEMPTS))
        self._environ = environ
        self._lock = threading.Lock()
        self._open: dict[tuple[str, bool, bool], Registry] = {}
        self._contexts: dict[tuple[Path | None, bool], ssl.SSLContext] = {}

    @cached_property
    def _configuration(self) -> Configuration:
        return registries_conf.load(self._environ)

    @cached_property
    def _logins(self) -> Logins:
        return Logins(self._configuration.helpers, self._environ)

    @property
    def is_high_latency(self) -> bool:
        with self._lock:
            latencies = [registry.latency for registry in self._open.values() if registry.latency is not None]
        return max(latencies, default=_HIGH_LATENCY) >= _HIGH_LATENCY

    def endpoints(self, reference: Reference, *, by_digest: bool) -> tuple[_Endpoint, ...]:
        """Return the endpoints that may have the image, at least one."""
        with self._lock:
            configured = self._configuration.endpoints(reference, by_digest=by_digest)
            endpoints = tuple((self._registry(endpoint), endpoint.repository) for endpoint in configured)
        # There may be a thousand images; only the first of them waits for a mirror that is down.
        return (*(endpoint for endpoint in endpoints[:-1] if not endpoint[0].is_down), endpoints[-1])

    def client(self, host: str) -> Registry:
        """Return the client for a host."""
        with self._lock:
            return self._registry(PullEndpoint(host=host, repository=""))

    def hosts_with_login(self, reference: Reference) -> tuple[str, ...]:
        """See `RegistryImages`."""
        with self._lock:
            if not self._open:  # nothing was requested, so the configuration need not be read
                return ()
            # Pulls by tag and by digest may use different mirrors.
            endpoints = self._configuration.endpoints(reference, by_digest=True)
            endpoints += self._configuration.endpoints(reference, by_digest=False)
            opened = ((endpoint, self._open.get(_key(endpoint))) for endpoint in endpoints)
            return tuple(
                dict.fromkeys(
                    endpoint.host
                    for endpoint, registry in opened
                    if registry and registry.used_login(endpoint.repository)
                )
            )

    def cancel(self) -> None:
        with self._lock:
            for registry in self._open.values():
                registry.cancel()

    def close(self) -> None:
        for registry in self._open.values():
            registry.close()

    def _registry(self, endpoint: PullEndpoint) -> Registry:
        key = _key(endpoint)
        if key not in self._open:
            self._open[key] = Registry(
                endpoint.host,
                policy=self._mirror_policy if endpoint.is_mirror else self._policy,
                login=partial(self._logins.find, endpoint.host),
                context=self._context(endpoint),
                certificates=certs_d.directory_for(endpoint.host, self._environ),
                insecure=endpoint.insecure,
            )
        return self._open[key]

    def _context(self, endpoint: PullEndpoint) -> ssl.SSLContext:
        """Return the TLS settings for an endpoint, shared between hosts: the system's authorities take long to read."""
        directory = certs_d.directory_of(endpoint.host, self._environ)
        key = (directory, endpoint.insecure)
        if key not in self._contexts:
            is_default = directory is None and not endpoint.insecure
            self._contexts[key] = (
                self._system_context() if is_default else certs_d.context_for(directory, insecure=endpoint.insecure)
            )
        return self._contexts[key]


def _key(endpoint: PullEndpoint) -> tuple[str, bool, bool]:
    """Return what distinguishes the clients of registries."""
    # A host may be a mirror for some images and the registry of others, with another number of attempts.
    return (endpoint.host, endpoint.insecure, endpoint.is_mirror)


def _first(endpoints: Iterable[_Endpoint], ask: Callable[[Registry, str], _Answer]) -> _Answer:
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
