"""Files appear whole or not at all, and bytes arrive where they belong whatever the kernel can do."""

import errno
import hashlib
import mmap
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from osc_containers.fs import atomic, ranges
from tests.support.messages import exactly
from tests.support.process import SHARED_MEMORY, file_size_limit, umask

CONTENT = bytes(range(256)) * 10


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o444])
def test_a_file_has_its_mode_whatever_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    with umask(mask):
        atomic.write_atomically(tmp_path / "x", CONTENT, mode)
    assert (tmp_path / "x").stat().st_mode & 0o7777 == mode
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(("mode", "is_enough"), [(0o644, True), (0o600, True), (0o755, False)])
def test_where_files_have_no_modes_the_owner_gets_no_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_enough: bool
) -> None:
    """As on vfat, which refuses; here, what it gives is 0600."""

    def refuse(descriptor: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", refuse)
    with suppress(PermissionError):
        atomic.write_atomically(tmp_path / "x", CONTENT, mode)
    assert (tmp_path / "x").exists() is is_enough


def make_link(path: Path) -> None:
    (path.parent / "target").write_text("old")
    path.symlink_to("target")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("old"),
        make_link,
        lambda path: path.symlink_to("dangling"),
        lambda path: path.symlink_to(path.name),
        os.mkfifo,
    ],
)
def test_what_has_the_name_is_replaced_and_not_followed(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x")
    atomic.write_atomically(tmp_path / "x", CONTENT)
    assert not (tmp_path / "x").is_symlink()
    assert (tmp_path / "x").read_bytes() == CONTENT
    others = {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != "x"}
    assert others in ({}, {"target": "old"})


@pytest.mark.parametrize("name", ["x" * 255, "\N{GRINNING FACE}" * 63, "x.ociarchive"])
def test_every_name_that_a_file_can_have_can_be_written(tmp_path: Path, name: str) -> None:
    atomic.write_atomically(tmp_path / name, CONTENT)
    assert os.listdir(tmp_path) == [name]


def test_a_name_may_start_at_an_open_directory(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with atomic.new_file("x", directory=directory) as descriptor:
            ranges.write_all(descriptor, CONTENT, 0)
    finally:
        os.close(directory)
    assert (tmp_path / "x").read_bytes() == CONTENT


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, exception: type[BaseException]) -> None:
    (tmp_path / "x").write_text("old")

    def fail() -> None:
        with atomic.new_file(tmp_path / "x") as descriptor:
            ranges.write_all(descriptor, CONTENT, 0)
            raise exception

    with pytest.raises(exception):
        fail()
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_nobody_sees_a_file_before_it_is_whole(tmp_path: Path) -> None:
    with atomic.new_file(tmp_path / "x") as descriptor:
        ranges.write_all(descriptor, CONTENT, 0)
        assert not (tmp_path / "x").exists()
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".x.")
        assert temporary.stat().st_mode & 0o777 == 0o600


def test_a_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(IsADirectoryError, match=exactly(f"[Errno 21] Is a directory: '{tmp_path}/x'")):
        atomic.write_atomically(tmp_path / "x", CONTENT)
    assert os.listdir(tmp_path) == ["x"]


def test_a_missing_directory_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=exactly(f"[Errno 2] No such file or directory: '{tmp_path}/y/x'")):
        atomic.write_atomically(tmp_path / "y" / "x", CONTENT)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    message = exactly(f"[Errno 27] File too large: '{tmp_path}/x'")
    with file_size_limit(1000), pytest.raises(OSError, match=message):
        atomic.write_atomically(tmp_path / "x", CONTENT)
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


@pytest.mark.integration
def test_a_full_file_system_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        atomic.write_atomically(tmp_path / "x", CONTENT)
        with pytest.raises(OSError, match="No space left") as caught:
            atomic.write_atomically(tmp_path / "x", CONTENT * 100)
        assert caught.value.errno == errno.ENOSPC
        assert os.listdir(tmp_path) == ["x"]
        assert (tmp_path / "x").read_bytes() == CONTENT
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_write_that_the_kernel_cuts_goes_on_where_it_was_cut() -> None:
    with TemporaryFile() as file, file_size_limit(1000):
        with pytest.raises(OSError, match="File too large"):
            ranges.write_all(file.fileno(), CONTENT, 10)
        file.seek(0)
        assert file.read() == bytes(10) + CONTENT[:990]


def test_more_than_one_write_can_take_is_written() -> None:
    size = (2 << 30) + 1  # Linux takes 2 GiB - 4 KiB at once
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
def test_a_range_is_read_as_far_as_the_file_goes(tmp_path: Path, start: int, end: int, expected: bytes) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    with (tmp_path / "x").open("rb") as file:
        assert ranges.read(file.fileno(), start, end) == expected


