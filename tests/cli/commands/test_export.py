"""`export`: an archive of one image from either layout, or an error and nothing written."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import APP, LAYOUTS, WEB, hashes, run_prefetch, want

BOTH = ("x86_64", "aarch64")


@pytest.fixture(params=LAYOUTS)
def package(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    directory = tmp_path / "package"
    directory.mkdir()
    source = FakeSource({APP: images.multi_platform("app"), WEB: images.multi_platform("web")})
    run_prefetch(source, directory, *want(APP, WEB, architectures=BOTH), layout=request.param)
    return directory


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    directory = tmp_path / "archives"
    directory.mkdir()
    source = FakeSource({APP: images.multi_platform("app"), WEB: images.multi_platform("web")})
    run_prefetch(source, directory, *want(APP, WEB, architectures=BOTH))
    return directory


def test_the_archive_is_that_of_the_layout_archives(
    package: Path, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(package)
    target = tmp_path / "x.tar"
    assert main(["export", APP, str(target), str(package), "--arch", platform.of_this_machine()]) == 0
    (original,) = archives.glob(f"*app*{platform.of_this_machine()}.ociarchive")
    assert target.read_bytes() == original.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o644
    assert capsys.readouterr().out == f"{target}: {APP} for {platform.of_this_machine()}, 12.3 kB\n"
    assert hashes(package) == before


def test_a_foreign_architecture_starts_from_its_manifest(package: Path, tmp_path: Path) -> None:
    """An engine would take the entry of an index that is for this machine, which the archive does not have."""
    arch = next(arch for arch in BOTH if arch != platform.of_this_machine())
    assert main(["export", APP, str(tmp_path / "x"), str(package), "--arch", arch]) == 0
    index = images.multi_platform("app")
    (child,) = (child for child in index.children if child.platform == platform.of_architecture(arch))
    content = (tmp_path / "x").read_bytes()
    assert index.raw not in content
    assert f'"manifests":[{{"mediaType":"{child.media_type}","digest":"{child.digest}"'.encode() in content


def test_a_file_is_replaced_with_force_only(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "x"
    target.write_text("mine")
    arguments = ["export", APP, str(target), str(package), "--arch", "x86_64"]
    assert main(arguments) == 1
    assert f"{target}: exists already; use --force to replace it" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main([*arguments, "--force"]) == 0
    assert len(target.read_bytes()) > 9000
    target.unlink()
    target.mkdir()
    assert main([*arguments, "--force"]) == 1
    assert "exists already; choose another name" in capsys.readouterr().err


def test_a_file_system_that_cannot_extend_files_may_have_the_archive(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As fusefat, where ftruncate(2) only makes files shorter."""

    def refuse(descriptor: int, size: int) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "ftruncate", refuse)
    assert main(["export", APP, str(tmp_path / "x"), str(package), "--arch", "x86_64"]) == 0


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    layer = images.multi_platform("app").children[0].blobs[-1]
    start = content.index(layer)
    content[start] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("change", [damage, Path.unlink, lambda path: os.truncate(path, 100)])
def test_damage_leaves_nothing_behind(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], object]
) -> None:
    digest = Digest.of(images.multi_platform("app").children[0].blobs[-1])
    name = f"sha256-{digest.hex}.blob"
    path = package / name
    if not path.exists():
        (path,) = package.glob("*app*x86_64.ociarchive")
    change(path)
    (out := tmp_path / "out").mkdir()
    assert main(["export", APP, str(out / "x"), str(package), "--arch", "x86_64"]) == 1
    assert "run the prefetch again" in capsys.readouterr().err
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["registry.example.com/other:1"], f"registry.example.com/other:1 is not locked; expected one of {APP}, {WEB}"),
        (["UPPER:1"], "expected lower-case letters"),
        ([APP, "--arch", "s390x"], f"{APP} is not locked for s390x; choose with --arch from aarch64, x86_64"),
        ([APP, "--arch", "pdp11"], "unknown architecture 'pdp11'"),
    ],
)
def test_what_is_not_locked_is_refused(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    reference, *options = arguments
    assert main(["export", reference, str(tmp_path / "x"), str(package), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
