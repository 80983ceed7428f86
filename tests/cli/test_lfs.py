"""Pointers of git-lfs, which a clone has in the place of files that were not downloaded."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from osc_containers.formats import cpio
from osc_containers.fs import lfs_pointer
from osc_containers.lock import archive_names
from osc_containers.oci.digest import Digest
from tests.support import images

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 623104\n"
KIWI = '<image schemaversion="8.0" name="a">\n<include from="this://./containers.xml"/>\n</image>'
CONTAINERS = (
    '<image schemaversion="8.0" name="c"><containers source="oci:images" backend="podman">'
    '<container name="app" tag="1"/></containers></image>'
)
SERVICE = (
    '<services><service name="kiwi_containers" mode="manual"><param name="arch">x86_64</param></service>'
    '<service name="kiwi_containers_inject" mode="buildtime"/></services>'
)
NAMES = {
    "archives": "localhost_app_1.x86_64.ociarchive",
    "blobs": archive_names.blob(Digest.of(images.small("app").blobs[-1])),
}
"""A file of the package in each layout: the archive, or the last layer."""


@pytest.fixture(params=NAMES)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def name(layout: str) -> str:
    return NAMES[layout]


@pytest.fixture
def package(tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> Path:
    """Give a complete package whose image comes from a layout in it."""
    directory = tmp_path / "package"
    (directory / "images").mkdir(parents=True)
    images.write_layout(images.small("app"), directory / "images/app", "1")
    service = SERVICE.replace("<param", f'<param name="layout">{layout}</param><param')
    for name, text in {"a.kiwi": KIWI, "containers.xml": CONTAINERS, "_service": service}.items():
        (directory / name).write_text(text)
    assert main(["prefetch", str(directory)]) == 0
    capsys.readouterr()
    return directory


def states(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in directory.iterdir() if path.is_file()}


COMMANDS = ["verify", "check", "prefetch", "prefetch --locked", "init", "inject --arch x86_64 --root ."]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("other", ["", "containers.lock", "a.kiwi", "containers.xml", "_service"])
def test_a_pointer_is_named_and_kept(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, other: str, command: str
) -> None:
    name = other or name
    (package / name).write_text(POINTER)
    before = states(package)
    (tmp_path / "root").mkdir()
    assert main([*command.replace(" .", f" {tmp_path}/root").split(), str(package)]) != 0
    output = "".join(capsys.readouterr()).replace("\n    ", " ")
    assert name in output
    assert "is a git-lfs pointer, expected the file itself" in output
    assert "remove lfs=0 from the scmsync URL" in output
    assert "bytes, expected" not in output
    assert states(package) == before


def test_a_pointer_in_another_directory_is_kept(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_text(POINTER)
    (package / name).unlink()
    assert main(["prefetch", "--outdir", str(tmp_path / "other"), str(package)]) == 1
    assert f"{name}: is a git-lfs pointer" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in (tmp_path / "other").iterdir()} == {name: POINTER}


@pytest.mark.parametrize("command", ["check", "prefetch"])
def test_in_a_clone_git_lfs_gets_the_files(
    package: Path, capsys: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    subprocess.run(["git", "init", "--quiet", package.parent], check=True)
    (package / name).write_text(POINTER)
    assert main([command, str(package)]) == 1
    assert "git lfs pull" in "".join(capsys.readouterr())


def test_a_bundle_may_be_a_pointer(package: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (package / "_service").unlink()
    (package / name).unlink()
    (package / cpio.FILE_NAME).write_text(POINTER)
    assert main(["prefetch", "--arch", "x86_64", str(package)]) == 1
    assert f"{cpio.FILE_NAME}: is a git-lfs pointer" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["index.json", "oci-layout", "blobs"])
def test_an_image_of_the_package_may_be_a_pointer(
    package: Path, capsys: pytest.CaptureFixture[str], name: str, part: str
) -> None:
    (package / name).unlink()
    directory = package / "images/app"
    for path in directory.glob("blobs/sha256/*") if part == "blobs" else [directory / "index.json"]:
        path.write_text(POINTER)
    assert main(["prefetch", str(package)]) == 1
    assert "is a git-lfs pointer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (POINTER, True),
        (POINTER.replace("\n", "\r\n"), True),
        (POINTER.replace("git-lfs.github.com", "hawser.github.com"), True),
        (POINTER.replace("oid", "ext-0-foo sha256:00\noid"), True),
        ("", False),
        ("version 1\n", False),
        (f" {POINTER}", False),
    ],
)
def test_a_pointer_is_recognized(tmp_path: Path, content: str, expected: bool) -> None:
    (tmp_path / "a").write_bytes(content.encode())
    assert lfs_pointer.is_pointer(content.encode()) is expected
    assert lfs_pointer.is_pointer_file(tmp_path / "a") is expected
    assert lfs_pointer.size_of(content.encode()) == (623104 if "size" in content else None)


def _large(path: Path) -> None:
    path.write_text(POINTER)
    os.truncate(path, 2000)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, _large, lambda path: path.symlink_to("gone")])
def test_other_files_are_no_pointers(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a")
    assert not lfs_pointer.is_pointer_file(tmp_path / "a")
