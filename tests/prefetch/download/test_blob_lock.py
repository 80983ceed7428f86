"""Runs at the same time: a blob that one of them downloads is not downloaded by the others."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from osc_containers.fs.ranges import FileSlice
from osc_containers.prefetch.download import blob_lock
from osc_containers.prefetch.download.blob_lock import BlobLock
from tests.support import images, packages
from tests.support.fault_registry import Exchange, Fault, FaultRegistry, Request
from tests.support.prefetch_run import APP, hashes
from tests.support.recording_source import BIG, LAYER, RecordingSource, transfer

PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from osc_containers.cli.main import console; console()"
ROOT = Path(__file__).resolve().parents[3]
BASE = images.random_layer("base", 3_000_000)
_PREPARATIONS = 2
"""Seconds that a run may need from its last manifest to its first layer, on a busy machine."""
WAITING = "is downloading the same blobs; waiting for it"


class Slow:
    """A script for the registry that counts the bytes of each layer that it sends.

    The first layer begins when `runs` runs have had the time to come to their layers. After `limit` bytes, nothing is
    sent until `continues` is set.
    """

    def __init__(self, registry: FaultRegistry, runs: int, limit: int = 1 << 62) -> None:
        self.sent: Counter[str] = Counter()
        self.continues = threading.Event()
        self._registry, self._runs, self._limit = registry, runs, limit
        registry.script = self._answer

    def _answer(self, request: Request) -> Fault | None:
        return self._send if len(self._registry.blobs.get(_last(request), b"")) > 100_000 else None

    def _send(self, exchange: Exchange) -> None:
        while self._count_runs() < self._runs:
            exchange.pause(0.05)
        if not self.sent:
            exchange.pause(_PREPARATIONS if self._runs > 1 else 0)
        answer = exchange.answer()
        exchange.send_bytes(answer.head())
        step = len(answer.body) // 20 + 1
        for at in range(0, len(answer.body), step):
            if self.sent.total() >= self._limit:
                self.continues.wait(60)
            exchange.pause(0.05)
            exchange.send_bytes(answer.body[at : at + step])
            self.sent[_last(exchange.request)] += len(answer.body[at : at + step])

    def _count_runs(self) -> int:
        requests = Counter(request.path for request in self._registry.requests if "/manifests/" in request.path)
        return max(requests.values())


def _last(request: Request) -> str:
    return request.path.rpartition("/")[2]


def start(package: Path, command: str, *options: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", PROGRAM, str(ROOT), command, "--arch=x86_64", *options]
    return subprocess.Popen(words, cwd=package, stderr=subprocess.PIPE, text=True)


def locks() -> list[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path(os.environ["HOME"], ".cache")))
    return list(cache.glob("osc-containers/downloads/*"))


@pytest.mark.integration
@pytest.mark.parametrize("is_same", [True, False], ids=["parts in the cache", "parts without a name"])
def test_runs_at_the_same_time_download_each_blob_once(
    is_same: bool, registry: FaultRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they have in common: all, or a layer; in either layout."""
    for number in range(3):
        registry.push(images.image(BASE, images.random_layer(f"own {number}", 500_000)), f"team/app{number}:1")
    slow = Slow(registry, runs=4)
    names = [f'name="app{number}" path="team" tag="1"' for number in range(3)]
    layouts = ["archives", "blobs", "archives", "blobs"]
    directories = [
        packages.write(tmp_path / f"package{number}", packages.section(registry.host, *listed))
        for number, listed in enumerate([names, names[:2], names[1:], names[::-1]])
    ]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as cache:
        if not is_same:
            monkeypatch.setenv("XDG_CACHE_HOME", cache)
        runs = [
            start(package, "prefetch", f"--layout={layout}", "--connections=2")
            for package, layout in zip(directories, layouts, strict=True)
        ]
        outputs = [run.communicate(timeout=60)[1] for run in runs]
        assert [run.returncode for run in runs] == [0] * 4, outputs
        assert locks() == []
    assert len(slow.sent) == 4
    assert slow.sent == {digest: len(registry.blobs[digest]) for digest in slow.sent}
    assert any(WAITING in output for output in outputs)
    for package in directories:
        with start(package, "verify") as run:
            assert run.wait() == 0


@pytest.mark.integration
def test_a_run_continues_what_a_killed_one_was_downloading(registry: FaultRegistry, tmp_path: Path) -> None:
    registry.push(images.image(images.random_layer("large", 20_000_000)), "team/app:1")
    slow = Slow(registry, runs=1, limit=10_000_000)
    section = packages.section(registry.host, 'name="app" path="team" tag="1"')
    first, *others = (packages.write(tmp_path / f"package{number}", section) for number in range(3))
    killed = start(first, "prefetch")
    while slow.sent.total() < 10_000_000:
        time.sleep(0.05)
    runs = [start(package, "prefetch") for package in others]
    for run in runs:
        assert any(WAITING in line for line in run.stderr or ())
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    slow.continues.set()
    assert [run.communicate(timeout=60)[1].count("pinned to") for run in runs] == [1, 1]
    # What the first connection still had in its buffers is lost.
    assert 20_000_000 < slow.sent.total() < 26_000_000
    assert hashes(others[0]) == hashes(others[1])


@contextmanager
def another_run(content: bytes, *, is_at_work: bool = True) -> Iterator[Path]:
    """Hold the lock on `LAYER` as a run that has written `content`; if it was killed, the lock is only there."""
    with tempfile.NamedTemporaryFile() as file:
        lock = BlobLock(LAYER, FileSlice(file.fileno(), 1000))
        os.truncate(file.name, 1000 + len(BIG.blobs[1]))
        os.pwrite(file.fileno(), content, 1000)
        assert lock.acquire()
        if not is_at_work:
            lock.release()
        yield Path(file.name)
        lock.release()


@pytest.mark.parametrize("is_at_work", [True, False], ids=["hangs", "was killed"])
def test_a_run_that_hangs_is_not_waited_for(
    is_at_work: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(blob_lock, "PATIENCE", 0.5)
    source = RecordingSource({APP: BIG})
    with caplog.at_level("INFO"), another_run(BIG.blobs[1][:12_000_000], is_at_work=is_at_work):
        transfer(source, tmp_path)
    assert sum(stop - start for start, stop in source.ranges) < 8_100_000
    assert ("has received nothing for" in caplog.text) is is_at_work


@pytest.mark.parametrize("content", [b"", b"x" * 3_000_000, b"x" * 20_000_000])
def test_what_another_run_has_is_verified(content: bytes, tmp_path: Path) -> None:
    with another_run(content, is_at_work=False):
        (tmp_path / "package").mkdir()
        transfer(RecordingSource({APP: BIG}), tmp_path / "package")
    (tmp_path / "alone").mkdir()
    transfer(RecordingSource({APP: BIG}), tmp_path / "alone")
    assert hashes(tmp_path / "package") == hashes(tmp_path / "alone")


@pytest.mark.parametrize(
    "location",
    [
        "",
        "x",
        "1 {0} 0 relative",
        "1 {0} x /dev/null",
        "1 {0} 0 /",
        "1 {0} 0 /dev/null",
        "1 {0} -9 {1}",
        "1 {0} 0 /\0",
        "9" * 5000,
    ],
)
def test_a_lock_that_leads_to_no_file_is_no_obstacle(location: str, tmp_path: Path) -> None:
    with another_run(b"", is_at_work=False) as file:
        (lock,) = locks()
        lock.write_text(location.format(file.stat().st_ino, file))
        transfer(RecordingSource({APP: BIG}), tmp_path)
    assert len(hashes(tmp_path)) == 2
    assert locks() == []
