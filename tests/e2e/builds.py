"""Images that obs-build builds: once with our service in the build root, once without it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker_registry import DockerRegistry

from e2e import appliance
from e2e.appliance import Appliance
from e2e.debs import HERE, kiwi_debs

_REPOSITORY = "obs://debian/main"
_OURS = "obs-service-kiwi-containers-inject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image file with an ext4 file system, what obs-build printed, and the package that it was built from."""

    image: Path
    log: str
    package: Appliance

    @contextmanager
    def mounted(self, directory: Path) -> Iterator[Path]:
        """Mount the image, only for reading."""
        directory.mkdir()
        subprocess.run(["mount", "-o", "loop,ro", self.image, directory], check=True)
        try:
            yield directory
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture(scope="session")
def built_with_service(
    installed: Path,
    docker_registry: DockerRegistry,
    debs: Path,
    our_debs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Built]:
    """Give an image into which the service put the containers, in the build root."""
    work = tmp_path_factory.mktemp("with-service")
    package = appliance.make(work / "package", docker_registry, debs, repository=_REPOSITORY)
    run_ours(installed, package, "init")
    yield _build(work, package, f"Support: {_OURS}\n", debs, kiwi_debs("11.*"), our_debs)
    shutil.rmtree(work)


@pytest.fixture(scope="session")
def built_without_service(
    installed: Path, docker_registry: DockerRegistry, debs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Built]:
    """Give an image that gets the containers from kiwi_containers.obscpio, with nothing of ours in the build root."""
    work = tmp_path_factory.mktemp("without-service")
    package = appliance.make(work / "package", docker_registry, debs, repository=_REPOSITORY)
    run_ours(installed, package, "split")
    description = package.directory / "appliance.kiwi"
    lines = description.read_text().splitlines(keepends=True)
    description.write_text("".join(line for line in lines if "<include" not in line))
    run_ours(
        installed, package, "prefetch", "--description", "containers.xml", "--inject", "source", "--arch", "x86_64"
    )
    yield _build(work, package, "", debs, kiwi_debs("10.3.*"))
    shutil.rmtree(work)


def run_ours(installed: Path, package: Appliance, command: str, *arguments: str) -> None:
    """Run a command of ours on a package."""
    subprocess.run([installed / "bin/osc-containers", command, *arguments], cwd=package.directory, check=True)


def _build(work: Path, package: Appliance, configuration: str, *repositories: Path) -> Built:
    # What obs-build would fetch for the image itself; our packages are none of those.
    (package.directory / "repos/debian").mkdir(parents=True)
    (package.directory / "repos/debian/main").symlink_to(repositories[0])
    config = work / "obs-build.conf"
    config.write_text(configuration + (HERE / "obs-build.conf").read_text())
    root = work / "root"
    command = [HERE / "obs-build", root, config, package.directory / "appliance.kiwi", *repositories]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": os.environ["HOME"]}
    if "OBS_BUILD" in os.environ:
        environment["OBS_BUILD"] = os.environ["OBS_BUILD"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-8000:]
    built = next((root / "usr/src/packages").glob("KIWI*/*.ext4"))  # bundled, it is there under two names
    image = built.rename(work / "image.ext4")
    shutil.rmtree(root)
    return Built(image=image, log=done.stdout, package=package)
