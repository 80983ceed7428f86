"""Injecting with `engine`: the form that each engine gets, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from osc_containers.cli import main
from osc_containers.errors import DescriptionError
from osc_containers.inject import inject
from osc_containers.inject.layout_directory import LAYOUTS
from osc_containers.inject.units import ARCHIVES
from osc_containers.kiwi import description
from osc_containers.obs import engines
from osc_containers.obs.package import Package
from tests.support import images
from tests.support.engines import containerd, output, podman
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import run_prefetch, want

KIWI = """<image schemaversion="8.0" name="x">
  <profiles><profile name="A" description="a"/></profiles>
  <containers source="registry.example.com" backend="podman">
    <container name="app" path="team" tag="1.0" fetch_only="true"/>
    <container name="web" path="team" tag="1.0"/>
    <container name="data" path="team" tag="1.0" fetch_only="true"/>
  </containers>
  <containers source="registry.example.com" backend="docker" profiles="A">
    <container name="extra" path="team" tag="1.0" fetch_only="true"/>
  </containers>
</image>
"""
NAMES = ("app", "web", "data", "extra")
IMAGES = {name: images.small(name) for name in NAMES} | {"app": images.multi_platform("app")}
UNITS = "usr/lib/systemd/system"


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """Return a prefetched package."""
    directory = tmp_path / "package"
    directory.mkdir()
    (directory / "a.kiwi").write_text(KIWI)
    references = {f"registry.example.com/team/{name}:1.0": image for name, image in IMAGES.items()}
    run_prefetch(FakeSource(references), directory, *want(*references))
    return Package(directory)


def inject_sources(package: Package, *values: str, store: tuple[str, ...] = ()) -> None:
    read = description.read(package.directory / "a.kiwi")
    inject.inject_sources(package, read, "x86_64", store=store, choices=engines.parse(values))


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.exists() else []


def loads(root: Path) -> list[str]:
    """Return the units that load containers."""
    return [name for name in names(root / UNITS) if name.startswith("kiwi_containers-")]


def test_containerd_gets_a_layout_and_a_unit_instead_of_the_archive(package: Package) -> None:
    inject_sources(package, "containerd=*/app:*", "containerd:moby=*/[ae]*:1.0")
    root, profile = package.directory / "root", package.directory / "A"
    assert loads(root) == [
        "kiwi_containers-containerd-app_1.0.service",
        "kiwi_containers-containerd:moby-app_1.0.service",
        "kiwi_containers-podman-web_1.0.service",
    ]
    assert loads(profile) == ["kiwi_containers-containerd:moby-extra_1.0.service"]
    assert names(root / LAYOUTS[1:]) == ["app_1.0", "web_1.0"]
    assert names(root / LAYOUTS[1:] / "app_1.0") == ["blobs", "frame", "index.json", "oci-layout", "stream"]
    assert names(root / ARCHIVES[1:]) == ["data_1.0"], "the others with fetch_only stay archives"
    assert names(profile / ARCHIVES[1:]) == []


K3S, RKE2 = (f"/var/lib/rancher/{name}/agent/images/app_1.0.tar" for name in ("k3s", "rke2"))


def test_engines_that_take_archives_share_one(package: Package) -> None:
    archive = package.directory / "registry.example.com_team_app_1.0.x86_64.ociarchive"
    content = archive.read_bytes()
    inject_sources(package, "rke2=*/app:*", "k3s=*/app:*")
    root = package.directory / "root"
    assert (root / K3S[1:]).read_bytes() == content
    for path in (RKE2, f"{ARCHIVES}/app_1.0"):
        assert os.readlink(root / path[1:]) == K3S
    assert loads(root) == ["kiwi_containers-podman-web_1.0.service"]
    assert names(root / LAYOUTS[1:]) == ["web_1.0"]
    assert (root / "usr/lib/tmpfiles.d/kiwi_containers.conf").exists()


@pytest.mark.parametrize("targets", [("rke2",), ("containerd", "k3s")], ids=["alone", "beside a load"])
def test_whoever_knows_the_path_of_kiwi_finds_the_archive(
    package: Package, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    read = description.read(package.directory / "a.kiwi")
    choices = engines.parse([f"{target}=*/app:*" for target in targets])
    inject.inject_root(package, read, "x86_64", (), root, choices=choices)
    path = root / f"{ARCHIVES[1:]}/app_1.0"
    assert not path.is_symlink() or (root / os.readlink(path)[1:]).stat().st_size > 1000
    assert path.is_symlink()
    assert (loads(root)[0] == "kiwi_containers-containerd-app_1.0.service") == (targets[0] == "containerd")


@pytest.mark.integration
def test_ctr_imports_what_agents_import(package: Package, tmp_path: Path) -> None:
    """k3s and RKE2 import with containerd's library, like ctr; they were not tried themselves.

    They import for all platforms and, since June 2024, without those that an archive lacks. ctr has no such option, so
    an index is imported for this platform.
    """
    root = tmp_path / "root"
    root.mkdir()
    read = description.read(package.directory / "a.kiwi")
    inject.inject_root(package, read, "x86_64", (), root, choices=engines.parse(["k3s=*/app:*", "rke2=*/data:*"]))
    with containerd() as ctr:
        for path, name, options in ((K3S, "app", ()), (RKE2.replace("app", "data"), "data", ("--all-platforms",))):
            output(*ctr, "--namespace", "k8s.io", "images", "import", *options, root / path[1:])
            reference = f"registry.example.com/team/{name}:1.0"
            lines = output(*ctr, "--namespace", "k8s.io", "images", "check", f'name=="{reference}"').splitlines()
            found = lines[1].split()
            assert found[:1] + found[2:4] + found[-1:] == [reference, str(IMAGES[name].digest), "complete", "true"]


def test_cri_o_gets_what_podman_loads(package: Package) -> None:
    """They share a store; CRI-O itself was not tried."""
    inject_sources(package, "cri-o=*/app:*", "cri-o=*/extra:*")
    root, profile = package.directory / "root", package.directory / "A"
    assert loads(root) == ["kiwi_containers-podman-app_1.0.service", "kiwi_containers-podman-web_1.0.service"]
    assert loads(profile) == ["kiwi_containers-podman-extra_1.0.service"]
    assert names(root / LAYOUTS[1:] / "app_1.0") == ["blobs", "index.json", "oci-layout"]
    assert names(root / ARCHIVES[1:]) == ["data_1.0"]


@pytest.mark.integration
def test_cri_o_gets_the_read_only_store(package: Package) -> None:
    inject_sources(package, "cri-o=*/[ae]*", store=("*/[ae]*",))
    root, profile = package.directory / "root", package.directory / "A"
    assert (root / "usr/lib/kiwi_containers/store.images").read_text().split()[1] == "registry.example.com/team/app:1.0"
    assert (profile / "usr/lib/kiwi_containers/store_A.squashfs").stat().st_size > 1000
    assert loads(root) == [
        "kiwi_containers-podman-app_1.0.service",
        "kiwi_containers-podman-web_1.0.service",
        "kiwi_containers-store.service",
    ]
    assert os.readlink(root / UNITS / "kiwi_containers-podman-app_1.0.service") == "kiwi_containers-store.service"
    assert names(root / LAYOUTS[1:]) == ["web_1.0"]
    assert names(root / ARCHIVES[1:]) == ["data_1.0"]


MGRADM = "/usr/share/suse-docker-images/native"


def found_by_mgradm(root: Path, reference: str) -> Path | None:
    """Return the archive that mgradm loads (uyuni-tools of July 2026, shared/podman/images.go)."""
    path, _, tag = reference.partition("/")[2].partition(":")
    for file in sorted((root / MGRADM[1:]).iterdir()):
        if file.name.endswith("metadata"):
            image = json.loads(file.read_text())["image"]
            if image["name"] == path.replace("/", "-") and tag in image["tags"]:
                return root / f"{MGRADM}/{image['file']}"[1:]
    return None


@pytest.mark.integration
def test_mgradm_finds_what_podman_loads(package: Package, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    read = description.read(package.directory / "a.kiwi")
    inject.inject_root(package, read, "x86_64", (), root, choices=engines.parse(["mgradm=*/app:*"]))
    name = "registry.example.com/team/app:1.0"
    assert found_by_mgradm(root, name.replace("1.0", "latest")) is None
    archive = found_by_mgradm(root, name)
    assert archive is not None
    with podman() as command:
        assert output(*command, "load", "--quiet", "--input", archive) == f"Loaded image: {name}\n"
    assert (root / f"{MGRADM}/app_1.0.metadata"[1:]).read_text() == (
        '{\n  "image": {\n    "name": "team-app",\n    "tags": [\n      "1.0"\n    ],\n'
        '    "file": "app_1.0.tar"\n  }\n}\n'
    )


def test_mgradm_has_a_link_to_the_archive_of_another_engine(package: Package) -> None:
    inject_sources(package, "mgradm=*/app:*", "k3s=*/app:*")
    root = package.directory / "root"
    assert os.readlink(root / f"{MGRADM}/app_1.0.tar"[1:]) == K3S
    assert names(root / MGRADM[1:]) == ["app_1.0.metadata", "app_1.0.tar"]


def test_a_root_tree_takes_the_values_of_the_service(package: Package, tmp_path: Path) -> None:
    entry = '<service name="kiwi_containers_inject" mode="buildtime"><param name="engine">{}</param></service>'
    (package.directory / "_service").write_text(f"<services>{entry.format('containerd=*/app:*')}</services>")
    for options, expected in (((), "containerd"), (("--engine", "containerd:moby=*/app:*"), "containerd:moby")):
        root = tmp_path / expected
        root.mkdir()
        command = ["inject", "--root", str(root), "--arch", "x86_64", *options, str(package.directory)]
        assert main.main(command) == 0
        assert loads(root)[0] == f"kiwi_containers-{expected}-app_1.0.service"


def test_what_an_engine_cannot_get_is_refused(package: Package) -> None:
    with pytest.raises(DescriptionError, match=r"^a\.kiwi:5: .*team/web:1\.0 matches engine='containerd=\*', but is l"):
        inject_sources(package, "containerd=*")
    with pytest.raises(DescriptionError, match=r"a\.kiwi:4: .* matches store='\*/app:\*', but is for containerd: it h"):
        inject_sources(package, "containerd=*/app:*", store=("*/app:*",))
    assert not (package.directory / "root").exists()


def test_choices_without_a_match_are_reported(package: Package, caplog: pytest.LogCaptureFixture) -> None:
    inject_sources(package, "containerd=*/nothing:*")
    assert "engine='containerd=*/nothing:*' matches no container of this image" in caplog.messages


SERVICE = """<services>
<service name="kiwi_containers" mode="manual"><param name="inject">{inject}</param></service>
<service name="kiwi_containers_inject" mode="buildtime"><param name="engine">{engine}</param></service>
</services>
"""


@pytest.mark.parametrize("command", [["prefetch"], ["inject", "--root", "/nowhere", "--arch", "x86_64"]])
def test_a_bundle_is_for_no_other_engine(
    package: Package, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (package.directory / "_service").write_text(SERVICE.format(inject="source", engine="containerd=*/app:*"))
    assert main.main([*command, str(package.directory)]) == 1
    problem = "_service:3: engine: a bundle is for kiwi's backends only; remove 'engine', or use inject=buildtime"
    assert problem in capfd.readouterr().err


def test_values_are_checked_before_anything_is_written(package: Package, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["inject", "--root", "/nowhere", "--arch", "x86_64", "--engine", "crio=*", str(package.directory)]
    assert main.main(command) == 1
    assert "engine: got 'crio', expected one of containerd" in capfd.readouterr().err
