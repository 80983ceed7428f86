"""Which version control counts, and commands that a shell takes as they are meant."""

import logging
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


NAMES = {
    "plain.xml": "plain.xml",
    "a b": "'a b'",
    "-rf": "./-rf",
    "--": "./--",
    "-a b": "'./-a b'",
    "it's": """'it'"'"'s'""",
    "a\nb'c\\d": r"$'a\012b\'c\\d'",
    "-\x1b[2J": r"$'./-\033[2J'",
    "\udcff": r"$'\377'",
    "\u202ex": r"$'\342\200\256x'",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_command_is_a_name(tmp_path: Path, name: str) -> None:
    word = NAMES[name]
    assert working_copy.removal_of(tmp_path, name) == f"rm {word}"
    assert working_copy.commands_for(tmp_path, [name])[0] == f"osc add {word}"
    assert working_copy.commands_for(tmp_path, [f"{name}.ociarchive"])[0].startswith("osc add ")
    seen = subprocess.run(["bash", "-c", f"printf %s {word}"], check=True, capture_output=True).stdout
    assert seen.decode("utf-8", "surrogateescape").removeprefix("./") == name


def test_a_pattern_for_archives_gives_no_options(tmp_path: Path) -> None:
    names = ["a.ociarchive", "b.ociarchive"]
    assert working_copy.commands_for(tmp_path, names)[0] == "osc add *.ociarchive"
    (tmp_path / "-rf.ociarchive").touch()
    assert working_copy.commands_for(tmp_path, names)[0] == "osc add ./*.ociarchive"
    assert working_copy.commands_for(tmp_path, ["-rf.ociarchive"])[0] == "osc add ./-rf.ociarchive"
