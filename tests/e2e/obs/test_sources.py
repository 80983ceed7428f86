"""Packages that share sources: branches and merges of `containers.lock`, and what a commit uploads and stores."""

from pathlib import Path

import pytest

from osc_containers.lock import lockfile
from tests.support import images
from tests.support.e2e.obs import scene
from tests.support.e2e.obs.project import Project

pytestmark = pytest.mark.integration

_MIB = 1 << 20


def pinned(package: Path) -> str:
    """Return the digest of the only container in the lock."""
    ((_, _, locked),) = lockfile.loads((package / "containers.lock").read_text()).images()
    return str(locked.image.manifest.digest)


def test_link_and_branch_with_a_changed_container(project: Project) -> None:
    backend, name = project.backend, "linked"
    versions = {version: images.small(f"{name} {version}") for version in "123"}

    def release(version: str) -> None:
        scene.push(backend, {f"team/{name}:1.0": versions[version]})

    def update(package: Path) -> None:
        backend.osc("service", "disabledrun", directory=package)
        assert backend.osc("containers", "verify", directory=package).returncode == 0

    release("1")
    origin = project.make_package(name)
    scene.set_containers(origin, name)
    project.init(origin)
    target = f"{project.name}:branch"
    backend.osc("branch", project.name, name, target)
    (project.directory / "branch").mkdir()
    branch = scene.check_out(backend, target, name, project.directory / "branch")
    release("2")
    update(branch)
    scene.commit(backend, branch)
    assert pinned(branch) == str(versions["2"].digest)
    assert pinned(origin) == str(versions["1"].digest)
    release("3")
    update(origin)
    scene.commit(backend, origin)
    print(merged := backend.osc("pull", directory=branch, check=False).stdout)
    conflicts = [line.split()[1] for line in merged.splitlines() if line.startswith("C ")]
    assert "containers.lock" in conflicts
    found = backend.osc("containers", "verify", directory=branch, check=False)
    print(found.stdout)
    assert found.returncode == 1
    assert "containers.lock: has merge conflict markers; keep either side" in found.stdout
    (branch / "containers.lock.mine").rename(branch / "containers.lock")
    backend.osc("containers", "prefetch", directory=branch)
    backend.osc("resolved", *conflicts, directory=branch)
    scene.commit(backend, branch)
    assert backend.osc("containers", "verify", directory=branch).returncode == 0
    assert pinned(branch) == str(versions["3"].digest)


@pytest.mark.parametrize(("layout", "first", "changed"), [("archives", 10, 5), ("blobs", 6, 1)])
def test_bytes_that_a_changed_layer_uploads(project: Project, layout: str, first: int, changed: int) -> None:
    """Two images share a layer of 4 MiB; a layer of 1 MiB of one of them changes. The numbers are in MiB."""
    backend, base = project.backend, images.random_layer("shared", 4 * _MIB)

    def push(name: str, seed: str) -> None:
        scene.push(backend, {f"team/{name}:1.0": images.image(base, images.random_layer(seed, _MIB))})

    def measure() -> tuple[int, int]:
        return sum(backend.uploads(f"{project.name}/{layout}").values()), backend.stored(layout)

    push("one", "one")
    push("two", "two")
    package = project.make_package(layout)
    scene.set_containers(package, "one", "two")
    project.init(package, "--layout", layout)
    before = measure()
    push("one", f"one for {layout}")
    backend.osc("service", "disabledrun", directory=package)
    scene.commit(backend, package)
    after = measure()
    print(f"{layout}: first {before[0]} uploaded, {before[1]} stored; then {after[0]} and {after[1]}")
    for size in before:
        assert first * _MIB <= size < (first + 0.1) * _MIB
    for size, earlier in zip(after, before, strict=True):
        assert changed * _MIB <= size - earlier < (changed + 0.1) * _MIB


def test_packages_that_share_blobs(project: Project) -> None:
    """OBS keeps sources by the name of the package: a branch shares them, a package of another name does not."""
    backend, base = project.backend, images.random_layer("base of both", 4 * _MIB)
    for name in ("first", "second"):
        scene.push(backend, {f"team/{name}:1.0": images.image(base, images.random_layer(name, _MIB))})

    def make(name: str) -> Path:
        package = project.make_package(name)
        scene.set_containers(package, name)
        project.init(package, "--layout", "blobs")
        return package

    def blobs(package: Path) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in package.glob("*.blob")}

    def uploaded(package: str) -> int:
        return sum(backend.uploads(package).values())

    first, second = make("first"), make("second")
    shared = blobs(first).keys() & blobs(second).keys()
    assert [blobs(first)[name] > 4 * _MIB for name in shared] == [True]
    assert 5 * _MIB <= uploaded(f"{project.name}/second") < 5.1 * _MIB

    stored = backend.stored("first")
    target = f"{project.name}:branch"
    backend.osc("branch", project.name, "first", target)
    (project.directory / "branch").mkdir()
    branch = scene.check_out(backend, target, "first", project.directory / "branch")
    path = branch / "containers.xml"
    path.write_text(path.read_text().replace('name="first"', 'name="second"'))
    backend.osc("service", "disabledrun", directory=branch)
    scene.commit(backend, branch)
    assert blobs(branch) == blobs(second)
    assert 1 * _MIB <= uploaded(f"{target}/first") < 1.1 * _MIB
    assert 1 * _MIB <= backend.stored("first") - stored < 1.1 * _MIB