def test_a_large_range_comes_in_chunks_of_one_buffer(tmp_path: Path) -> None:
    content = os.urandom(ranges.CHUNK * 2 + 7)
    (tmp_path / "x").write_bytes(content)
    with (tmp_path / "x").open("rb") as file:
        found = [(len(chunk), bytes(chunk)) for chunk in ranges.chunks(file.fileno(), 3, len(content) - 1)]
    assert [length for length, _ in found] == [ranges.CHUNK, ranges.CHUNK, 3]
    assert b"".join(chunk for _, chunk in found) == content[3:-1]


@pytest.mark.parametrize("here", [True, False], ids=["in one file system", "between two"])
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
def test_a_range_is_copied(tmp_path: Path, here: bool, source_offset: int, target_offset: int, size: int) -> None:
    content = os.urandom(2_500_000)
    other = tmp_path if here else SHARED_MEMORY
    assert (other.stat().st_dev == tmp_path.stat().st_dev) is here
    with TemporaryFile(dir=other) as source, TemporaryFile(dir=tmp_path) as target:
        source.write(content)
        source.flush()
        target.write(b"before")
        target.flush()
        ranges.copy_range(source.fileno(), source_offset, target.fileno(), target_offset, size)
        target.seek(0)
        copied = content[source_offset : source_offset + size]
        start = b"before".ljust(target_offset, b"\0")
        assert target.read() == start[:target_offset] + copied + b"before"[target_offset + size :]


def test_what_the_kernel_cannot_copy_is_copied_by_hand() -> None:
    with open("/dev/zero", "rb") as source, TemporaryFile() as target:
        with pytest.raises(OSError, match="Invalid argument"):
            os.copy_file_range(source.fileno(), target.fileno(), 10, 0, 0)
        target.write(b"x" * ranges.CHUNK * 3)
        target.flush()
        ranges.copy_range(source.fileno(), 0, target.fileno(), 1, ranges.CHUNK * 2)
        target.seek(0)
        assert target.read() == b"x" + bytes(ranges.CHUNK * 2) + b"x" * (ranges.CHUNK - 1)


def give_nothing(*_: int) -> int:
    return 0


def find_nothing(*_: int) -> int:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


@pytest.mark.parametrize("copy", [give_nothing, find_nothing], ids=["FUSE", "CIFS"])
def test_what_a_file_system_fails_to_copy_is_copied_by_hand(
    monkeypatch: pytest.MonkeyPatch, copy: Callable[..., int]
) -> None:
    monkeypatch.setattr(os, "copy_file_range", copy)
    with TemporaryFile() as source, TemporaryFile() as target:
        source.write(CONTENT)
        source.flush()
        ranges.copy_range(source.fileno(), 0, target.fileno(), 0, len(CONTENT))
        assert target.read() == CONTENT


@pytest.mark.parametrize("directory", [None, SHARED_MEMORY])
def test_a_source_that_ends_early_is_an_error(tmp_path: Path, directory: Path | None) -> None:
    with TemporaryFile(dir=directory) as source, TemporaryFile(dir=tmp_path) as target:
        source.write(CONTENT)
        source.flush()
        with pytest.raises(OSError, match="the file ended early while it was copied"):
            ranges.copy_range(source.fileno(), 1, target.fileno(), 0, len(CONTENT))


def test_a_disk_that_fills_up_while_copying_is_an_error(tmp_path: Path) -> None:
    with TemporaryFile(dir=SHARED_MEMORY) as source, TemporaryFile(dir=tmp_path) as target:
        source.write(CONTENT)
        source.flush()
        with file_size_limit(1000), pytest.raises(OSError, match="File too large"):
            ranges.copy_range(source.fileno(), 0, target.fileno(), 0, len(CONTENT))


def test_a_place_counts_from_where_it_is() -> None:
    with TemporaryFile() as file, TemporaryFile() as other:
        place = ranges.FileSlice(file.fileno(), 100).at(20)
        place.write(CONTENT, 3)
        assert place.read(0, 5) == b"\0\0\0\0\1"
        assert b"".join(bytes(chunk) for chunk in place.chunks(3, 9999)) == CONTENT
        assert place.at(3).sha256(len(CONTENT)) == hashlib.sha256(CONTENT).hexdigest()
        place.at(3).copy(ranges.FileSlice(other.fileno(), 1), len(CONTENT))
        assert ranges.read(other.fileno(), 1, 9999) == CONTENT
