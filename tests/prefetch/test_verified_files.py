"""What is remembered of files, and when it is not."""

import os
import time
from pathlib import Path

import pytest

from osc_containers.oci.digest import Digest
from osc_containers.prefetch import verified_files
from osc_containers.prefetch.plan import OutputFile, Slot

EXPECTED = OutputFile(
    name="file",
    size=9,
    slots=[Slot(offset=1, size=7, digest=Digest.of(b"content"))],
    frame=lambda: [(0, b"<"), (8, b">")],
)
OTHER = EXPECTED._replace(slots=[Slot(offset=1, size=7, digest=Digest.of(b"another"))])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"<content>")
    return path


def remembered() -> list[Path]:
    return list(Path(os.environ["HOME"], ".cache/osc-containers/verified").glob("*"))


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time_ns() + 3_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)


def test_a_file_that_just_changed_is_not_remembered(file: Path) -> None:
    assert verified_files.holds(file, EXPECTED)
    assert remembered() == []


def test_a_settled_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    assert verified_files.holds(file, EXPECTED)
    (memory,) = remembered()
    memory.write_text(OTHER.key)
    assert verified_files.holds(file, OTHER)
    memory.write_text("broken")
    assert not verified_files.holds(file, OTHER)
    assert verified_files.holds(file, EXPECTED)


@pytest.mark.parametrize("content", [b"<CONTENT>", b"[content>", b"<content", b"<content> ", b""])
def test_a_file_with_other_bytes_is_not_remembered(content: bytes, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    file.write_bytes(content)
    assert not verified_files.holds(file, EXPECTED)
    assert remembered() == []


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_change_shows_even_if_its_time_is_set_back(
    keep_times: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    assert verified_files.holds(file, EXPECTED)
    before = file.stat()
    time.sleep(0.02)  # ctime has the granularity of the kernel's clock
    file.write_bytes(b"<CONTENT>")
    if keep_times:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not verified_files.holds(file, EXPECTED)


def test_without_a_cache_it_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert verified_files.holds(file, EXPECTED)
    assert not verified_files.holds(file, OTHER)
