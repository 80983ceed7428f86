"""Which version control counts, and what it has."""

import logging
import os
import subprocess
from pathlib import Path

import pytest

from osc_containers.obs import working_copy
from osc_containers.obs.working_copy import System
from tests.support import osc_program

API = "https://api.example.com"


def test_an_osc_directory_in_a_work_tree_of_git_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    package = tmp_path / "package"
    package.mkdir()
    osc_program.write_working_copy(package, API)
    (package / ".osc/lock").write_text("osc")
    assert working_copy.system_of(package) is System.OSC
    assert working_copy.committed(package, "lock", None, 9) == b"osc"
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    assert working_copy.system_of(package) is System.GIT
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        assert working_copy.committed(package, "lock", None, 9) is None
    [warning] = caplog.messages
    assert warning.startswith(f"{package}/.osc: ignored, because it is in a work tree of git; to use it, add it to ")
    assert warning.endswith(f" {tmp_path}/.git/info/exclude")
    (tmp_path / ".git/info/exclude").write_text(".osc\n")
    assert working_copy.system_of(package) is System.OSC
    assert working_copy.committed(package, "lock", None, 9) == b"osc"


def test_a_link_is_no_osc_directory(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / ".osc").symlink_to("other")
    assert working_copy.system_of(tmp_path) is None


def test_files_of_git_that_are_not_committed(tmp_path: Path) -> None:
    """A file in a repository may be a pointer of git-lfs, which stands for a larger file in the work tree."""
    package = tmp_path / "repository/package"
    package.mkdir(parents=True)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"
    for name in ("same", "changed", "replaced", "large", "resized", "staged", "new"):
        (package / name).write_text("text")
    for name in ("large", "resized"):
        os.truncate(package / name, 2 << 20)
    for name in ("pulled", "other"):
        (package / name).write_text(pointer)
    run = ["git", "-C", str(tmp_path / "repository"), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "init", "--quiet", tmp_path / "repository"], check=True)
    names = sorted(path.name for path in package.iterdir())
    assert working_copy.uncommitted(package, names) == names
    subprocess.run([*run, "add", *(f"package/{name}" for name in names if name not in ("staged", "new"))], check=True)
    subprocess.run([*run, "commit", "--quiet", "-m", "x"], check=True)
    (package / "changed").write_text("TEXT")
    (package / "replaced").write_text("longer text")
    (package / "pulled").write_text("content")
    (package / "other").write_text("something else")
    os.truncate(package / "resized", 3 << 20)
    subprocess.run([*run, "add", "package/staged"], check=True)
    assert working_copy.untracked(package, names) == ["new"]
    assert working_copy.uncommitted(package, names) == ["changed", "new", "other", "replaced", "resized", "staged"]


def test_files_of_osc_that_are_not_committed(tmp_path: Path) -> None:
    """Files that are larger than the limit of osc have no copy, but are listed."""
    osc_program.write_working_copy(
        tmp_path, API, _to_be_added="added", _files='<directory><entry name="big"/></directory>'
    )
    (tmp_path / ".osc/sources").mkdir()
    for name in ("same", "changed", "added", "big", "new"):
        (tmp_path / name).write_text("text")
    for name in ("same", "changed"):
        (tmp_path / ".osc/sources" / name).write_text(name.replace("same", "text"))
    names = ["same", "changed", "added", "big", "new"]
    assert working_copy.untracked(tmp_path, names) == ["new"]
    assert working_copy.uncommitted(tmp_path, names) == ["changed", "added", "big", "new"]


def test_without_version_control_nothing_is_committed(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert working_copy.untracked(tmp_path, ["a"]) == []
    assert working_copy.uncommitted(tmp_path, ["a"]) == ["a"]
