"""The command `diff`, and the texts about changes that it has in common with `outdated`."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from osc_containers.cli.output import changelog
from osc_containers.lock import diff, lockfile
from tests.support import osc_program
from tests.support.locks import LONG_NAME, NEW_LOCK, OLD_LOCK, named_blob

TEXT = f"""\
  ARCH     OLD           CREATED     NEW           CREATED     LAYERS          TO FETCH
docker.io/library/added:1
  x86_64   -             -           ADDED         2026-02-03  0 kept, +2, -0    1.5 MB
docker.io/library/gone:1
  x86_64   GONE          -           -             -           0 kept, +0, -1         -
docker.io/library/wider:1
  aarch64  -             -           WIDER-ARM     2026-03-01  0 kept, +1, -0    2.7 kB
{LONG_NAME}
  x86_64   X1            2026-01-01  X2            2026-02-01  1 kept, +2, -1    1.0 MB"""

CHANGES = f"""\
- Update containers:
  * docker.io/library/wider:1: sha256:886a95762a19 ->
    sha256:93e7a2af315e (2026-03-01), for aarch64, too
  * {LONG_NAME}:
    sha256:1d52d006c6f3 (2026-01-01) -> sha256:7c01b7cc43a1
    (2026-02-01), 2 of 3 layers new
- Add containers:
  * docker.io/library/added:1: sha256:6c5e4848d360 (2026-02-03)
- Remove containers:
  * docker.io/library/gone:1"""


def with_digests(text: str) -> str:
    """Replace the names of images with the short digests of their manifests."""
    for name in ("WIDER-ARM", "ADDED", "GONE", "X1", "X2"):
        short = named_blob(f"manifest {name.lower().replace('-', ' ')}", 1).digest.short
        text = text.replace(f" {name.ljust(12)}", f" {short}")
    return text


def test_changes_are_shown_as_a_table() -> None:
    assert changelog.as_text(diff.compare(OLD_LOCK.references, NEW_LOCK.references)) == with_digests(TEXT)


def test_changes_are_formatted_for_a_changes_file() -> None:
    text = changelog.as_changes(diff.compare(OLD_LOCK.references, NEW_LOCK.references))
    assert text == CHANGES


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a package with the new lock."""
    (tmp_path / "containers.lock").write_text(lockfile.dumps(NEW_LOCK))
    return tmp_path


def run_diff(package: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    status = main(["diff", "--directory", str(package), *arguments])
    text = capsys.readouterr().out
    assert status == (1 if text else 0)
    return text


def test_diff_with_a_file(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.lock"
    other.write_text(lockfile.dumps(OLD_LOCK))
    assert run_diff(package, capsys, str(other)) == with_digests(TEXT) + "\n"
    assert run_diff(package, capsys, str(other), "--format", "changes") == CHANGES + "\n"
    assert len(json.loads(run_diff(package, capsys, str(other), "--format", "json"))) == 4


@pytest.mark.parametrize("path", ["sources/containers.lock", "containers.lock"])
def test_diff_with_the_committed_lock_of_osc(package: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    committed = package / ".osc" / path
    committed.parent.mkdir(parents=True)
    committed.write_text(lockfile.dumps(OLD_LOCK))
    assert run_diff(package, capsys) == with_digests(TEXT) + "\n"


def test_diff_with_a_working_copy_without_a_lock(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / ".osc").mkdir()
    text = run_diff(package, capsys, "--format", "changes")
    assert text.startswith("- Add containers:\n  * docker.io/library/added:1: ")
    assert "Update" not in text


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")
    subprocess.run(["git", "-C", directory, *identity, *arguments], check=True, capture_output=True)


def test_diff_with_a_git_revision(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(package, "init")
    git(package, "commit", "--allow-empty", "--message", "Begin")
    inner = package / "inner"
    inner.mkdir()
    for lock in (OLD_LOCK, NEW_LOCK):
        (inner / "containers.lock").write_text(lockfile.dumps(lock))
        git(package, "add", "inner")
        git(package, "commit", "--message", "Lock")
    assert run_diff(inner, capsys) == ""
    assert run_diff(inner, capsys, "HEAD~1") == with_digests(TEXT) + "\n"
    assert run_diff(inner, capsys, "HEAD~2", "--format", "changes").startswith("- Add containers:")


def test_diff_with_a_git_repository_without_commits(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(package, "init")
    assert run_diff(package, capsys, "--format", "changes").startswith("- Add containers:\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository away")
def test_diff_reports_the_error_of_git(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(package, "init")
    for path in (package, package / ".git"):
        os.chown(path, 65534, 65534)
    assert main(["diff", "--directory", str(package)]) == 3
    message = capsys.readouterr().err
    assert message.startswith("osc-containers: error: git: fatal: detected dubious ownership in repository at ")
    assert message.count("\n") == 1
    assert "git config --global --add safe.directory" in message
    git(package, "config", "--global", "--add", "safe.directory", str(package))
    assert run_diff(package, capsys, "--format", "changes").startswith("- Add containers:\n")


def test_diff_with_an_obs_revision_runs_osc(
    package: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    osc_program.write_working_copy(package, "https://api.example.com")
    oscrc = osc_program.log_in("https://api.example.com") / ".config/osc/oscrc"
    outside = tmp_path_factory.mktemp("outside")
    (outside / "old").write_text(lockfile.dumps(OLD_LOCK))
    program = outside / "osc"
    arguments = f"--config={oscrc} -A https://api.example.com cat --revision 7 home:ann appliance containers.lock"
    program.write_text(f'#!/bin/sh\n[ "$*" = "{arguments}" ] && exec cat "{outside}/old"\necho "no: $*" >&2; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{outside}:{os.environ['PATH']}")
    assert run_diff(package, capsys, "7") == with_digests(TEXT) + "\n"
    assert main(["diff", "--directory", str(package), "8"]) == 3
    assert capsys.readouterr().err.startswith("osc-containers: error: osc: no: --config=")


@pytest.mark.parametrize(
    ("system", "arguments", "expected"),
    [
        (None, [], "is no working copy of osc or git; name the file to compare with"),
        (".git", ["gone"], "'gone': no such file, and no such revision in git"),
        (".git", ["--", "--output=x"], "'--output=x': no such file, and no such revision in git"),
        (".osc", ["x/y"], "'x/y': no such file, and a revision of OBS is a number, a hash or 'latest'"),
    ],
)
def test_diff_reports_an_unknown_file_or_revision(
    package: Path, capsys: pytest.CaptureFixture[str], system: str | None, arguments: list[str], expected: str
) -> None:
    if system == ".git":
        git(package, "init")
    elif system:
        (package / system).mkdir()
    assert main(["diff", "--directory", str(package), *arguments]) == 3
    assert expected in capsys.readouterr().err
