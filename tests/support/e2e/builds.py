"""Images built by obs-build."""

import os
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from tests.support import store as stores
from tests.support.docker_registry import DockerRegistry
from tests.support.e2e import appliance
from tests.support.e2e.appliance import Appliance
from tests.support.e2e.debs import HERE, kiwi_debs
from tests.support.e2e.machine import make_machine

_REPOSITORY = "obs://debian/main"
_IMAGE = "image.ext4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image file with an ext4 file system, the other results, the output of obs-build, and the package."""

    image: Path
    others: Mapping[str, bytes]
    """The content of each file in the directory `OTHER`, whose files OBS publishes beside the image."""
    log: str
    package: Appliance

    @contextmanager
    def mounted(self, directory: Path) -> Iterator[Path]:
        """Mount the image read-only."""
        directory.mkdir()
        subprocess.run(["mount", "-o", "loop,ro", self.image, directory], check=True)
        try:
            yield directory
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)

    def expect_two_boots(
        self,
        directory: Path,
        *messages: str,
        loaded: Sequence[str] = ("app:", "side:", "tools:"),
        kept: Collection[str] = ("data_1.0",),
    ) -> None:
        """Boot the image in a container: podman has the images `loaded` after both boots.

        The second boot loads nothing, and prints only these messages. `kept` are the archives that stay.
        """
        with self.mounted(directory / "booted") as root, make_machine(root, directory / "machine") as machine:
            first = machine.boot(*stores.devices())
            wanted = self.package.in_podman(*loaded)
            assert {line.rpartition(" ")[0] + " " for line in first.images} == wanted
            assert {path.name for path in machine.var.glob("tmp/kiwi_containers/*")} == set(kept)
            second = machine.boot(*stores.devices())
            assert second.images == first.images
            assert [line for _, line in second.journal] == list(messages)


class Build(Protocol):
    """The function that the fixture `build` returns."""

    def __call__(
        self,
        *command: str,
        kiwi: str,
        configuration: str = "",
        more: Sequence[Path] = (),
        parameters: Sequence[tuple[str, str]] = (),
    ) -> Built:
        """Prepare the package with one of our commands, and build it with this kiwi; `more` are additional packages.

        `parameters` are names and values for the inject service.
        """


@pytest.fixture
def build(installed: Path, docker_registry: DockerRegistry, debs: Path, tmp_path: Path) -> Iterator[Build]:
    """Return a function that builds an image as OBS does: in a chroot, offline."""

    def make(
        *command: str,
        kiwi: str,
        configuration: str = "",
        more: Sequence[Path] = (),
        parameters: Sequence[tuple[str, str]] = (),
    ) -> Built:
        package = appliance.make(tmp_path / "package", docker_registry, debs, repository=_REPOSITORY)
        run_ours(installed, package, *command)
        if parameters:
            appliance.set_inject(package.directory, *parameters)
        return _build(tmp_path, package, configuration, debs, kiwi_debs(kiwi), *more)

    yield make
    (tmp_path / _IMAGE).unlink(missing_ok=True)  # pytest would keep it, and it has a gigabyte


def run_ours(installed: Path, package: Appliance, command: str, *arguments: str) -> None:
    """Run one of our commands on a package."""
    subprocess.run([installed / "bin/osc-containers", command, *arguments], cwd=package.directory, check=True)


def _build(work: Path, package: Appliance, configuration: str, *repositories: Path) -> Built:
    # The packages that obs-build would download for the image itself, without ours.
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
    built = next((root / "usr/src/packages").glob("KIWI*/*.ext4"))  # a bundle has two names for it
    image = built.rename(work / _IMAGE)
    others = {path.name: path.read_bytes() for path in (root / "usr/src/packages/OTHER").iterdir() if path.is_file()}
    shutil.rmtree(root)
    return Built(image=image, others=others, log=done.stdout, package=package)
