"""Transfers that break off, come in segments, or find parts of another run."""

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from osc_containers.errors import RegistryError, VerificationError
from osc_containers.lock.lockfile import FILE_NAME
from osc_containers.obs.package import Package
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.download import extents, partial_file
from osc_containers.prefetch.download.blob_download import REQUEST_COST
from osc_containers.prefetch.prefetch import prefetch
from osc_containers.sources.interface import FetchContext, Stream
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.messages import exactly
from tests.support.prefetch_run import APP, WEB, hashes, run_prefetch, want
from tests.support.recording_source import BIG, LAYER, RecordingSource, transfer


def make(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_a_large_blob_comes_in_segments_that_make_the_same_archive(tmp_path: Path) -> None:
    whole, split = RecordingSource({APP: BIG}), RecordingSource({APP: BIG})
    transfer(whole, make(tmp_path / "whole"), connections=1)
    transfer(split, make(tmp_path / "split"), connections=4)
    assert len(split.ranges) > len(whole.ranges) >= 1
    bounds = sorted(split.ranges)
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "split")


@pytest.mark.parametrize("is_high_latency", [False, True])
def test_blobs_are_split_where_the_source_is_far(is_high_latency: bool, tmp_path: Path) -> None:
    source = RecordingSource({APP: BIG})
    source.is_high_latency = is_high_latency
    transfer(source, tmp_path, connections=None)
    assert (len(source.ranges) > 1) is is_high_latency


def test_small_blobs_are_not_divided(tmp_path: Path) -> None:
    """Although the share of a worker ends 13 bytes after the last large blob."""
    small = [images.random_layer(str(number), 3000) for number in range(10)]
    large = sized((11 << 20) - 13)
    source = FakeSource({APP: images.image(large, *small)})
    transfer(source, tmp_path)
    assert [source.asked[str(Digest.of(layer.content))] for layer in (large, *small)] == [3] + [1] * 10


@pytest.mark.parametrize("excess", [-13, 13])
def test_no_segment_is_smaller_than_what_a_request_costs(excess: int, tmp_path: Path) -> None:
    """The shares of four workers end 5, 10, 15 and 20 MiB after the start of the first of these two layers."""
    first, second = sized((10 << 20) + excess), sized((8 << 20) - excess)
    for layer in (first, second):
        source = RecordingSource({APP: images.image(first, second)}, layer=Digest.of(layer.content))
        transfer(source, make(tmp_path / str(len(layer.content))))
        assert min(stop - start for start, stop in source.ranges) >= REQUEST_COST
        assert len(source.ranges) == 2


def sized(size: int) -> images.Layer:
    """Return a layer of exactly so many bytes."""
    content = images.random_layer(str(size), size - 100_000).content.ljust(size, b"\0")
    return images.Layer(content=content, compression="none", diff_id=Digest.of(content))


