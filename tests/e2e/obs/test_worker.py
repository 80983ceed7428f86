"""Packages built by workers of OBS and by `osc build`: the images have the locked containers, and boot with them."""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from osc_containers.lock import lockfile
from tests.support.e2e.appliance import Appliance
from tests.support.e2e.builds import Built
from tests.support.e2e.obs import backend as backends
from tests.support.e2e.obs import building, first_image, scene
from tests.support.e2e.obs.backend import REGISTRY_HOST, Backend
from tests.support.e2e.obs.project import Project

pytestmark = pytest.mark.integration

_LIMIT = 900.0
"""Seconds for all builds; on an idle machine they take three minutes."""
_ENDS = ("succeeded", "failed", "broken", "unresolvable", "excluded")
_CONTAINERS = {
    "appliance": {"app:1.0"},
    "flavors:main": {"app:1.0", "data:1.0", "tools:2.0"},
    "flavors:extra": {"app:1.0", "data:1.0"},
    "bundled": {"app:1.0", "data:1.0", "side:1.0"},
}
"""The containers that are in each image as blobs; one in a store is not."""


def fetch(backend: Backend, name: str, directory: Path) -> Built:
    """Wait until a package or flavor is built, and download its results."""
    package, _, flavor = name.partition(":")
    states = backends.wait_for(backend, "home:ann", package, _ENDS, limit=_LIMIT)
    log = building.log(backend, name)
    assert states[name].startswith("succeeded"), log[-5000:]
    assert not flavor or states[package] == "excluded", "the package itself is no image"
    backend.osc("getbinaries", "--quiet", "--destdir", str(directory), "home:ann", name, "images", "x86_64")
    (image,) = directory.glob("*.ext4")
    others = {path.name: path.read_bytes() for path in directory.iterdir() if path != image}
    named = {f"{REGISTRY_HOST}/{path}": each for path, each in scene.make_images().items()}
    return Built(
        image=image, others=others, log=log, package=Appliance(directory=backend.directory / package, images=named)
    )


def blobs(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the digest and the content of each blob of a container in an image, in archives and in layouts."""
    for archive in (root / "var/tmp/kiwi_containers").glob("*"):
        with tarfile.open(archive) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file and "/sha256/" in member.name:
                    yield f"sha256:{Path(member.name).name}", file.read()
    for path in (root / "var/lib/kiwi_containers/layouts").glob("*/blobs/sha256/*"):
        yield f"sha256:{path.name}", path.read_bytes()


def expect_what_is_locked(built: Built, names: set[str], directory: Path) -> None:
    """Compare the containers in an image with those of these names in the lock."""
    locked = lockfile.loads((built.package.directory / "containers.lock").read_text())
    digests = {
        str(reference).rpartition("/")[2]: str(pin.image.manifest.digest) for reference, _, pin in locked.images()
    }
    with built.mounted(directory) as root:
        found = dict(blobs(root))
    assert {name for name, digest in digests.items() if digest in found} == names
    assert all(digest == f"sha256:{hashlib.sha256(content).hexdigest()}" for digest, content in found.items())


@pytest.mark.parametrize("name", _CONTAINERS)
def test_image_of_a_worker_has_what_is_locked(backend: Backend, tmp_path: Path, name: str) -> None:
    built = fetch(backend, name, tmp_path / "got")
    assert ("removed <containers>" in built.log) == (name != "bundled")
    expect_what_is_locked(built, _CONTAINERS[name], tmp_path / "mounted")
    if name == "flavors:main":
        built.expect_two_boots(tmp_path, "/usr/lib/containers/storage: podman has its images: 1")
    built.image.unlink()


def test_every_flavor_has_an_sbom_among_its_results(backend: Backend, tmp_path: Path) -> None:
    for flavor, names in (("main", {"app", "data", "side", "tools"}), ("extra", {"app", "data", "side"})):
        built = fetch(backend, f"flavors:{flavor}", tmp_path / flavor)
        built.image.unlink()
        sbom = json.loads(built.others[f"appliance.x86_64-1.0.0-{flavor}.containers.spdx.json"])
        packages = {each["name"].rpartition("/")[2] for each in sbom["packages"]}
        assert names <= packages
        assert "never" not in packages


def test_build_of_a_worker_that_died_is_done_again(backend: Backend, tmp_path: Path) -> None:
    accident = building.read_accident(backend)
    print(accident)
    assert accident["state"] == f"building: building on {accident['worker']}"
    built = fetch(backend, "appliance", tmp_path)
    built.image.unlink()
    history = backend.osc("api", "/build/home:ann/images/x86_64/appliance/_history").stdout
    assert history.count("<entry") == 1
    assert building.assignments(backend, "appliance") >= 2
    assert built.log.count("removed <containers>") == 1


def test_first_image_is_made_as_its_page_says(backend: Backend, tmp_path: Path) -> None:
    built = fetch(backend, "appliance", tmp_path / "got")
    built.expect_two_boots(tmp_path, loaded=["app:"], kept=[])
    built.image.unlink()
    first_image.finish(backend)
    outputs = first_image.read(backend)
    print(*(f"$ {command}\n{output[-3000:]}" for command, output in outputs.items()), sep="\n")
    for step in first_image.steps():
        output = first_image.lines(outputs[step.command].splitlines())
        assert [line for line in first_image.lines(step.lines) if line not in output] == [], step.command


def test_osc_build_builds_locally(project: Project, tmp_path: Path) -> None:
    """With inject=source, because OBS 2.9.4 leaves services of the build root out for osc build."""
    package = project.make_package("local")
    scene.set_profiles(package, "extra")
    options = ["--mode", "disabled", "--inject", "source", "--arch", "x86_64"]
    project.backend.osc("containers", "init", *options, directory=package)
    got = tmp_path / "got"
    command = [
        "build",
        "--trust-all-projects",
        "--clean",
        "--keep-pkgs",
        str(got),
        "images",
        "x86_64",
        "appliance.kiwi",
    ]
    done = project.backend.osc(*command, directory=package, in_memory=True)
    (image,) = got.glob("*.ext4")
    built = Built(image=image, others={}, log=done.stdout, package=Appliance(directory=package, images={}))
    expect_what_is_locked(built, _CONTAINERS["bundled"], tmp_path / "mounted")
    image.unlink()
