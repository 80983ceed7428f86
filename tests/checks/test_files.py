"""`check` of the files of a package: what nothing includes, what version control lacks; and `check --fix`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from osc_containers.cli.main import main
from osc_containers.lock import lockfile
from tests.checks.test_check import APP, CLEAN, CONTAINERS, KIWI, NAME, SERVICE, write
from tests.support import osc_program
from tests.support.locks import make_lock

API = "https://api.opensuse.org"
UNUSED = KIWI.replace('  <include from="this://./containers.xml"/>\n', "")


def findings(directory: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    main(["check", "--format", "json", *options, str(directory)])
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def git(directory: Path, *arguments: str) -> str:
    user = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ["git", "-C", str(directory), *user, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def commit(directory: Path, *names: str) -> None:
    git(directory, "init", "--quiet")
    git(directory, "add", *names)
    git(directory, "commit", "--quiet", "-m", "x")


def in_osc(directory: Path, *tracked: str) -> Path:
    osc_program.write_working_copy(directory, API)
    (directory / ".osc/sources").mkdir()
    for name in tracked:
        shutil.copyfile(directory / name, directory / ".osc/sources" / name)
    return directory


# Files that nothing includes.


@pytest.mark.parametrize("name", ["containers.xml", "more.containers.xml"])
def test_a_file_that_nothing_includes_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    write(tmp_path, {"a.kiwi": UNUSED, "containers.xml": None, name: CONTAINERS}, {})
    (found,) = findings(tmp_path, capsys)
    assert (found["severity"], found["check"], found["file"]) == ("error", "include", name)
    assert found["fix"] == f'<include from="this://./{name}"/> in a.kiwi'


@pytest.mark.parametrize(
    "files",
    [
        {"other.xml": "<image><packages/></image>"},
        {"other.xml": "<services><containers/></services>"},
        {"other.xml": "<image><containers"},
        {"other.xml": CONTAINERS.replace("<containers", "<preferences/><containers", 1)},
        {"b.kiwi": KIWI.replace("containers.xml", "other.xml"), "other.xml": CONTAINERS},
        {"_service:x:other.xml": CONTAINERS},
    ],
)
def test_other_xml_files_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str | None]
) -> None:
    write(tmp_path, files, APP)
    assert "include" not in [each["check"] for each in findings(tmp_path, capsys, "--description", "a.kiwi")]


# What version control lacks.


def test_files_that_git_lacks_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {}, APP)
    commit(tmp_path, "a.kiwi", "_service")
    assert main(["check", "--strict", str(tmp_path)]) == 1
    capsys.readouterr()
    (found,) = findings(tmp_path, capsys)
    assert (found["severity"], found["check"]) == ("warning", "commit")
    assert found["fix"] == f"git add containers.lock containers.xml {NAME}"
    subprocess.run(["bash", "-c", found["fix"]], check=True, cwd=tmp_path)
    assert findings(tmp_path, capsys) == []


def test_files_that_git_ignores_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {".gitignore": "*.ociarchive\n"}, APP)
    commit(tmp_path, "_service", "a.kiwi", "containers.lock", "containers.xml")
    (found,) = findings(tmp_path, capsys)
    assert found["fix"] == f"git add --force {NAME}"
    subprocess.run(["bash", "-c", found["fix"]], check=True, cwd=tmp_path)
    assert findings(tmp_path, capsys) == []


def test_files_that_osc_lacks_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_osc(write(tmp_path, {}, APP), "a.kiwi", "_service", "containers.xml")
    (found,) = findings(tmp_path, capsys)
    assert found["fix"] == f"osc add containers.lock {NAME}"
    (tmp_path / ".osc/_to_be_added").write_text(f"containers.lock\n{NAME}\n")
    assert findings(tmp_path, capsys) == []


def test_a_repository_of_somebody_else_is_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {}, APP)
    commit(tmp_path, "a.kiwi")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    (tmp_path / ".git/HEAD").write_text("damaged")
    (found,) = findings(tmp_path, capsys)
    assert (found["severity"], found["check"]) == ("info", "commit")


# Includes that a build makes, or would lack.

NESTED = KIWI.replace("containers.xml", "components/containers.xml")


def packed(directory: Path) -> None:
    """Pack the directory as `osc add components` does, and remove it."""
    names = b"components\0components/containers.xml"
    command = ["cpio", "--quiet", "-o", "-H", "newc", "-0"]
    with (directory / "components.obscpio").open("wb") as file:
        subprocess.run(command, input=names, stdout=file, check=True, cwd=directory)
    shutil.rmtree(directory / "components")


def nested(directory: Path) -> Path:
    (directory / "components").mkdir()
    (directory / "components/containers.xml").write_text(CONTAINERS)
    return write(directory, {"a.kiwi": NESTED, "containers.xml": None}, APP)


def test_osc_leaves_out_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_osc(nested(tmp_path), "a.kiwi", "_service", "containers.lock", NAME)
    (found,) = findings(tmp_path, capsys)
    assert (found["severity"], found["check"], found["file"], found["line"]) == ("error", "include", "a.kiwi", 8)
    assert 'write <include from="this://./containers.xml"/>' in found["fix"]


def test_git_keeps_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(nested(tmp_path), ".")
    assert findings(tmp_path, capsys) == []


@pytest.mark.integration
def test_an_include_is_read_from_an_obscpio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_osc(nested(tmp_path), "a.kiwi", "_service", "containers.lock", NAME)
    packed(tmp_path)
    assert [each["fix"] for each in findings(tmp_path, capsys)] == ["osc add components.obscpio"]
    (tmp_path / ".osc/_to_be_added").write_text("components.obscpio\n")
    assert findings(tmp_path, capsys) == []
    assert main(["list", str(tmp_path)]) == 0
    assert "registry.example.com/team/app:1.0" in capsys.readouterr().out
    (tmp_path / "components").mkdir()
    (tmp_path / "components/containers.xml").write_text(CONTAINERS.replace("podman", "docker"))
    assert "differs from the file of this name" in findings(tmp_path, capsys)[0]["why"]


def test_an_include_is_read_as_a_service_made_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"containers.xml": None, "_service:obs_scm:containers.xml": CONTAINERS}, APP)
    assert findings(tmp_path, capsys) == []


# Files that a service makes.


@pytest.mark.parametrize(
    "options",
    [["init", "--no-prefetch"], ["init", "--no-prefetch", "--inject", "source"], ["split"], ["check", "--fix"]],
)
def test_what_a_service_makes_is_not_edited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    name = "_service:obs_scm:a.kiwi"
    section = CONTAINERS.partition("\n")[2]
    write(tmp_path, {"a.kiwi": None, "containers.xml": None, name: UNUSED.replace("</image>\n", section)}, {})
    (tmp_path / "_service").write_text('<services><service name="obs_scm"/></services>')
    (tmp_path / "containers.lock").unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert (
        main([*options, "--arch" if "init" in options else "-q", *["x86_64"] * ("init" in options), str(tmp_path)]) == 1
    )
    output = "".join(capsys.readouterr()).replace("\n    ", " ")
    assert "'obs_scm'" in output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Repairs.


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_fix_adds_the_include(tmp_path: Path, capsys: pytest.CaptureFixture[str], newline: str) -> None:
    write(tmp_path, {"a.kiwi": UNUSED}, APP)
    (tmp_path / "a.kiwi").write_bytes(UNUSED.replace("\n", newline).encode())
    assert main(["check", "--fix", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert output.startswith("--- a/a.kiwi\n+++ b/a.kiwi\n@@ ")
    assert '\n+  <include from="this://./containers.xml"/>\n' in output.replace("\\r", "")
    assert (tmp_path / "a.kiwi").read_bytes() == KIWI.replace("\n", newline).encode()
    before = (tmp_path / "a.kiwi").stat()
    assert main(["check", "--fix", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("no problems found\n")
    assert (tmp_path / "a.kiwi").stat() == before


@pytest.mark.parametrize("system", ["git", "osc"])
def test_fix_refuses_uncommitted_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str], system: str) -> None:
    write(tmp_path, {"a.kiwi": UNUSED}, APP)
    if system == "git":
        commit(tmp_path, ".")
    else:
        in_osc(tmp_path, *CLEAN, "containers.lock", NAME)
    (tmp_path / "a.kiwi").write_text(UNUSED.replace("ext4", "xfs"))
    before = (tmp_path / "a.kiwi").read_bytes()
    assert main(["check", "--fix", str(tmp_path)]) == 3
    assert "a.kiwi: has changes that are not committed" in capsys.readouterr().err
    assert (tmp_path / "a.kiwi").read_bytes() == before
    (tmp_path / "a.kiwi").write_text(UNUSED)
    assert main(["check", "--fix", str(tmp_path)]) == 0
    assert (tmp_path / "a.kiwi").read_text() == KIWI


def test_fix_leaves_several_descriptions_to_the_packager(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"a.kiwi": UNUSED, "b.kiwi": UNUSED}, {})
    assert main(["check", "--fix", str(tmp_path)]) == 1
    assert "the description" in capsys.readouterr().out
    assert (tmp_path / "a.kiwi").read_text() == (tmp_path / "b.kiwi").read_text() == UNUSED


@pytest.mark.parametrize("quote", ['"', "'"])
def test_fix_replaces_a_mode_for_an_old_server(tmp_path: Path, capsys: pytest.CaptureFixture[str], quote: str) -> None:
    service = SERVICE.replace("<services>", '<services>\n  <service name="x" mode="manual"/>').replace('"', quote)
    write(tmp_path, {"_service": service}, APP)
    assert main(["check", str(tmp_path)]) == 0
    assert main(["check", "--old-server", str(tmp_path)]) == 1
    assert main(["check", "--fix", str(tmp_path)]) == 0
    assert (tmp_path / "_service").read_text() == service
    assert main(["check", "--fix", "--old-server", str(tmp_path)]) == 0
    assert f"+  <service name={quote}kiwi_containers{quote} mode={quote}disabled{quote}/>" in capsys.readouterr().out
    old, new = (f"kiwi_containers{quote} mode={quote}{mode}" for mode in ("manual", "disabled"))
    assert (tmp_path / "_service").read_text() == service.replace(old, new)


def test_fix_adds_files_to_git(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {".gitignore": "*.ociarchive\n", "unrelated": "x", "stray.blob": "x"}, APP)
    commit(tmp_path, "a.kiwi")
    assert main(["check", "--fix", "--strict", str(tmp_path)]) == 0
    names = ["_service", "containers.lock", "containers.xml", NAME]
    assert capsys.readouterr().out.startswith("".join(f"{name}: added\n" for name in names))
    assert git(tmp_path, "diff", "--cached", "--name-only").split() == names


@pytest.mark.parametrize("place", [".gitattributes", ".git/info/attributes", "user"])
def test_fix_runs_no_filter_of_a_repository(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A filter runs when a file is added; git-lfs is one, but a repository may configure any program."""
    write(tmp_path, {}, APP)
    commit(tmp_path, "a.kiwi")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    attributes = tmp_path / {"user": "configuration/git/attributes"}.get(place, place)
    attributes.parent.mkdir(parents=True, exist_ok=True)
    attributes.write_text("*.lock filter=x\n")
    git(tmp_path, "config", "filter.x.clean", f"touch {tmp_path}/ran; cat")
    main(["check", "--fix", str(tmp_path)])
    assert "containers.lock: .gitattributes has a filter for it" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert git(tmp_path, "diff", "--cached", "--name-only") == ""


