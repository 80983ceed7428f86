"""Commands that work where the package is, and that a shell takes as they are meant."""

import json
import subprocess
from pathlib import Path

import pytest

from osc_containers.obs import hints, service_file
from osc_containers.obs.hints import Place
from tests.support import osc_program

API = "https://api.example.com"
ENTRIES = {
    mode: service_file.parse(f'<services><service name="kiwi_containers" mode="{mode}"/></services>'.encode())
    for mode in ("manual", "disabled", "localonly", "buildtime", "")
}


def make(directory: Path, place: Place) -> Path:
    """Make a directory which is that to osc, with a file that is not committed."""
    directory.mkdir()
    (directory / "new").write_text("new")
    if place in (Place.PACKAGE, Place.PROJECT):
        osc_program.write_working_copy(directory, API)
    if place is Place.PROJECT:
        (directory / ".osc/_package").unlink()
    if place in (Place.GIT, Place.GIT_PACKAGE):
        subprocess.run(["git", "init", "--quiet", "--initial-branch=a/b", directory], check=True)
    if place is Place.GIT_PACKAGE:
        (directory / ".git/obs/a__b").mkdir(parents=True)
        meta = {"header": {}, "apiurl": API, "project": "home:ann", "package": "app"}
        (directory / ".git/obs/a__b/meta.json").write_text(json.dumps(meta))
    return directory


@pytest.mark.parametrize(
    ("place", "manual", "without", "add", "commit"),
    [
        (Place.PACKAGE, "osc service manualrun", "osc containers prefetch", "osc add new", "osc commit"),
        (Place.PROJECT, "osc containers prefetch", "osc containers prefetch", "osc mkpac", ""),
        (Place.GIT_PACKAGE, "osc service manualrun", "osc containers prefetch", "git add new", "git commit"),
        (Place.GIT, "osc-containers prefetch", "osc-containers prefetch", "git add new", "git commit"),
        (Place.NONE, "osc-containers prefetch", "osc-containers prefetch", "", ""),
    ],
)
def test_commands_work_in_the_directory(
    tmp_path: Path, place: Place, manual: str, without: str, add: str, commit: str
) -> None:
    directory = make(tmp_path / "package", place)
    assert hints.place_of(directory) is place
    assert hints.prefetch(directory, ENTRIES["manual"]) == manual
    assert hints.prefetch(directory) == hints.prefetch(directory, ENTRIES["buildtime"]) == without
    assert hints.own(directory, "split") == without.replace("prefetch", "split")
    commands = hints.commit(directory, ["new"])
    assert [each.split(" NAME ")[0] for each in commands] == [each for each in (add, commit) if each]
    assert (hints.commit_all(directory) == ()) is (place is Place.NONE)


def test_a_mode_has_its_own_command(tmp_path: Path) -> None:
    make(tmp_path / "package", Place.PACKAGE)
    commands = {mode: hints.prefetch(tmp_path / "package", entries) for mode, entries in ENTRIES.items()}
    assert commands == {
        "manual": "osc service manualrun",
        "disabled": "osc service disabledrun",
        "localonly": "osc service run",
        "buildtime": "osc containers prefetch",
        "": "osc containers prefetch",
    }


@pytest.mark.parametrize("damage", ["", "[]", '{"project": "p", "package": "k"}', "{", "\\xff"])
def test_metadata_of_git_must_be_complete(tmp_path: Path, damage: str) -> None:
    directory = make(tmp_path / "package", Place.GIT_PACKAGE)
    (directory / ".git/obs/a__b/meta.json").write_text(damage)
    assert hints.place_of(directory) is Place.GIT


def test_a_detached_head_has_no_metadata(tmp_path: Path) -> None:
    directory = make(tmp_path / "package", Place.GIT_PACKAGE)
    (directory / ".git/HEAD").write_text("0" * 40)
    assert hints.place_of(directory) is Place.GIT


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
    assert hints.removal_of(tmp_path, name) == f"rm {word}"
    (tmp_path / ".osc").mkdir()
    assert hints.removal_of(tmp_path, name) == f"osc rm --force {word}"
    assert hints.commit(tmp_path, [name])[0] == f"osc add {word}"
    assert hints.commit(tmp_path, [f"{name}.ociarchive"])[0].startswith("osc add ")
    seen = subprocess.run(["bash", "-c", f"printf %s {word}"], check=True, capture_output=True).stdout
    assert seen.decode("utf-8", "surrogateescape").removeprefix("./") == name


def test_many_files_become_a_pattern(tmp_path: Path) -> None:
    (tmp_path / ".osc").mkdir()
    names = ["a.blob", "a.ociarchive", "b.blob", "b.ociarchive", "c"]
    assert hints.add(tmp_path, names) == "osc add c *.ociarchive *.blob"


def test_a_pattern_for_archives_gives_no_options(tmp_path: Path) -> None:
    (tmp_path / ".osc").mkdir()
    names = ["a.ociarchive", "b.ociarchive"]
    assert hints.commit(tmp_path, names)[0] == "osc add *.ociarchive"
    (tmp_path / "-rf.ociarchive").touch()
    assert hints.commit(tmp_path, names)[0] == "osc add ./*.ociarchive"
    assert hints.commit(tmp_path, ["-rf.ociarchive"])[0] == "osc add ./-rf.ociarchive"


def test_git_lfs_is_told_of_large_files(tmp_path: Path) -> None:
    names = ["_service", "a.ociarchive", "sha256-1.blob", "sha256-2.blob"]
    assert hints.lfs(tmp_path, names) == ""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    start = "if the repository keeps large files in git-lfs, first run: git lfs track "
    assert hints.lfs(tmp_path, names) == f"{start}'*.ociarchive' '*.blob'"
    assert hints.lfs(tmp_path, names[:1]) == ""
    (tmp_path / ".gitattributes").write_text("*.blob filter=lfs diff=lfs merge=lfs -text\n")
    assert hints.lfs(tmp_path, names) == f"{start}'*.ociarchive'"
    assert hints.lfs(tmp_path, names[2:]) == ""
