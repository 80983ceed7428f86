"""What a source of images must provide, wherever it is.

`registry` implements it for registries, `oci_layout` and `docker_archive` for files; tests implement it with a dict.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor, Index, Manifest
from osc_containers.oci.reference import Reference
from osc_containers.sources.progress import NullProgress, Progress

ATTEMPTS = 3
"""How often a blob is requested that arrives damaged."""


class Stream(Protocol):
    """The bytes of a blob, or of a part of it, while they are received."""

    @property
    def ignores_range(self) -> bool:
        """Whether the source sends the whole blob instead of the part that was requested."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the start of `buffer` and return the number of bytes; 0 only at the end of the part."""


class ImageSource(Protocol):
    """Images by reference; every method may be called from several threads.

    All methods raise `RegistryError` if the source fails or refuses, after the retries that can help.
    """

    @property
    def is_high_latency(self) -> bool:
        """Whether large blobs should be split over several connections, because one of them has a low throughput.

        It may change when the source has been used.
        """

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest of the manifest or index that `reference` currently names, by the cheapest request.

        The source only claims it; `manifest` verifies it.
        """

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        """Return the manifest or index with this digest, which is verified, or else the one that `reference` names."""

    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> AbstractContextManager[Stream]:
        """Open `blob` of the repository of `reference`, from byte `start` to before `stop` (default: its end).

        The bytes are not verified. They are exactly as many as requested, or there is an error. `is_retry` tells the
        source that it sent damaged bytes before.
        """


class FetchContext(NamedTuple):
    """How to fetch images: `open_source` returns the source for a location, and `cancel` makes all requests fail soon.

    `connections` is the number of parallel requests for blobs, to all registries together; large blobs are then split
    over them. With None, both depend on the latency of the sources. `describe_access` says in a few words why an image
    that was fetched from a location may be private; empty if it is not.
    """

    open_source: Callable[[str], ImageSource]
    cancel: Callable[[], None] = lambda: None
    progress: Progress = NullProgress()
    connections: int | None = None
    describe_access: Callable[[str, Reference], str] = lambda location, reference: ""
