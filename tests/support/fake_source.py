"""A source of images over a dict: what `sources.ImageSource` asks for, without a network, and with faults on demand."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from osc_containers.errors import RegistryError
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor, Index, Manifest, parse_document
from osc_containers.oci.reference import Reference
from osc_containers.sources.interface import Stream
from tests.support.images import Image


class _Stream(io.BytesIO):
    """A stream that gives at most 10,000 bytes at a time."""

    ignores_range = False

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        return super().readinto(buffer[:10_000])


@dataclass
class FakeSource:
    """Images by reference; `asked` counts requests by kind and digest or reference."""

    tags: dict[str, Image]
    asked: Counter[str] = field(default_factory=Counter)
    damaged: Mapping[Digest, bytes] = field(default_factory=dict)
    """What is served in place of a blob."""

    is_high_latency = True

    def open(self, origin: str) -> "FakeSource":
        """Stand in for the function that opens an origin."""
        assert origin.startswith("docker://")
        return self

    def resolve(self, reference: Reference) -> Digest:
        self.asked["resolve"] += 1
        return self._tag(reference).digest

    def manifest(self, reference: Reference, digest: Digest | None = None) -> Manifest | Index:
        self.asked["manifest"] += 1
        for image in self._images():
            if image.digest == (digest or self._tag(reference).digest):
                try:
                    return parse_document(image.raw, image.media_type, str(reference))
                except ValueError as error:
                    raise RegistryError(str(error)) from None
        raise RegistryError(f"{reference}: manifest {digest}: not found")

    @contextmanager
    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> Iterator[Stream]:
        self.asked["blob"] += 1
        self.asked[str(blob.digest)] += 1
        content = self.damaged.get(blob.digest) or self._blob(reference, blob.digest)
        if len(content) != blob.size:
            raise RegistryError(f"{reference}: blob {blob.digest}: got {len(content)} bytes, expected {blob.size}")
        yield _Stream(content[start:stop])

    def _tag(self, reference: Reference) -> Image:
        try:
            return self.tags[str(reference)]
        except KeyError:
            raise RegistryError(f"{reference}: no such tag") from None

    def _images(self) -> Iterator[Image]:
        for image in self.tags.values():
            yield from image.manifests()

    def _blob(self, reference: Reference, digest: Digest) -> bytes:
        for blob in (blob for image in self._images() for blob in image.blobs):
            if Digest.of(blob) == digest:
                return blob
        raise RegistryError(f"{reference}: blob {digest}: not found")
