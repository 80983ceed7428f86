"""Injecting with `store`: what goes into the store, what else is written, and what is refused."""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from osc_containers.cli import main
from osc_containers.errors import DescriptionError, Error
from osc_containers.inject import inject
from osc_containers.inject.layout_directory import LAYOUTS
from osc_containers.inject.store import stores
from osc_containers.inject.store.image_files import STORAGE_CONF
from osc_containers.inject.units import ARCHIVES
from osc_containers.kiwi import description
from osc_containers.obs.package import Package
from tests.support import images, store
from tests.support.fake_source import FakeSource
from tests.support.layer_tars import Writer
from tests.support.prefetch_run import run_prefetch, want

needs_mksquashfs = pytest.mark.integration

KIWI = """<image schemaversion="8.0" name="x">
  <profiles><profile name="A" description="a"/><profile name="B" description="b"/></profiles>
  <containers source="registry.example.com" backend="podman">
    <container name="app" path="team" tag="1.0"/>
    <container name="web" path="team" tag="1.0"/>
    <container name="data" path="team" tag="1.0" fetch_only="true"/>
  </containers>
  <containers source="registry.example.com" backend="podman" profiles="A">
    <container name="extra" path="team" tag="1.0"/>
  </containers>
  <containers source="registry.example.com" backend="docker" profiles="B">
    <container name="other" path="team" tag="1.0"/>
  </containers>
</image>
"""
BASE = images.random_layer("base", 30_000)
NAMES = ("app", "web", "data", "extra", "other")
IMAGES = {name: images.image(BASE, images.random_layer(name, 10_000)) for name in NAMES}
SQUASHFS = "usr/lib/kiwi_containers/store.squashfs"
UNITS = "usr/lib/systemd/system"
STORAGE = '[storage]\ndriver = "overlay"\nrunroot = "/r"\ngraphroot = "/g"\n[storage.options]\n'


def prefetched(directory: Path, contents: dict[str, images.Image]) -> Package:
    directory.mkdir()
    (directory / "a.kiwi").write_text(KIWI)
    references = {f"registry.example.com/team/{name}:1.0": image for name, image in contents.items()}
    run_prefetch(FakeSource(references), directory, *want(*references))
    return Package(directory)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """Return a prefetched package."""
    return prefetched(tmp_path / "package", IMAGES)


def read(package: Package) -> description.Description:
    return description.read(package.directory / "a.kiwi")


def inject_sources(package: Package, *patterns: str) -> None:
    inject.inject_sources(package, read(package), "x86_64", store=patterns)


def layouts(root: Path) -> set[str]:
    return set(os.listdir(root / LAYOUTS[1:])) if (root / LAYOUTS[1:]).exists() else set()


def names_in(squashfs: Path, directory: Path) -> set[str]:
    """Return the names of the images in a store."""
    with store.mounted(squashfs, directory) as mount:
        return {str(name) for record in store.records(mount, "images").values() for name in as_list(record["names"])}


def as_list(value: object) -> Sequence[object]:
    assert isinstance(value, list)
    return value


@needs_mksquashfs
def test_what_matches_goes_into_the_store_of_its_directory(
    package: Package, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    inject_sources(package, "*/app:*", "*/data:*", "*/extra:1.0")
    root, profile, other = (package.directory / name for name in ("root", "A", "B"))
    team = "registry.example.com/team"
    assert names_in(root / SQUASHFS, tmp_path / "m") == {f"{team}/app:1.0", f"{team}/data:1.0"}
    assert names_in(profile / "usr/lib/kiwi_containers/store_A.squashfs", tmp_path / "m") == {f"{team}/extra:1.0"}
    assert layouts(root) == {"web_1.0"}
    assert os.listdir(root / ARCHIVES[1:]) == ["data_1.0"], "fetch_only stays an archive"
    assert layouts(profile) == set()
    assert layouts(other) == {"other_1.0"}
    assert not (other / STORAGE_CONF[1:]).exists()
    for directory in (root, profile):
        lines = (directory / STORAGE_CONF[1:]).read_text().splitlines()
        assert lines[-1] == 'additionalimagestores = ["/usr/lib/containers/storage", "/usr/lib/containers/storage_A"]'
        assert (directory / UNITS / "kiwi_containers.service").is_file()
        assert (directory / UNITS / "multi-user.target.wants/kiwi_containers.service").is_symlink()
        assert (directory / "usr/lib/containers/storage_A/overlay-images/images.json").read_text() == "[]\n"
    assert os.readlink(root / UNITS / "kiwi_containers-podman-app_1.0.service") == "kiwi_containers-store.service"
    sha256 = hashlib.sha256((root / SQUASHFS).read_bytes()).hexdigest()
    assert (root / f"{SQUASHFS}.sha256").read_text() == f"{sha256}  /{SQUASHFS}\n"
    assert [line for line in caplog.messages if line.startswith(f"root/{SQUASHFS}: 2 images, 3 layers, ")]
    assert [line for line in caplog.messages if line.endswith(f"sha256 {sha256}")]
    assert (root / SQUASHFS).stat().st_mode & 0o7777 == 0o644
    assert b"<containers" not in (package.directory / "a.kiwi").read_bytes()


@needs_mksquashfs
def test_a_root_tree_gets_one_store(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "large"))
    root = tmp_path / "root"
    root.mkdir()
    command = ["inject", "--root", str(root), "--arch", "x86_64", "--profile", "A", "--store", "*/[ae]*"]
    assert main.main([*command, str(package.directory)]) == 0, capfd.readouterr().err
    team = "registry.example.com/team"
    assert names_in(root / SQUASHFS, tmp_path / "m") == {f"{team}/app:1.0", f"{team}/extra:1.0"}
    assert layouts(root) == {"web_1.0"}
    assert (root / STORAGE_CONF[1:]).exists()
    assert list((tmp_path / "large").iterdir()) == []
    # The second run finds the storage.conf of the first.
    assert main.main([*command, str(package.directory)]) == 0, capfd.readouterr().err


