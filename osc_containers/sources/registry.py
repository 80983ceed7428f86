"""Images in registries, over the distribution API.

Spec: OCI distribution-spec v1.1, "Pull". Digests are computed from what came; a header that says otherwise is an error.
"""

import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from osc_containers.errors import RegistryError
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_LIMIT,
    MANIFEST_TYPES,
    Descriptor,
    Index,
    Manifest,
    parse_document,
)
from osc_containers.oci.reference import Reference
from osc_containers.registry.client import Registry
from osc_containers.registry.config import certs_d, registries_conf
from osc_containers.registry.config.auth_json import Logins
from osc_containers.registry.config.registries_conf import Configuration, Place
from osc_containers.registry.download import Download
from osc_containers.registry.errors import Failure
from osc_containers.registry.response import Reply
from osc_containers.registry.retry import Policy

_ACCEPT = {"Accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
_GET_STATUSES = frozenset({200, 404})
_HEAD_STATUSES = frozenset(range(200, 600)) - {401, 408, 429, 502, 503, 504}
"""Some registries, and stores that they redirect to, refuse HEAD and answer GET well; who asks to wait means both."""
_KEPT = 64
_FAR = 0.01
"""Seconds: a registry is far if it answers nothing in less."""
_MIRROR_ATTEMPTS = 2  # there is another place to ask

_Answer = TypeVar("_Answer")


class RegistryImages:
    """Images of any registry: `sources.ImageSource` over as many registries as the references name."""

    def __init__(
        self, policy: Policy, environ: Mapping[str, str], system_context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._registries = _Registries(policy, environ, system_context)
        self._lock = threading.Lock()
        self._manifests: dict[Digest, Manifest | Index] = {}

    @property
    def is_high_latency(self) -> bool:
        """Whether a registry answered slowly, or none at all yet."""
        return self._registries.is_high_latency

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest that `reference` names now, by HEAD where the registry answers that with one."""
        if reference.digest:
            return reference.digest
        places = self._registries.places(reference, by_digest=False)
        return _first(places, lambda registry, repository: self._head(registry, repository, reference))

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return the manifest or index, by `digest` where given, else by what `reference` names."""
        digest = digest or reference.digest
        if digest in self._manifests:
            return self._manifests[digest]
        places = self._registries.places(reference, by_digest=digest is not None)
        return _first(places, lambda registry, repository: self._get(registry, repository, reference, digest))

    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> Download:
        """Open a blob; see `sources.ImageSource`. One that came damaged comes from the registry before its mirrors."""
        places = self._registries.places(reference, by_digest=True)
        if is_retry:
            places = (places[-1], *places[:-1])
        return Download(places, blob, start, stop, str(reference))

    def cancel(self) -> None:
        """Let every request fail soon, those under way too."""
        self._registries.cancel()

    def close(self) -> None:
        """Close all connections."""
        self._registries.close()

    def _head(self, registry: Registry, repository: str, reference: Reference) -> Digest:
        claimed = registry.request(
            "HEAD",
            f"{repository}/manifests/{reference.tag}",
            repository=repository,
            where=str(reference),
            headers=_ACCEPT,
            expected=_HEAD_STATUSES,
            consume=_claim_of_head,
        )
        return claimed or self._get(registry, repository, reference, None).digest

    def _get(
        self, registry: Registry, repository: str, reference: Reference, digest: Digest | None
    ) -> Manifest | Index:
        manifest = registry.request(
            "GET",
            f"{repository}/manifests/{digest or reference.tag}",
            repository=repository,
            where=str(reference),
            headers=_ACCEPT,
            expected=_GET_STATUSES,
            consume=lambda reply: _read_manifest(reply, registry.host, reference, digest),
        )
        self._keep(digest or manifest.digest, manifest)
        return manifest

    def _keep(self, digest: Digest, manifest: Manifest | Index) -> None:
        """Keep a few manifests: one that was fetched for its digest is soon asked for by it."""
        with self._lock:
            while len(self._manifests) >= _KEPT:
                del self._manifests[next(iter(self._manifests))]
            self._manifests[digest] = manifest


class _Registries:
    """Every registry once, with its connections and tokens; settings are read when they are first needed."""

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
            waits = [registry.latency for registry in self._open.values() if registry.latency is not None]
        return max(waits, default=_FAR) >= _FAR

    def places(self, reference: Reference, *, by_digest: bool) -> tuple[tuple[Registry, str], ...]:
        """Return the registries that may have the image, and what it is called there; never none."""
        with self._lock:
            places = self._configuration.places(reference, by_digest=by_digest)
            found = tuple((self._registry(place), place.repository) for place in places)
        # A mirror that is down once is not waited for again, for each of perhaps a thousand images.
        return (*(place for place in found[:-1] if not place[0].is_down), found[-1])

    def cancel(self) -> None:
        with self._lock:
            for registry in self._open.values():
                registry.cancel()

    def close(self) -> None:
        for registry in self._open.values():
            registry.close()

    def _registry(self, place: Place) -> Registry:
        key = (place.host, place.insecure, place.is_mirror)
        if key not in self._open:
            self._open[key] = Registry(
                place.host,
                policy=self._mirror_policy if place.is_mirror else self._policy,
                login=partial(self._logins.find, place.host),
                context=self._context(place),
                certificates=certs_d.place_for(place.host, self._environ),
                insecure=place.insecure,
            )
        return self._open[key]

    def _context(self, place: Place) -> ssl.SSLContext:
        """Return the TLS settings for a place; it takes long to read the system's authorities, so hosts share them."""
        directory = certs_d.directory_of(place.host, self._environ)
        key = (directory, place.insecure)
        if key not in self._contexts:
            is_usual = directory is None and not place.insecure
            self._contexts[key] = (
                self._system_context() if is_usual else certs_d.context_for(directory, insecure=place.insecure)
            )
        return self._contexts[key]


def _first(places: Iterable[tuple[Registry, str]], ask: Callable[[Registry, str], _Answer]) -> _Answer:
    """Ask one place after the other until one answers."""
    problems: list[str] = []
    for registry, repository in places:
        try:
            return ask(registry, repository)
        except RegistryError as error:
            problems.extend(error.problems)
    raise RegistryError(*problems)


def _claim_of_head(reply: Reply) -> Digest | None:
    reply.discard()
    return _claim(reply) if reply.status == 200 else None


def _read_manifest(reply: Reply, host: str, reference: Reference, digest: Digest | None) -> Manifest | Index:
    if reply.status == 404:
        wanted = f"manifest {digest}" if digest else f"tag {reference.tag!r}"
        hint = "it may have been removed" if digest else "the tag or the repository does not exist there"
        raise Failure(f"no {wanted} at {host}: {reply.refusal()}; {hint}", is_final=True)
    raw = reply.read(MANIFEST_LIMIT)
    named = tuple(filter(None, (digest, _claim(reply))))
    for expected in named:
        if not expected.matches(raw):
            got = Digest.of(raw, expected.algorithm)
            raise Failure(f"manifest from {host}: got {got}, expected {expected}", most=3)
    try:
        return parse_document(raw, reply.headers.get("Content-Type", ""), str(reference))
    except ValueError as error:
        # What has its digest is malformed for good; the rest may come from something between the registry and us.
        problem = str(error).removeprefix(f"{reference}: ")
        raise Failure(f"manifest from {host}: {problem}", most=3, is_final=bool(named)) from None


def _claim(reply: Reply) -> Digest | None:
    try:
        return Digest.parse(reply.headers.get("Docker-Content-Digest", ""))
    except ValueError:
        return None
