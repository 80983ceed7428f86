"""A package with two flavors, built by a worker of OBS and by `osc build`: the images have the locked containers."""

import hashlib
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from osc_containers.lock import lockfile
from tests.support.e2e.obs import backend as backends
from tests.support.e2e.obs.backend import Backend
from tests.support.e2e.obs.project import Project

pytestmark = pytest.mark.integration

_LIMIT = 900.0
"""Seconds for both builds; on an idle machine they take two minutes."""
_ENDS = ("succeeded", "failed", "broken", "unresolvable", "excluded")
_CONTAINERS = {"plain": {"team/app:1.0"}, "full": {"team/app:1.0", "team/data:1.0", "team/tools:2.0"}}


@contextmanager
def mounted(image: Path, directory: Path) -> Iterator[Path]:
    """Mount an image read-only."""
    directory.mkdir()
    subprocess.run(["mount", "-o", "loop,ro", image, directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


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


def expect_what_is_locked(package: Path, names: set[str], image: Path, directory: Path) -> None:
    """Compare the containers in an image with those of these names in the lock."""
    locked = lockfile.loads((package / "containers.lock").read_text())
    digests = {
        str(reference).partition("/")[2]: str(pin.image.manifest.digest) for reference, _, pin in locked.images()
    }
    with mounted(image, directory) as root:
        found = dict(blobs(root))
    assert {name for name, digest in digests.items() if digest in found} == names
    assert all(digest == f"sha256:{hashlib.sha256(content).hexdigest()}" for digest, content in found.items())


def test_worker_builds_both_flavors(backend: Backend, tmp_path: Path) -> None:
    found = backends.wait_for(backend, "home:ann", "appliance", _ENDS, limit=_LIMIT)
    print(found)
    assert found.pop("appliance") == "excluded", "the package itself is no image"
    for flavor in _CONTAINERS:
        name = f"appliance:{flavor}"
        log = backend.osc("remotebuildlog", "home:ann", name, "images", "x86_64", check=False).stdout
        assert found[name] == "succeeded", log[-5000:]
        assert "kiwi_containers_inject" in log
        fetched = tmp_path / flavor
        backend.osc("getbinaries", "--quiet", "--destdir", str(fetched), "home:ann", name, "images", "x86_64")
        (image,) = fetched.glob("*.ext4")
        package = backend.directory / "appliance"
        expect_what_is_locked(package, _CONTAINERS[flavor], image, tmp_path / f"{flavor}.mounted")
        image.unlink()


def test_osc_build_builds_locally(project: Project, tmp_path: Path) -> None:
    """With inject=source, because OBS 2.9.4 leaves services of the build root out for osc build."""
    package = project.make_package("local")
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
    project.backend.osc(*command, directory=package, in_memory=True)
    (image,) = got.glob("*.ext4")
    expect_what_is_locked(package, {"team/app:1.0"}, image, tmp_path / "mounted")
    image.unlink()