@pytest.mark.integration
def test_fix_adds_files_to_osc(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    in_osc(write(package, {}, APP), "a.kiwi")
    (package / ".osc/_files").write_text(
        '<directory name="appliance" rev="1"><entry name="a.kiwi" md5="0" size="1" mtime="1"/></directory>'
    )
    (package / ".osc/_osclib_version").write_text("1.0\n")
    configuration = tmp_path / "oscrc"
    configuration.write_text(f"[general]\napiurl={API}\n[{API}]\nuser=ann\npass=x\n")
    configuration.chmod(0o600)
    monkeypatch.setenv("OSC_CONFIG", str(configuration))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert main(["check", "--fix", "--strict", str(package)]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("_service: added\n"), output
    added = (package / ".osc/_to_be_added").read_text().split()
    assert sorted(added) == ["_service", "containers.lock", "containers.xml", NAME]


def test_fix_writes_all_or_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"a.kiwi": UNUSED}, APP)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(descriptor: int, content: bytes, offset: int) -> None:
        if b"<services>" in content:
            raise OSError(28, "No space left on device")
        os.pwrite(descriptor, content, offset)

    monkeypatch.setattr("osc_containers.fs.ranges.write_all", fail)
    assert main(["check", "--fix", "--old-server", str(tmp_path)]) == 3
    assert "_service: No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Before set-up, in the wrong directory, links.


