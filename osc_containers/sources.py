"""What the network half needs from wherever images come from.

`registry` implements it for the distribution API; tests implement it over a dict.
"""

from contextlib import AbstractContextManager
from typing import Protocol

from osc_containers.digest import Digest
from osc_containers.oci import Descriptor, Index, Manifest
from osc_containers.reference import Reference


class Stream(Protocol):
    """Bytes on their way in."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the start of `buffer` and return how many bytes came; 0 is the end."""


class ImageSource(Protocol):
    """Images by reference; every method may be called from several threads.

    All of them raise `RegistryError` when the source fails or refuses, after the retries that are worth making.
    """

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest of the manifest or index that `reference` names now, by the cheapest request."""

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return the manifest or index, by `digest` where given (its bytes then verified), else by name."""

    def blob(self, reference: Reference, blob: Descriptor, start: int = 0) -> AbstractContextManager[Stream]:
        """Open `blob` of the repository of `reference` at byte `start`; the bytes are not verified."""
