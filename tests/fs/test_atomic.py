"""A file appears under its name only when it is complete, and a failure leaves the old one."""

import errno
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from osc_containers.fs import atomic, ranges
from tests.support.messages import exactly
from tests.support.process import file_size_limit, umask

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
def test_without_file_modes_the_owner_keeps_the_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_enough: bool
) -> None:
    """On vfat, fchmod(2) fails like this; the mode stays 0600 here."""

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
def test_existing_files_and_links_are_replaced_not_followed(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x")
    atomic.write_atomically(tmp_path / "x", CONTENT)
    assert not (tmp_path / "x").is_symlink()
    assert (tmp_path / "x").read_bytes() == CONTENT
    others = {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != "x"}
    assert others in ({}, {"target": "old"})


@pytest.mark.parametrize("name", ["x" * 255, "\N{GRINNING FACE}" * 63, "x.ociarchive"])
def test_every_valid_file_name_can_be_written(tmp_path: Path, name: str) -> None:
    atomic.write_atomically(tmp_path / name, CONTENT)
    assert os.listdir(tmp_path) == [name]


def test_a_path_can_be_relative_to_an_open_directory(tmp_path: Path) -> None:
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


def test_a_file_is_invisible_until_it_is_complete(tmp_path: Path) -> None:
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


def test_a_missing_directory_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=exactly(f"[Errno 2] No such file or directory: '{tmp_path}/y/x'")):
        atomic.write_atomically(tmp_path / "y" / "x", CONTENT)
    assert os.listdir(tmp_path) == []


def test_a_write_that_fails_halfway_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    message = exactly(f"[Errno 27] File too large: '{tmp_path}/x'")
    with file_size_limit(1000), pytest.raises(OSError, match=message):
        atomic.write_atomically(tmp_path / "x", CONTENT)
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


@pytest.mark.integration
def test_a_full_file_system_leaves_the_old_file(tmp_path: Path) -> None:
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


def test_directory_without_symlinks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.require_symlinks(tmp_path)
    assert list(tmp_path.iterdir()) == []

    def refuse(target: str, name: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(OSError, match=f"no symbolic links can be created there: '{tmp_path}'"):
        atomic.require_symlinks(tmp_path)
