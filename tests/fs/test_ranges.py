"""Byte ranges are read, written and copied completely, whatever the kernel and the file system support."""

import errno
import hashlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from osc_containers.fs import ranges
from osc_containers.fs.ranges import FileSlice
from tests.support.process import SHARED_MEMORY, file_size_limit

CONTENT = bytes(range(256)) * 10


def test_a_short_write_is_continued() -> None:
    with TemporaryFile() as file, file_size_limit(1000):
        with pytest.raises(OSError, match="File too large"):
            ranges.write_all(file.fileno(), CONTENT, 10)
        file.seek(0)
        assert file.read() == bytes(10) + CONTENT[:990]


def test_content_larger_than_one_system_call_is_written() -> None:
    size = (2 << 30) + 1  # Linux writes at most 2 GiB - 4 KiB at a time
    with TemporaryFile() as file, open("/dev/null", "r+b", buffering=0) as null:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as content, memoryview(content) as view:
            assert os.pwrite(null.fileno(), view, 0) < size
            ranges.write_all(null.fileno(), view, 0)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 2560, CONTENT),
        (1, 2, b"\1"),
        (0, 0, b""),
        (5, 4, b""),
        (2559, 9999, b"\xff"),
        (2560, 9999, b""),
        (9999, 2**62, b""),
    ],
)
def test_a_range_ends_with_the_file(tmp_path: Path, start: int, end: int, expected: bytes) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    with (tmp_path / "x").open("rb") as file:
        assert FileSlice(file.fileno(), 0).read(start, end) == expected


def test_a_large_range_is_read_in_chunks(tmp_path: Path) -> None:
    content = os.urandom(ranges.CHUNK * 2 + 7)
    (tmp_path / "x").write_bytes(content)
    with (tmp_path / "x").open("rb") as file:
        chunks = [bytes(chunk) for chunk in FileSlice(file.fileno(), 0).chunks(3, len(content) - 1)]
    assert [len(chunk) for chunk in chunks] == [ranges.CHUNK, ranges.CHUNK, 3]
    assert b"".join(chunks) == content[3:-1]


@pytest.mark.parametrize("is_same", [True, False], ids=["same file system", "two file systems"])
@pytest.mark.parametrize(
    ("source_offset", "target_offset", "size"),
    [
        (0, 0, 0),
        (0, 0, 1),
        (5, 700, 2_000_000),
        (2_500_000 - 1, 0, 1),
        (0, 1, 2_500_000),
        (5, 4101, 99),
        (5, 4101, 9000),
    ],
)
def test_a_range_is_copied(tmp_path: Path, is_same: bool, source_offset: int, target_offset: int, size: int) -> None:
    content = os.urandom(2_500_000)
    other = tmp_path if is_same else SHARED_MEMORY
    assert (other.stat().st_dev == tmp_path.stat().st_dev) is is_same
    with TemporaryFile(dir=other) as source, TemporaryFile(dir=tmp_path) as target:
        source.write(content)
        source.flush()
        target.write(b"before")
        target.flush()
        ranges.copy_range(source.fileno(), source_offset, target.fileno(), target_offset, size)
        target.seek(0)
        middle = content[source_offset : source_offset + size]
        start = b"before".ljust(target_offset, b"\0")
        assert target.read() == start[:target_offset] + middle + b"before"[target_offset + size :]


def test_a_copy_that_the_kernel_refuses_uses_read_and_write() -> None:
    with open("/dev/zero", "rb") as source, TemporaryFile() as target:
        with pytest.raises(OSError, match="Invalid argument"):
            os.copy_file_range(source.fileno(), target.fileno(), 10, 0, 0)
        target.write(b"x" * ranges.CHUNK * 3)
        target.flush()
        ranges.copy_range(source.fileno(), 0, target.fileno(), 1, ranges.CHUNK * 2)
        target.seek(0)
        assert target.read() == b"x" + bytes(ranges.CHUNK * 2) + b"x" * (ranges.CHUNK - 1)


def copy_nothing(*_: int) -> int:
    return 0


def raise_not_found(*_: int) -> int:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


@pytest.mark.parametrize("copy", [copy_nothing, raise_not_found], ids=["FUSE", "CIFS"])
def test_a_copy_that_the_file_system_fails_uses_read_and_write(
    monkeypatch: pytest.MonkeyPatch, copy: Callable[..., int]
) -> None:
    monkeypatch.setattr(os, "copy_file_range", copy)
    with TemporaryFile() as source, TemporaryFile() as target:
        source.write(CONTENT)
        source.flush()
        ranges.copy_range(source.fileno(), 0, target.fileno(), 0, len(CONTENT))
        assert target.read() == CONTENT


@pytest.mark.parametrize("directory", [None, SHARED_MEMORY])
def test_a_source_that_is_too_short_is_an_error(tmp_path: Path, directory: Path | None) -> None:
    with TemporaryFile(dir=directory) as source, TemporaryFile(dir=tmp_path) as target:
        source.write(CONTENT)
        source.flush()
        with pytest.raises(OSError, match="unexpected end of file while copying"):
            ranges.copy_range(source.fileno(), 1, target.fileno(), 0, len(CONTENT))


def test_a_full_disk_while_copying_is_an_error(tmp_path: Path) -> None:
    with TemporaryFile(dir=SHARED_MEMORY) as source, TemporaryFile(dir=tmp_path) as target:
        source.write(CONTENT)
        source.flush()
        with file_size_limit(1000), pytest.raises(OSError, match="File too large"):
            ranges.copy_range(source.fileno(), 0, target.fileno(), 0, len(CONTENT))


def test_offsets_of_a_slice_count_from_its_start() -> None:
    with TemporaryFile() as file, TemporaryFile() as other:
        part = FileSlice(file.fileno(), 100).at(20)
        part.write(CONTENT, 3)
        assert part.read(0, 5) == b"\0\0\0\0\1"
        assert b"".join(bytes(chunk) for chunk in part.chunks(3, 9999)) == CONTENT
        assert part.at(3).sha256(len(CONTENT)) == hashlib.sha256(CONTENT).hexdigest()
        part.at(3).copy(FileSlice(other.fileno(), 1), len(CONTENT))
        assert FileSlice(other.fileno(), 1).read(0, 9999) == CONTENT
