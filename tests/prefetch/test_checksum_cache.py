"""What is remembered of files, and when it is not."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from osc_containers.prefetch import checksum_cache


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def remembered() -> list[Path]:
    return list(Path(os.environ["HOME"], ".cache/osc-containers/sums").glob("*"))


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time_ns() + 3_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)


def test_a_file_that_just_changed_is_hashed_and_not_remembered(file: Path) -> None:
    assert checksum_cache.sha256_of(file) == hashlib.sha256(b"content").hexdigest()
    assert remembered() == []


def test_a_settled_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    right = checksum_cache.sha256_of(file)
    (memory,) = remembered()
    memory.write_text("0" * 64)
    assert checksum_cache.sha256_of(file) == "0" * 64
    memory.write_text("broken")
    assert checksum_cache.sha256_of(file) == right


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_change_shows_even_if_its_time_is_set_back(
    keep_times: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    checksum_cache.sha256_of(file)
    before = file.stat()
    time.sleep(0.02)  # ctime has the granularity of the kernel's clock
    file.write_bytes(b"CONTENT")
    if keep_times:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert checksum_cache.sha256_of(file) == hashlib.sha256(b"CONTENT").hexdigest()


def test_without_a_cache_it_is_hashed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert checksum_cache.sha256_of(file) == hashlib.sha256(b"content").hexdigest()