class Counting:
    """Counts what it is told of."""

    def __init__(self) -> None:
        self.expected = 0
        self.counts: list[int] = []

    def expect(self, size: int) -> None:
        self.expected += size

    def blob(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(self.counts.append)


@pytest.mark.parametrize("size", [1, 100, 3000, 5000, 20_000])
def test_what_shares_a_block_with_a_header_is_not_taken_for_what_an_earlier_run_left(size: int, tmp_path: Path) -> None:
    many = images.image(*(images.random_layer(str(number), size) for number in range(30)))
    progress = Counting()
    network = FetchContext(open_source=FakeSource({APP: many}).open, progress=progress)
    prefetch(Package(tmp_path), want(APP), network, outdir=tmp_path, locked=False)
    assert sum(progress.counts) == progress.expected
    assert min(progress.counts) >= 0


def test_of_a_run_that_broke_off_whole_blobs_are_kept(tmp_path: Path) -> None:
    """Also where they end in zeros, as tars do, or are all zeros."""
    layers = [images.random_layer(str(number), 3000) for number in range(20)]
    both = images.image(*layers, images.random_layer("last", 20_000_000))
    source = FakeSource({APP: both}, damaged={Digest.of(both.blobs[-1]): b"x" * len(both.blobs[-1])})
    with pytest.raises(VerificationError):
        transfer(source, tmp_path)
    again = FakeSource({APP: both})
    transfer(again, tmp_path)
    assert not any(again.asked[str(Digest.of(layer.content))] for layer in layers)
    assert len(hashes(tmp_path)) == 2


@dataclass
class WholeSource(RecordingSource):
    """Cannot give parts, and counts what it sends of `LAYER` in all."""

    sent: int = 0

    @contextmanager
    def blob(
        self, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None, *, is_retry: bool = False
    ) -> Iterator[Stream]:
        with super().blob(reference, blob, start, stop, is_retry=is_retry) as stream:
            counted = _Counted(stream, self, start)
            counted.ignores_range = start > 0 or stop not in (None, blob.size)
            yield counted if blob.digest == LAYER else stream


@dataclass
class _Counted:
    stream: Stream
    source: WholeSource
    in_vain: int
    ignores_range = False

    def readinto(self, buffer: memoryview, /) -> int:
        count = self.stream.readinto(buffer)
        self.source.sent += count + self.in_vain
        self.in_vain = 0
        return count


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("connections", [1, 4, 16])
def test_a_source_that_cannot_give_parts_sends_the_whole_once(connections: int, tmp_path: Path) -> None:
    source = WholeSource({APP: BIG})
    transfer(source, tmp_path, connections)
    assert source.sent == len(BIG.blobs[1])
    assert hashes(tmp_path) == contents_of_clean_run(tmp_path)


def test_a_run_that_broke_off_goes_on_though_the_source_cannot_give_parts(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="broken off"):
        transfer(RecordingSource({APP: BIG}, gives=12_000_000), tmp_path, connections=4)
    source = WholeSource({APP: BIG})
    transfer(source, tmp_path, connections=4)
    assert source.sent == len(BIG.blobs[1])
    assert hashes(tmp_path) == contents_of_clean_run(tmp_path)


def test_a_blob_that_is_damaged_in_all_attempts_is_refused(tmp_path: Path) -> None:
    damaged = bytearray(BIG.blobs[1])
    damaged[15_000_000] ^= 1
    source = RecordingSource({APP: BIG}, damaged={LAYER: bytes(damaged)})
    with pytest.raises(VerificationError, match="3 times; the registry or a proxy damages it"):
        transfer(source, tmp_path)
    assert hashes(tmp_path) == {}


def test_a_layer_of_no_bytes_under_the_digest_of_others_is_refused(tmp_path: Path) -> None:
    document = json.loads(BIG.raw)
    document["layers"].append(document["layers"][0] | {"size": 0, "digest": f"sha256:{1:064x}"})
    with pytest.raises(VerificationError, match="its manifest is wrong about its size"):
        transfer(RecordingSource({APP: replace(BIG, raw=json.dumps(document).encode())}), tmp_path)
    assert hashes(tmp_path) == {}


class Once(dict[Digest, bytes]):
    """What is served in place of a blob the first time that it is asked for."""

    def get(self, key: Digest, default: object = None) -> bytes | None:  # type: ignore[override]
        return self.pop(key, None)


@pytest.mark.parametrize("number", [0, 1])
def test_a_blob_that_is_damaged_once_is_asked_for_again_and_the_archive_hashed_anew(
    number: int, tmp_path: Path
) -> None:
    blob = BIG.blobs[number]
    damaged = Once({Digest.of(blob): bytes([blob[0] ^ 1]) + blob[1:]})
    transfer(RecordingSource({APP: BIG}, damaged=damaged), tmp_path, connections=1)
    assert not damaged
    assert hashes(tmp_path) == contents_of_clean_run(tmp_path)


@pytest.mark.parametrize("connections", [1, 4])
def test_a_run_that_broke_off_is_gone_on_with(connections: int, tmp_path: Path) -> None:
    source = RecordingSource({APP: BIG}, gives=12_000_000)
    with pytest.raises(RegistryError, match="broken off"):
        transfer(source, tmp_path, connections)
    assert hashes(tmp_path) == {}
    again = RecordingSource({APP: BIG})
    transfer(again, tmp_path, connections)
    fetched = sum(stop - start for start, stop in again.ranges)
    assert fetched < 20_000_000 - 12_000_000 + 4 * (64 << 10)
    assert hashes(tmp_path) == contents_of_clean_run(tmp_path)


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("count", [2, 20])
@pytest.mark.parametrize("is_shared", [True, False])
def test_a_layer_of_several_images_comes_once_and_gets_into_all(
    count: int, is_shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a run for one of them broke off, and where it comes damaged; `is_shared`: as on btrfs and XFS."""
    monkeypatch.setattr(extents, "supports_reflink", lambda descriptor: is_shared)
    base = images.random_layer("base", 5_000_000)
    names = [f"registry.example.com/team/app{number}:1.0" for number in range(count)]
    tags = {name: images.image(base, images.random_layer(name, 1000)) for name in names}
    alone = make(tmp_path / "alone")
    for name in names:
        run_prefetch(FakeSource(tags), make(alone / name.replace("/", "-")), *want(name))
    expected = {file: text for each in alone.iterdir() for file, text in hashes(each).items() if file != FILE_NAME}

    blob = tags[names[0]].blobs[1]
    source = RecordingSource(tags, layer=Digest.of(blob), gives=3_000_000)
    package = make(tmp_path / "package")
    with pytest.raises(RegistryError, match="broken off"):
        run_prefetch(source, package, *want(names[0]))
    assert hashes(package) == {}
    source.gives = 1 << 62
    source.damaged = Once({Digest.of(blob): bytes([blob[0] ^ 1]) + blob[1:]})
    run_prefetch(source, package, *want(*names))
    found = hashes(package)
    del found[FILE_NAME]
    assert found == expected
    other = RecordingSource(tags, layer=Digest.of(blob))
    run_prefetch(other, make(tmp_path / "other"), *want(*names))
    assert sum(stop - start for start, stop in other.ranges) == len(blob)
    assert hashes(tmp_path / "other") == hashes(package)


def contents_of_clean_run(tmp_path: Path) -> dict[str, str]:
    clean = make(tmp_path.parent / f"{tmp_path.name}-clean")
    transfer(RecordingSource({APP: BIG}), clean)
    return hashes(clean)


def test_what_an_earlier_run_left_is_verified_before_it_counts(tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        transfer(RecordingSource({APP: BIG}, gives=12_000_000), tmp_path, 1)
    (left,) = Path(os.environ["HOME"], ".cache", "osc-containers").glob("*.part")
    with left.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"damage")
    transfer(RecordingSource({APP: BIG}), tmp_path)
    assert hashes(tmp_path) == contents_of_clean_run(tmp_path)


def test_nothing_of_a_part_stays_that_is_not_in_the_archive(tmp_path: Path) -> None:
    """Not between the members of the tar, nor after the last."""
    with pytest.raises(RegistryError):
        transfer(RecordingSource({APP: BIG}, gives=12_000_000), tmp_path, 1)
    (left,) = Path(os.environ["HOME"], ".cache", "osc-containers").glob("*.part")
    left.write_bytes(b"x" * left.stat().st_size)
    transfer(RecordingSource({APP: BIG}), tmp_path)
    assert hashes(tmp_path) == contents_of_clean_run(tmp_path)


def test_blobs_that_were_complete_are_not_asked_for_again(tmp_path: Path) -> None:
    source = RecordingSource({APP: BIG, WEB: images.small("web")}, gives=12_000_000)
    with pytest.raises(RegistryError):
        run_prefetch(source, tmp_path, *want(APP, WEB))
    source.gives = 1 << 62
    source.asked.clear()
    run_prefetch(source, tmp_path, *want(APP, WEB))
    assert len(hashes(tmp_path)) == 3


def test_two_runs_for_the_same_archive_do_not_share_a_part(tmp_path: Path) -> None:
    with (
        partial_file.part(tmp_path / "one", "key", 10) as first,
        partial_file.part(tmp_path / "two", "key", 10) as second,
    ):
        os.pwrite(first, b"1111111111", 0)
        os.pwrite(second, b"2222222222", 0)
    assert (tmp_path / "one").read_bytes() == b"1111111111"
    assert (tmp_path / "two").read_bytes() == b"2222222222"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_name_that_cannot_be_given_is_said(tmp_path: Path) -> None:
    """And not that of the part, which means nothing to anybody."""
    target = tmp_path / "x.ociarchive"
    message = f"[Errno {errno.EISDIR}] {os.strerror(errno.EISDIR)}: '{target}'"
    with pytest.raises(IsADirectoryError, match=exactly(message)), partial_file.part(target, "key", 10):
        target.mkdir()


def test_without_a_cache_on_the_same_file_system_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as cache:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
        with pytest.raises(RegistryError):
            transfer(RecordingSource({APP: BIG}, gives=12_000_000), tmp_path)
        assert hashes(tmp_path) == {}
        transfer(RecordingSource({APP: BIG}), tmp_path)
        assert len(hashes(tmp_path)) == 2


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    transfer(RecordingSource({APP: BIG}), tmp_path)
    assert len(hashes(tmp_path)) == 2
