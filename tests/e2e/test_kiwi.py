"""kiwi itself, offline, on an injected package: the tree that it prepares, and how many bytes inject wrote."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.docker_registry import DockerRegistry
from tests.support.e2e import appliance
from tests.support.e2e.appliance import BLOB, LISTED, OWN_FILE, Appliance
from tests.support.e2e.builds import run_ours
from tests.support.e2e.debs import HERE
from tests.support.kiwi_peer import environment, interpreters
from tests.support.service_program import IN_BUILD_ROOT

pytestmark = pytest.mark.integration

_PROFILES = ("main", "extra")
LINKS: dict[str, set[int]] = {}
"""The numbers of links that the blobs had in the trees, by digest."""


@pytest.fixture(scope="module", params=interpreters())
def kiwi(request: pytest.FixtureRequest) -> Path:
    """Return kiwi from the environment that the comparison of descriptions also uses."""
    python = environment(request.param) if "/" not in request.param else request.param
    return Path(python).with_name("kiwi-ng")


@pytest.fixture
def package(docker_registry: DockerRegistry, debs: Path, tmp_path: Path) -> Appliance:
    """Return the package as its packager wrote it."""
    return appliance.make(tmp_path / "package", docker_registry, debs, repository=f"dir://{debs}", kernel=False)


def prepare(kiwi: Path, package: Path, target: Path) -> dict[str, tuple[str, int, int]]:
    """Let kiwi prepare the tree of an image offline; return type and mode, owner and group of each path."""
    command: list[str | Path] = [HERE / "offline", kiwi, *(f"--profile={name}" for name in _PROFILES)]
    done = subprocess.run(
        [*command, "system", "prepare", "--description", package, "--root", target],
        env={"PATH": f"{kiwi.parent}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": os.environ["HOME"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    found = {}
    for entry in target.rglob("*"):
        status, path = entry.lstat(), str(entry.relative_to(target))
        if BLOB.fullmatch(path):
            assert stat.filemode(status.st_mode) == "-rw-r--r--"
            LINKS.setdefault(entry.name, set()).add(status.st_nlink)
            continue
        found[path] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid)
    shutil.rmtree(target)
    return found


def inject(service: Path, sources: Path, outdir: Path) -> int:
    """Run the inject service as a build does; return the number of bytes that it and its children wrote."""
    outdir.mkdir()
    done = subprocess.run(
        [IN_BUILD_ROOT, "bash", "-ec", '"$0" --outdir "$1" && cat /proc/$$/io', service, outdir],
        cwd=sources,
        env={"PATH": "/usr/bin:/bin", "BUILD_ARCH": "x86_64", "LC_ALL": "POSIX"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    # write_bytes would include what the file system writes for itself.
    (written,) = re.findall(r"^wchar: (\d+)$", done.stdout, re.MULTILINE)
    return int(written)


def remove_containers(package: Path, target: Path) -> Path:
    """Return a copy of the package that never had any containers."""
    shutil.copytree(package, target)
    path = target / "appliance.kiwi"
    path.write_text(re.sub(r"<containers.*</containers>", "", path.read_text(), flags=re.DOTALL))
    return target


def test_kiwi_tree_has_only_the_documented_additions(
    kiwi: Path, package: Appliance, installed: Path, installed_for_debian: Path, tmp_path: Path
) -> None:
    plain = prepare(kiwi, remove_containers(package.directory, tmp_path / "plain"), tmp_path / "root")
    layout = "blobs" if "kiwi-11" in kiwi.parts else "archives"
    run_ours(installed, package, "init", "--arch", "x86_64", "--layout", layout)
    sources = {path.stat().st_ino for path in package.directory.iterdir()}
    service = installed_for_debian / "lib/obs/service/kiwi_containers_inject"
    written = inject(service, package.directory, tmp_path / "out")
    blobs = {path.stat().st_ino: path.stat().st_size for path in package.directory.rglob("blobs/sha256/*")}
    (data,) = package.directory.glob("*/var/tmp/kiwi_containers/*")
    print(
        f"{layout}: {written} bytes written for blobs of {sum(blobs.values())} and an archive of {data.stat().st_size}"
    )
    # What is a file of the package is linked: blobs in one layout, the archive for fetch_only in the other.
    needed = data.stat().st_size if layout == "blobs" else sum(blobs.values())
    assert needed < written < needed * 1.01 + 100_000
    assert (data.stat().st_ino in sources, sources.issuperset(blobs)) == (layout == "archives", layout == "blobs")

    injected = prepare(kiwi, package.directory, tmp_path / "root")
    assert OWN_FILE in injected, "root.tar.gz of the packager is kept"
    new = {path: entry for path, entry in injected.items() if path not in plain}
    assert {path: mode for path, (mode, *_) in new.items()} == {
        path: mode for path, mode in LISTED.items() if path not in plain
    }
    assert {(uid, gid) for _, uid, gid in new.values()} == {(0, 0)}
    assert {path: entry for path, entry in injected.items() if path in plain} == plain
    assert {1, 2} in LINKS.values(), "app and side share the file of a layer; tools has its own"
