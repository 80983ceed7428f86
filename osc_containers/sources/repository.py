"""One repository of a registry, for the small documents that are not images: signatures and lists of artifacts.

Source: OCI distribution-spec v1.1, "Pull" and "Listing Referrers".
"""

from collections.abc import Callable
from typing import TypeVar

from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import INDEX_TYPES, MANIFEST_TYPES
from osc_containers.registry.client import Registry
from osc_containers.registry.errors import Failure
from osc_containers.registry.response import Response

ACCEPT = {"Accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
"""The header of requests for manifests."""
_Answer = TypeVar("_Answer")


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
            headers=ACCEPT,
            expected=expected,
            consume=consume,
        )
