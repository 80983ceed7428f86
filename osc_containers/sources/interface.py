"""What the network half needs from wherever images come from.

`distribution` implements it for registries, `transports` for what is on this machine; tests implement it over a dict.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor, Index, Manifest
from osc_containers.oci.reference import Reference
from osc_containers.sources.progress import NullProgress, Progress

ATTEMPTS = 3
"""How often a blob that arrives damaged is asked for."""


class Stream(Protocol):
    """The bytes of a blob from some start, on their way in."""

    @property
    def ignores_range(self) -> bool:
        """Whether the source cannot give the part that was asked for, and all of the blob is on its way instead."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the start of `buffer` and return how many bytes came; 0 is the end of the part, and nowhere else."""


class ImageSource(Protocol):
    """Images by reference; every method may be called from several threads.

    All of them raise `RegistryError` when the source fails or refuses, after the retries that are worth making.
    """

    @property
    def is_high_latency(self) -> bool:
        """Whether one connection brings little, as far as is known by now: large blobs then pay to be split."""

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest of the manifest or index that `reference` names now, by the cheapest request.

        It is what the source claims; `manifest` verifies it.
        """

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return the manifest or index, by `digest` where given (its bytes then verified), else by name."""

    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> AbstractContextManager[Stream]:
        """Open `blob` of the repository of `reference` from byte `start` up to `stop` (default: its end).

        The bytes are not verified: they are exactly as many as the descriptor says, or there is an error. `is_retry`
        says that the blob was damaged when it arrived before.
        """


class FetchContext(NamedTuple):
    """How to get at images: a source for each origin, how to let all that is under way fail soon, and who watches.

    `connections` is how many requests for blobs run at a time, to all registries together, and large blobs are then
    split over them; None leaves both to how far the sources are.
    """

    open_source: Callable[[str], ImageSource]
    cancel: Callable[[], None] = lambda: None
    progress: Progress = NullProgress()
    connections: int | None = None
