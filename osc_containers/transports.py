"""The one place that makes an image source out of what a description names."""

import ssl
import threading
from collections.abc import Iterator

from osc_containers.distribution import RegistryImages
from osc_containers.reference import Reference
from osc_containers.registry import Registry
from osc_containers.retries import Policy
from osc_containers.sources import ImageSource


class _Registries:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._open: dict[str, Registry] = {}

    def places_of(self, reference: Reference) -> Iterator[tuple[Registry, str]]:
        yield self._registry(reference.registry), reference.repository

    def _registry(self, host: str) -> Registry:
        with self._lock:
            if host not in self._open:
                self._open[host] = Registry(
                    host, policy=self._policy, login=lambda _: None, context=ssl.create_default_context()
                )
            return self._open[host]


def open_source(origin: str = "docker:", *, policy: Policy | None = None) -> ImageSource:
    """Return the source for `origin`; so far, that is registries."""
    return RegistryImages(_Registries(policy or Policy()).places_of)
