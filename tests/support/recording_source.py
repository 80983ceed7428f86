"""A source that notes what is asked of it, and one large image for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from osc_containers.errors import RegistryError
from osc_containers.obs.package import Package
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.prefetch import prefetch
from osc_containers.sources.interface import FetchContext, Stream
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import APP, want

BIG = images.image(images.random_layer("one", 20_000_000))


LAYER = Digest.of(BIG.blobs[1])


@dataclass
class RecordingSource(FakeSource):
    """Notes which bytes of `layer` are asked for; gives up after `gives` bytes in all."""

    layer: Digest = LAYER
    ranges: list[tuple[int, int]] = field(default_factory=list)
    gives: int = 1 << 62

    @contextmanager
    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> Iterator[Stream]:
        with super().blob(reference, blob, start, stop, is_retry=is_retry) as stream:
            if blob.digest == self.layer:
                self.ranges.append((start, stop or blob.size))
                yield _Failing(stream, self)
            else:
                yield stream


@dataclass
class _Failing:
    stream: Stream
    source: RecordingSource

    @property
    def ignores_range(self) -> bool:
        return self.stream.ignores_range

    def readinto(self, buffer: memoryview, /) -> int:
        count = self.stream.readinto(buffer)
        self.source.gives -= count
        if self.source.gives < 0:
            raise RegistryError("broken off")
        return count


def transfer(source: FakeSource, directory: Path, connections: int | None = 4) -> None:
    network = FetchContext(open_source=source.open, connections=connections)
    prefetch(Package(directory), want(APP), network, outdir=directory, locked=False)
