"""Files of others are read only if they are regular files of a bounded size, without links on the way."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from osc_containers.errors import Error
from osc_containers.fs import plain_file


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_bytes(b"12345")
    assert plain_file.read(tmp_path, "a/b/c", 5) == b"12345"
    with pytest.raises(Error, match=r"/a/b/c: got more than 4 bytes, expected at most that many$"):
        plain_file.read(tmp_path, "a/b/c", 4)
    for missing in ("a/b/d", "a/x/c", "y"):
        assert plain_file.read(tmp_path, missing, 5) is None


def link(path: Path) -> None:
    path.symlink_to(__file__)


def dangling_link(path: Path) -> None:
    path.symlink_to("/missing")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [link, dangling_link, device, os.mkfifo, Path.mkdir])
def test_something_else_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x")
    with pytest.raises(Error, match=r"/x: got a .*, expected a file; remove it$"):
        plain_file.read(tmp_path, "x", 10)


def test_a_link_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/x").touch()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Error, match=r"/link/x: got a symlink"):
        plain_file.read(tmp_path, "link/x", 10)
    assert plain_file.read(tmp_path / "link", "x", 10) == b""
