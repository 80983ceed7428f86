"""A package in git whose images are in git-lfs: the real git-lfs, with a repository on this disk."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from tests.support import images, packages
from tests.support.fault_registry import FaultRegistry

COMMANDS = ("verify", "check", "prefetch", "prefetch --locked", "init", "inject --arch=x86_64 --root=../root")


def git(directory: Path, *arguments: str) -> str:
    names = [f"GIT_{role}_{field}" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")]
    done = subprocess.run(
        ["git", *arguments],
        cwd=directory,
        env={**os.environ, **dict.fromkeys(names, "a@example.com"), "GIT_LFS_SKIP_SMUDGE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.integration
@pytest.mark.parametrize(("layout", "suffix"), [("archives", ".ociarchive"), ("blobs", ".blob")])
def test_a_clone_without_large_files_is_told_how_to_get_them(
    registry: FaultRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    layout: str,
    suffix: str,
) -> None:
    reference = registry.push(images.small("app"), "team/app:1")
    section = packages.section(registry.host, 'name="app" path="team" tag="1"')
    package = packages.write(tmp_path / "package", section)
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(package, "init", "--quiet")
    git(package, "lfs", "install", "--local")
    (package / "_service").unlink()
    assert main(["init", "--arch=x86_64", f"--layout={layout}", str(package)]) == 0
    # What init says is what has to be done.
    (patterns,) = re.findall(r"first run: git lfs track (.*)", capsys.readouterr().err)
    subprocess.run(f"git lfs track {patterns}", shell=True, cwd=package, check=True)
    git(package, "add", ".")
    git(package, "commit", "--quiet", "--message=containers")
    git(package, "push", "--quiet", f"file://{tmp_path}/origin.git", "HEAD:refs/heads/main")
    main(["check", str(package)])
    assert "git" not in "".join(capsys.readouterr())

    git(tmp_path, "clone", "--quiet", "--branch=main", f"file://{tmp_path}/origin.git", "clone")
    clone = tmp_path / "clone"
    pointers = {path: path.read_bytes() for path in clone.glob(f"*{suffix}")}
    assert {content[:24] for content in pointers.values()} == {b"version https://git-lfs."}
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(clone)
    for command in (*COMMANDS, f"export --arch=x86_64 {reference} ../output"):
        assert main(command.split()) != 0, command
        output = "".join(capsys.readouterr()).replace("\n    ", " ")
        assert "is a git-lfs pointer" in output, command
        assert "git lfs pull" in output, command
        assert {path: path.read_bytes() for path in pointers} == pointers
    assert os.listdir(tmp_path / "root") == []

    git(clone, "lfs", "pull")
    assert main(["verify", str(clone)]) == 0
    main(["check", str(clone)])
    assert "git" not in "".join(capsys.readouterr())
    assert git(clone, "status", "--porcelain") == ""
