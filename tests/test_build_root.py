"""The inject service as obs-build runs it: in a root with python3 alone, and without a network."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import images
import pytest
from docker_registry import DockerRegistry
from lxml import etree

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent
OBS_BUILD = os.environ.get("OBS_BUILD", "/usr/lib/obs-build")
"""obs-build's own directory; upstream's is used where the variable names it."""

_DESCRIPTION = """\
<?xml version="1.0"?>
<image schemaversion="8.0" name="appliance">
    <description type="system">
        <author>A</author>
        <contact>a@example.com</contact>
        <specification>An appliance</specification>
    </description>
    <profiles>
        <profile name="big" description="More"/>
    </profiles>
    <preferences>
        <version>1.0.0</version>
        <packagemanager>zypper</packagemanager>
        <type image="tbz"/>
    </preferences>
    <repository>
        <source path="obsrepositories:/"/>
    </repository>
    <include from="this://./containers.xml"/>
    <packages type="bootstrap">
        <package name="filesystem"/>
    </packages>
</image>
"""
_CONTAINERS = """\
<image schemaversion="8.0" name="containers">
    <containers source="HOST" backend="podman">
        <container name="app" path="build" tag="1.0"/>
    </containers>
    <containers source="HOST" backend="docker" profiles="big">
        <container name="list" path="build" tag="1.0" fetch_only="true"/>
    </containers>
