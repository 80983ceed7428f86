"""The registries of a run: a client for each, and the endpoints that may have an image."""

import ssl
import threading
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path

from osc_containers.oci.reference import Reference
from osc_containers.registry.client import Registry
from osc_containers.registry.config import certs_d, registries_conf
from osc_containers.registry.config.auth_json import Logins
from osc_containers.registry.config.registries_conf import Configuration, PullEndpoint
from osc_containers.registry.retry import Policy

_HIGH_LATENCY = 0.01
"""Seconds. A registry that has answered some request in less is near."""
_MIRROR_ATTEMPTS = 2
"""Few, because there is another endpoint."""

Endpoint = tuple[Registry, str]
"""A registry, and the name of the repository there."""


class Registries:
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
        """Whether some registry answers slowly, or none has answered yet."""
        with self._lock:
            latencies = [registry.latency for registry in self._open.values() if registry.latency is not None]
        return max(latencies, default=_HIGH_LATENCY) >= _HIGH_LATENCY

    def endpoints(self, reference: Reference, *, by_digest: bool) -> tuple[Endpoint, ...]:
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
        """Return the registries and mirrors that were sent a login of the user for this image."""
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
        """Interrupt every request, those in progress and those to come."""
        with self._lock:
            for registry in self._open.values():
                registry.cancel()

    def close(self) -> None:
        """Close all connections."""
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