def unset(directory: Path) -> None:
    section = CONTAINERS.partition("\n")[2]
    (directory / "a.kiwi").write_text(UNUSED.replace("</image>\n", section * 2).replace("</image>\n", "", 1))


def test_before_set_up_init_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unset(tmp_path)
    errors = [each for each in findings(tmp_path, capsys) if each["severity"] == "error"]
    assert [(each["check"], each["fix"]) for each in errors] == [("setup", "osc-containers init")]
    in_osc(tmp_path)
    assert [each["fix"] for each in findings(tmp_path, capsys) if each["severity"] != "info"] == ["osc containers init"]


def test_a_project_is_no_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unset(tmp_path)
    in_osc(tmp_path)
    (tmp_path / ".osc/_package").unlink()
    errors = [each for each in findings(tmp_path, capsys) if each["severity"] == "error"]
    assert [(each["check"], each["fix"].split(",")[0]) for each in errors] == [("place", "osc mkpac NAME")]
    write(tmp_path, {}, APP)
    assert [each["check"] for each in findings(tmp_path, capsys, "--fix")] == ["place"]
    assert not (tmp_path / ".osc/_to_be_added").exists()


@pytest.mark.parametrize("command", ["check", "outdated", "verify", "prefetch", "list", "init"])
@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda path: (path / "project/appliance").mkdir(parents=True), "there is one in the directory 'appliance'"),
        (lambda path: (path / "project").mkdir(), "there is one in the directory '..'"),
        (lambda path: (path / "project").mkdir(), "run 'osc update --expand-link'"),
        (lambda path: (path / "project").mkdir(), "no kiwi description, expected a file"),
    ],
)
def test_a_wrong_directory_is_said_to_be_one(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    prepare: Callable[[Path], None],
    expected: str,
) -> None:
    prepare(tmp_path)
    place = {"'appliance'": "project/appliance/a.kiwi", "'..'": "a.kiwi", "--expand-link'": "project/_link"}
    for word, name in place.items():
        if expected.endswith(word):
            (tmp_path / name).write_text(KIWI)
    assert main([command, str(tmp_path / "project")]) != 0
    assert expected in "".join(capsys.readouterr()).replace("\n    ", " ")