</image>
"""
_SERVICE = '<services><service name="kiwi_containers_inject" mode="buildtime"/></services>\n'

# $1: installed tree, $2: package, $3: scratch directory, $4: where the sources go afterwards
_BUILD = """
mount -t tmpfs build "$3"
mkdir -p "$3/root/usr" "$3/root/tmp" "$3/root/etc" "$3/upper" "$3/work"
mount -t overlay -o "lowerdir=$1:/usr,upperdir=$3/upper,workdir=$3/work" overlay "$3/root/usr"
for name in bin lib lib64 sbin; do [ ! -d /$name ] || ln -s usr/$name "$3/root/$name"; done
rm -rf "$3"/root/usr/lib/python3/dist-packages/* "$3"/root/usr/local/lib/python3*
mkdir -p "$3/root/usr/src/packages"
cp -r "$2" "$3/root/usr/src/packages/SOURCES"
cd "$3/root/usr/src/packages/SOURCES"
status=0
"$BUILD_DIR/runservices" --buildroot "$3/root" || status=$?
cp -a . "$4"
exit $status
"""

Build = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def prefetched(installed: Path, docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a package with its lock and archives."""
    docker_registry.push(images.multi_platform("app"), "build/app:1.0")
    docker_registry.push(images.multi_platform("list", docker=True), "build/list:1.0")
    package = tmp_path_factory.mktemp("prefetched")
    (package / "appliance.kiwi").write_text(_DESCRIPTION)
    (package / "containers.xml").write_text(_CONTAINERS.replace("HOST", docker_registry.host))
    (package / "_service").write_text(_SERVICE)
    command = [str(installed / "bin/osc-containers"), "prefetch", "--arch=x86_64", "--arch=aarch64"]
    subprocess.run(command, cwd=package, check=True, capture_output=True)
    return package


@pytest.fixture
def package(prefetched: Path, tmp_path: Path) -> Path:
    """Give a package that the test may damage."""
    return shutil.copytree(prefetched, tmp_path / "package")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Give the directory that holds the sources after a build."""
    (tmp_path / "sources").mkdir()
    return tmp_path / "sources"


@pytest.fixture
def build(installed_for_debian: Path, package: Path, sources: Path, tmp_path: Path) -> Build:
    """Give a function that runs the buildtime services of the package, as far as obs-build goes before kiwi."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def run(arch: str = "x86_64") -> "subprocess.CompletedProcess[str]":
        paths = [str(path) for path in (installed_for_debian, package, scratch, sources)]
        command = ["unshare", "--mount", "--net", "sh", "-ec", _BUILD, "sh", *paths]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "POSIX",
            "HOME": "/root",
            "BUILD_DIR": OBS_BUILD,
            "BUILD_ARCH": arch,
        }
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("arch", ["x86_64", "x86_64:i686"])
def test_it_makes_overlays_by_hard_link_and_hides_the_containers(build: Build, sources: Path, arch: str) -> None:
    done = build(arch)
    assert done.returncode == 0, done.stderr
    places = {"root/var/tmp/kiwi_containers/app_1.0": "app", "big/var/tmp/kiwi_containers/list_1.0": "list"}
    for place, name in places.items():
        archive = next(sources.glob(f"*_build_{name}_1.0.x86_64.ociarchive"))
        assert (sources / place).samefile(archive)
    units = {path.name for path in sources.rglob("*.service") if not path.is_symlink()}
    assert units == {"kiwi_containers-podman-app_1.0.service", "kiwi_containers.service"}
    for path in (sources / "root", sources / "big"):
        assert {(entry.lstat().st_uid, entry.lstat().st_gid) for entry in path.rglob("*")} == {(0, 0)}
    assert not [element for element in etree.parse(sources / "containers.xml").iter() if element.tag == "containers"]


def test_nothing_is_in_the_image_that_readme_does_not_list(build: Build, sources: Path) -> None:
    section = (ROOT / "README.md").read_text().partition("### What is in the image\n")[2].partition("\n#")[0]
    listed = [re.escape(path) for path in re.findall(r"^\| `(/[^`]+)`", section, re.MULTILINE)]
    patterns = [re.sub(r"NAME_TAG|BACKEND\\-NAME|\\\*", "[^/]*", path) for path in listed]
    assert build().returncode == 0
    found = [f"/{path.relative_to(sources / 'root')}" for path in (sources / "root").rglob("*") if not path.is_dir()]
    for path in found:
        assert any(re.fullmatch(pattern, path) for pattern in patterns), path
    for pattern in patterns:
        assert any(re.fullmatch(pattern, path) for path in found), pattern


def test_a_second_run_finds_nothing_to_do(build: Build, package: Path, sources: Path) -> None:
    assert build().returncode == 0
    shutil.rmtree(package)
    shutil.move(sources, package)
    sources.mkdir()
    before = {path.relative_to(package): path.read_bytes() for path in package.rglob("*") if path.is_file()}
    done = build()
    assert done.returncode == 0, done.stderr
    assert {path.relative_to(sources): path.read_bytes() for path in sources.rglob("*") if path.is_file()} == before


def _truncate(package: Path) -> None:
    archive = next(package.glob("*_app_1.0.x86_64.ociarchive"))
    archive.write_bytes(archive.read_bytes()[:-512])


def _flip(package: Path) -> None:
    archive = next(package.glob("*_app_1.0.x86_64.ociarchive"))
    content = bytearray(archive.read_bytes())
    content[5000] ^= 1
    archive.write_bytes(content)


def _swap(package: Path) -> None:
    archive = next(package.glob("*_app_1.0.x86_64.ociarchive"))
    next(package.glob("*_app_1.0.aarch64.ociarchive")).replace(archive)


def _remove(package: Path) -> None:
    next(package.glob("*_app_1.0.x86_64.ociarchive")).unlink()


def _unlock(package: Path) -> None:
    (package / "containers.lock").unlink()


def _ask_for_another(package: Path) -> None:
    path = package / "containers.xml"
    path.write_text(path.read_text().replace('name="app"', 'name="other"'))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "_app_1.0.x86_64.ociarchive: got "),
        (_flip, "_app_1.0.x86_64.ociarchive: "),
        (_swap, "_app_1.0.x86_64.ociarchive: member blobs/sha256/"),
        (_remove, "_app_1.0.x86_64.ociarchive: not there"),
        (_unlock, "containers.lock: not there"),
        (_ask_for_another, "build/other:1.0"),
    ],
)
def test_what_is_wrong_fails_the_build_and_changes_nothing(
    build: Build, package: Path, sources: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(package)
    done = build()
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    before = {path.name: path.read_bytes() for path in package.iterdir()}
    assert {path.name: path.read_bytes() for path in sources.iterdir()} == before
