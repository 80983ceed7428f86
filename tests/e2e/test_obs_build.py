"""A whole package, through obs-build, offline: with our service in the build root and without, until it is booted."""

import stat
from pathlib import Path

import pytest

from e2e.appliance import OWN_FILE
from e2e.builds import Built
from e2e.machine import make_machine

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("images")]

_UNITS = "usr/lib/systemd/system"
_MODES = {
    f"{_UNITS}/kiwi_containers.service": "-rw-r--r--",
    f"{_UNITS}/kiwi_containers-podman-app_1.0.service": "-rw-r--r--",
    f"{_UNITS}/kiwi_containers-podman-tools_2.0.service": "-rw-r--r--",
    f"{_UNITS}/kiwi_containers.service.wants": "drwxr-xr-x",
    f"{_UNITS}/kiwi_containers.service.wants/kiwi_containers-podman-app_1.0.service": "lrwxrwxrwx",
    f"{_UNITS}/kiwi_containers.service.wants/kiwi_containers-podman-tools_2.0.service": "lrwxrwxrwx",
    f"{_UNITS}/multi-user.target.wants/kiwi_containers.service": "lrwxrwxrwx",
    "usr/lib/tmpfiles.d/kiwi_containers.conf": "-rw-r--r--",
    "usr/libexec/kiwi_containers": "drwxr-xr-x",
    "usr/libexec/kiwi_containers/load": "-rwxr-xr-x",
    "var/tmp/kiwi_containers": "drwxr-xr-x",
    "var/tmp/kiwi_containers/app_1.0": "-rw-r--r--",
    "var/tmp/kiwi_containers/data_1.0": "-rw-r--r--",
    "var/tmp/kiwi_containers/tools_2.0": "-rw-r--r--",
}
"""What README lists, for the profile that is built."""


@pytest.fixture(params=["with_service", "without_service"])
def built(request: pytest.FixtureRequest) -> Built:
    """Give an image that was built in one of the ways."""
    image = request.getfixturevalue(f"built_{request.param}")
    assert isinstance(image, Built)
    return image


def test_the_image_gets_what_readme_lists_and_keeps_what_it_had(built: Built, tmp_path: Path) -> None:
    with built.mounted(tmp_path / "image") as root:
        ours = {path: path.lstat() for path in root.rglob("*") if "kiwi_containers" in str(path.relative_to(root))}
        assert {str(path.relative_to(root)): stat.filemode(status.st_mode) for path, status in ours.items()} == _MODES
        assert {(status.st_uid, status.st_gid) for status in ours.values()} == {(0, 0)}
        assert stat.filemode((root / "var/tmp").stat().st_mode) == "drwxrwxrwt"
        assert (root / OWN_FILE).read_text() == "own\n"
        assert not list(root.glob("usr/lib/obs")), "our service is in the build root, not in the image"


def test_the_containers_are_loaded_at_the_first_boot(built: Built, tmp_path: Path) -> None:
    with built.mounted(tmp_path / "image") as root, make_machine(root, tmp_path / "machine") as machine:
        first = machine.boot()
        wanted = built.package.in_podman("app:", "tools:")
        assert {line.rpartition(" ")[0] + " " for line in first.images} == wanted
        left = {path.name for path in (machine.var / "tmp/kiwi_containers").iterdir()}
        assert left == {"data_1.0"}
        second = machine.boot()
        assert second.images == first.images
        assert second.journal == ()


def test_only_the_build_that_has_our_service_runs_it(built_with_service: Built, built_without_service: Built) -> None:
    assert "<containers> taken out" in built_with_service.log
    assert "kiwi_containers.obscpio" not in built_with_service.log
    assert "kiwi_containers_inject" not in built_without_service.log