def test_a_link_that_is_not_expanded_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"_link": "<link project='p'/>"}, APP)
    (found,) = findings(tmp_path, capsys)
    assert (found["check"], found["fix"]) == ("link", "osc update --expand-link")


# Names and modes of services.


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("kiwi-containers", "kiwi_containers"),
        ("kiwi_container", "kiwi_containers"),
        ("Kiwi_Containers", "kiwi_containers"),
        ("obs-service-kiwi_containers", "kiwi_containers"),
        ("kiwi_containers_injection", "kiwi_containers_inject"),
        ("kiwi-containers-inject", "kiwi_containers_inject"),
    ],
)
def test_a_misspelled_service_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, meant: str
) -> None:
    write(tmp_path, {"_service": SERVICE.replace(f'"{meant}"', f'"{name}"')}, APP)
    (found,) = [each for each in findings(tmp_path, capsys) if each["severity"] == "error"]
    assert found["why"] == f"there is no service {name!r}, which is nearly the name of {meant}"
    assert found["fix"].startswith(f'<service name="{meant}" mode=')


@pytest.mark.parametrize("name", ["kiwi_metainfo_helper", "kiwi_label_helper", "obs_scm", "docker_label_helper"])
def test_other_services_are_no_misspellings(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    write(tmp_path, {"_service": SERVICE.replace("</services>", f'<service name="{name}"/></services>')}, APP)
    assert findings(tmp_path, capsys) == []


@pytest.mark.parametrize("mode", ["bogus", "Manual", "manual "])
def test_a_mode_that_obs_does_not_have_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    for ours in ("manual", "buildtime"):
        write(tmp_path, {"_service": SERVICE.replace(f'"{ours}"', f'"{mode}"')}, APP)
        (found,) = findings(tmp_path, capsys)
        assert f"got the mode {mode!r}, which OBS does not have, expected one of manual, localonly" in found["why"]
        (tmp_path / "_service").unlink()


def test_a_tag_with_a_digest_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tag = f"1.0@sha256:{'1' * 64}"
    write(tmp_path, {"containers.xml": CONTAINERS.replace("1.0", tag)}, {f"registry.example.com/team/app:{tag}": 10})
    (found,) = findings(tmp_path, capsys)
    assert (found["severity"], found["check"]) == ("info", "plain-kiwi")


def test_the_contents_of_archives_are_not_claimed_to_be_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, {}, APP)
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        "no problems found\ncontents of archives were not read; 'osc-containers verify' reads them\n"
    )


def test_an_empty_lock_has_no_contents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"containers.xml": "<image><containers source='a' backend='podman' arch='s390x'/></image>"}, {})
    (tmp_path / "containers.lock").write_text(lockfile.dumps(make_lock({})))
    main(["check", str(tmp_path)])
    assert "contents of archives" not in capsys.readouterr().out
