"""Scanners take the packages in containers for no packages of the host, and count no container twice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from tests.support import images, packages, scanners
from tests.support.docker_registry import DockerRegistry

pytestmark = pytest.mark.integration

_STATUS = """\
Package: {0}-deb
Status: install ok installed
Priority: optional
Maintainer: A <a@example.com>
Architecture: amd64
Version: 6.6-6
Description: x

"""


def _system(name: str) -> dict[str, bytes]:
    """Return the files of a system with a package of each kind; their names begin with `name`."""
    files = {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "etc/debian_version": "12.5\n",
        "var/lib/dpkg/status": _STATUS.format(name),
        "lib/apk/db/installed": f"P:{name}-apk\nV:1.0-r0\nA:x86_64\nT:x\no:{name}-apk\nL:MIT\n\n",
        f"usr/lib/python3/dist-packages/{name}_py-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}-py\n"
        "Version: 1.0\n",
        f"usr/lib/node_modules/{name}-npm/package.json": f'{{"name": "{name}-npm", "version": "1.0.0"}}',
    }
    return {path: text.encode() for path, text in files.items()}


def _packages(name: str) -> set[str]:
    return {f"{name}-deb 6.6-6", f"{name}-apk 1.0-r0", f"{name}-py 1.0", f"{name}-npm 1.0.0"}


SCANS: dict[str, Callable[[Path], set[str]]] = {
    # With more catalogers than by default.
    "syft": lambda path: scanners.packages("syft", "scan", "--override-default-catalogers", "all", f"dir:{path}"),
    "trivy rootfs": lambda path: scanners.packages("trivy", "rootfs", path),
    "trivy fs": lambda path: scanners.packages("trivy", "fs", path),
}


@pytest.fixture(scope="module")
def trees(docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give a root tree without containers, and the same with containers in each form that they have in images."""
    directory = tmp_path_factory.mktemp("scanned")
    inner = images.layer(_system("inner"))
    for name in ("app", "data", "dock", "side"):
        image = images.image(inner, images.layer({f"etc/{name}": b"x"}), docker=name == "dock")
        docker_registry.push(image, f"scan/{name}:1.0")
    container = 'name="{}" path="scan" tag="1.0"'.format
    podman = (container("app"), container("side"), f'{container("data")} fetch_only="true"')
    package = packages.write(
        directory / "package",
        packages.section(docker_registry.host, *podman),
        packages.section(docker_registry.host, container("dock"), backend="docker"),
    )
    for path, content in _system("host").items():
        (directory / "plain" / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / "plain" / path).write_bytes(content)
    full = shutil.copytree(directory / "plain", directory / "full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(directory))
        assert main(["prefetch", "--arch", "x86_64", str(package)]) == 0
        assert main(["inject", "--root", str(full), "--arch", "x86_64", "--store", "*/side:*", str(package)]) == 0
    return directory / "plain", full


@pytest.mark.parametrize("scan", SCANS)
def test_a_scan_of_the_host_is_the_same_with_containers(trees: tuple[Path, Path], scan: str) -> None:
    plain, full = map(SCANS[scan], trees)
    assert plain
    assert plain <= _packages("host")
    assert full == plain


def test_scanners_find_the_packages_if_they_look_into_a_container(trees: tuple[Path, Path]) -> None:
    """So the tests above show something; and the packages of the host do not appear there."""
    _, full = trees
    archive, layout = full / "var/tmp/kiwi_containers/data_1.0", full / "var/lib/kiwi_containers/layouts/app_1.0"
    assert scanners.packages("syft", "scan", f"oci-archive:{archive}") == _packages("inner")
    assert scanners.packages("syft", "scan", f"oci-dir:{layout}") == _packages("inner")
    assert scanners.packages("trivy", "image", "--input", archive) == _packages("inner")


@pytest.mark.parametrize("scan", ["syft", "trivy rootfs"])
def test_packages_in_the_list_of_containers_would_mislead(trees: tuple[Path, Path], tmp_path: Path, scan: str) -> None:
    """The reason why the list in the image has containers alone."""
    _, full = trees
    tree = shutil.copytree(full, tmp_path / "tree", symlinks=True)
    path = tree / "usr/share/kiwi_containers/containers.cdx.json"
    document = json.loads(path.read_text())
    purl = "pkg:deb/debian/inner-deb@6.6-6?arch=amd64&distro=debian-12"
    library = {"type": "library", "bom-ref": "x", "name": "inner-deb", "version": "6.6-6", "purl": purl}
    path.write_text(json.dumps({**document, "components": [*document["components"], library]}))
    assert "inner-deb 6.6-6" in SCANS[scan](tree)