@needs_mksquashfs
def test_a_configuration_of_the_packager_stays(package: Package) -> None:
    own = package.directory / f"root{STORAGE_CONF}"
    own.parent.mkdir(parents=True)
    text = f'{STORAGE}additionalimagestores = ["/other", "/usr/lib/containers/storage"]\n'
    own.write_text(text)
    inject_sources(package, "*/app:*")
    assert own.read_text() == text


def test_a_configuration_without_the_store_is_refused(package: Package, tmp_path: Path) -> None:
    # The files of a profile that has no store replace those of `root`, too.
    own = package.directory / f"B{STORAGE_CONF}"
    own.parent.mkdir(parents=True)
    own.write_text(STORAGE)
    before = sorted(package.directory.rglob("*"))
    with pytest.raises(DescriptionError, match=r"B/etc/containers/storage\.conf: does not list the stores"):
        inject_sources(package, "*/app:*")
    assert sorted(package.directory.rglob("*")) == before, "nothing is left"
    root = tmp_path / "root"
    (root / "etc/containers").mkdir(parents=True)
    (root / STORAGE_CONF[1:]).write_text(STORAGE)
    with pytest.raises(DescriptionError, match=r"root/etc/containers/storage.conf: does not list the stores"):
        inject.inject_root(package, read(package), "x86_64", [], root, ["*/app:*"])
    assert sorted(root.rglob("*")) == [root / "etc", root / "etc/containers", root / STORAGE_CONF[1:]]


@needs_mksquashfs
def test_no_program_of_the_package_runs(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = package.directory / "bin/mksquashfs"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\ntouch "$0.ran"\n')
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    (tmp_path / "root").mkdir()
    inject.inject_root(package, read(package), "x86_64", [], tmp_path / "root", ["*/app:*"])
    inject_sources(package, "*/app:*")
    assert os.listdir(stub.parent) == ["mksquashfs"]


def test_other_engines_are_refused(package: Package) -> None:
    with pytest.raises(DescriptionError, match=r"a\.kiwi:12: registry.example.com/team/other:1\.0 matches store='\*'"):
        inject_sources(package, "*")
    assert not (package.directory / "root").exists()


def test_a_hostile_layer_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer()
    writer.add("../../etc/passwd")
    package = prefetched(tmp_path / "package", IMAGES | {"app": images.image(images.layer_of(writer.done()))})
    stub = tmp_path / "bin/mksquashfs"
    stub.parent.mkdir()
    stub.write_text("#!/bin/sh\necho mksquashfs version 4.6\n")
    stub.chmod(0o755)
    (tmp_path / "large").mkdir()
    monkeypatch.setenv("PATH", f"{stub.parent}:/usr/bin:/bin")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "large"))
    before = sorted(package.directory.rglob("*"))
    with pytest.raises(Error, match=r"team/app:1\.0: layer 1 of 1, .*'\.\./\.\./etc/passwd': got a path with '\.\.'"):
        inject_sources(package, "*/app:*")
    assert sorted(package.directory.rglob("*")) == before
    assert list((tmp_path / "large").iterdir()) == []


def test_the_workspace_is_private(tmp_path: Path) -> None:
    with stores.workspace({"TMPDIR": str(tmp_path)}) as directory:
        assert directory.parent == tmp_path
        assert directory.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


SERVICE = """<services>
<service name="kiwi_containers" mode="manual"><param name="inject">source</param></service>
<service name="kiwi_containers_inject" mode="buildtime"><param name="store">*/app:*</param></service>
</services>
"""


@pytest.mark.parametrize("command", [["prefetch"], ["inject", "--root", "/nowhere", "--arch", "x86_64"]])
def test_a_bundle_has_no_store(package: Package, capfd: pytest.CaptureFixture[str], command: list[str]) -> None:
    (package.directory / "_service").write_text(SERVICE)
    assert main.main([*command, str(package.directory)]) == 1
    problem = (
        "_service:3: store: a bundle has no store; remove 'store', or use inject=buildtime instead of inject=source"
    )
    assert problem in capfd.readouterr().err
