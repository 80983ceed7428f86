"""The Debian and RPM packages: their files, their dependencies, and that they work in a minimal root."""

import re
import subprocess
from pathlib import Path

import pytest

from osc_containers import __version__
from osc_containers.inject.layout_directory import LAYOUTS
from osc_containers.oci.digest import Digest
from tests.support import images
from tests.support.docker_registry import DockerRegistry
from tests.support.e2e.debs import ROOT, CleanRoot, install, run

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("packages")]

_PROGRAMS = ("bzip2", "gpg2", "gzip", "openssl", "squashfs", "tar", "xz", "zstd")
"""What the inject service runs, by the names of openSUSE's packages."""
_FOR_THE_NETWORK = ("python3-platformdirs", "python3-requests", "python3-urllib3")

_ABOUT = ("/usr/share/doc/", "/usr/share/lintian/")
_SERVICES = "/usr/lib/obs/service"
_FILES = {
    "osc-containers": [
        "/etc/bash_completion.d/osc-containers",
        "/usr/bin/osc-containers",
        "/usr/lib/osc-plugins/containers.py",
        "/usr/share/fish/vendor_conf.d/osc-containers.fish",
        "/usr/share/man/man1/osc-containers.1.gz",
        "/usr/share/zsh/site-functions/_osc-containers",
    ],
    "obs-service-kiwi_containers": [f"{_SERVICES}/kiwi_containers", f"{_SERVICES}/kiwi_containers.service"],
    "obs-service-kiwi_containers_inject": [
        f"{_SERVICES}/kiwi_containers_inject",
        f"{_SERVICES}/kiwi_containers_inject.service",
    ],
}
_PREFETCH = f"cd /package; {_SERVICES}/kiwi_containers --outdir /package --arch x86_64"
_INJECT = f"touch /.buildenv; cd /package; BUILD_ARCH=x86_64 {_SERVICES}/kiwi_containers_inject --outdir /tmp"
_APP = images.small("app")


def output(*command: str | Path) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.fixture
def package(docker_registry: DockerRegistry, tmp_path: Path) -> Path:
    """Return a package with a container that is not prefetched yet."""
    docker_registry.push(_APP, "packages/app:1.0")
    package = tmp_path / "package"
    package.mkdir()
    (package / "appliance.kiwi").write_text(
        f'<image schemaversion="8.0" name="appliance"><containers source="{docker_registry.host}" backend="podman">'
        '<container name="app" path="packages" tag="1.0"/></containers></image>\n'
    )
    return package


def injected_blobs(package: Path) -> dict[str, bytes]:
    """Return the blobs in the layout directory that is in the image, by the hexadecimal digits of their digests."""
    layout = package / "root" / LAYOUTS.removeprefix("/") / "app_1.0"
    assert sorted(path.name for path in layout.iterdir()) == ["blobs", "index.json", "oci-layout"]
    return {path.name: path.read_bytes() for path in (layout / "blobs/sha256").iterdir()}


def blobs_of(image: images.Image) -> dict[str, bytes]:
    """Return the manifest, the configuration and the layers of an image in the same way."""
    return {Digest.of(content).hex: content for content in (image.raw, *image.blobs)}


def test_debian_packages_have_the_expected_files(our_debs: Path) -> None:
    built = {path.name.partition("_")[0]: path for path in our_debs.glob("*.deb")}
    wanted = {name.replace("_", "-"): files for name, files in _FILES.items()}
    wanted["osc-containers"] = [
        path.replace("site-functions", "vendor-completions") for path in wanted["osc-containers"]
    ]
    assert sorted(built) == sorted([*wanted, "python3-osc-containers"])
    for name, files in wanted.items():
        listed = [line.split() for line in output("dpkg-deb", "--contents", built[name])]
        assert {owner for _, owner, *_ in listed} == {"root/root"}
        found = [fields[5].removeprefix(".") for fields in listed if fields[0].startswith("-")]
        assert [path for path in found if not path.startswith(_ABOUT)] == files
        assert f"/usr/share/doc/{name}/changelog.Debian.gz" in found
        assert "python3 (>= 3.11)" in output("dpkg-deb", "--field", built[name], "Depends")[0].split(", ")


def test_debian_services_run_in_a_clean_root(clean_root: CleanRoot, package: Path) -> None:
    shared = {"/package": package}
    fetched = clean_root(install("obs-service-kiwi-containers") + _PREFETCH, shared)
    assert fetched.returncode == 0, fetched.stderr
    assert (package / "containers.lock").exists()
    injected = clean_root(install("obs-service-kiwi-containers-inject") + _INJECT, shared)
    assert injected.returncode == 0, injected.stderr
    assert injected_blobs(package) == blobs_of(_APP)
    brought = {name for name in injected.stdout.split() if name.startswith("python3")}
    versioned = {name for name in brought if name.startswith("python3.")}
    assert brought - versioned == {"python3", "python3-minimal", "python3-lxml", "python3-osc-containers"}


def test_debian_command_and_plugin_install_together(clean_root: CleanRoot) -> None:
    done = clean_root(install("osc-containers") + "osc-containers --version; ls /usr/lib/osc-plugins", {})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [f"osc-containers {__version__}", "containers.py"]


def test_lintian_has_nothing_to_say(our_debs: Path) -> None:
    found = subprocess.run(["lintian", "--allow-root", *our_debs.glob("*.deb")], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, ""), found.stderr


@pytest.fixture(scope="module")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the RPM packages of this checkout, by name."""
    directory = tmp_path_factory.mktemp("rpms")
    run(ROOT / "dist/build-rpm", directory)
    return {path.name.rpartition(f"-{__version__}-")[0]: path for path in directory.glob("*.noarch.rpm")}


def test_rpm_packages_have_the_expected_files(rpms: dict[str, Path]) -> None:
    assert sorted(rpms) == sorted([*_FILES, "python3-osc-containers"])
    for name, files in _FILES.items():
        found = output("rpm", "--query", "--list", "--package", rpms[name])
        # openSUSE's rpmbuild compresses manual pages, Debian's does not.
        assert {path.removesuffix(".gz") for path in files} <= {path.removesuffix(".gz") for path in found}


_OF_DEBIANS_RPMBUILD = (
    "no-signature|no-packager-tag|invalid-license MIT|no-buildroot-tag|manpage-not-compressed|no-manual-page"
)
"""What rpmlint says of packages that were not built on openSUSE: nobody signs them, or compresses the manual page."""


def test_rpmlint_has_nothing_to_say(rpms: dict[str, Path]) -> None:
    spec = ROOT / "dist/osc-containers.spec"
    command: list[str | Path] = ["rpmlint", "--rpmlintrc", ROOT / "dist/osc-containers-rpmlintrc", spec, *rpms.values()]
    found = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in found.stdout.splitlines() if re.search(": [EW]: ", line)]
    assert [line for line in lines if not re.search(_OF_DEBIANS_RPMBUILD, line)] == []
    assert lines, found.stderr


def test_spec_file_uses_its_own_python_macro() -> None:
    """Fedora defines `%python` as a path that gives an error."""
    option = "--define=python /usr/bin/python"
    found = output("rpmspec", "--query", "--queryformat=%{NAME}\n", option, ROOT / "dist/osc-containers.spec")
    assert sorted(found) == sorted([*_FILES, "python3-osc-containers"])


def test_rpm_packages_can_use_another_python(tmp_path: Path) -> None:
    """On SLE 15, for example, the package python311 has the program python3.11."""
    program = Path("/usr/bin/python3").resolve().name
    interpreter = program.replace(".", "")
    run(ROOT / "dist/build-rpm", tmp_path, "--define", f"interpreter {interpreter}")
    (inject,) = tmp_path.glob("obs-service-kiwi_containers_inject-*.noarch.rpm")
    found = {line.split()[0] for line in output("rpm", "--query", "--requires", "--package", inject)}
    assert {need for need in found if not need.startswith("rpmlib(")} == {
        "/usr/bin/env",
        f"{interpreter}-lxml",
        f"{interpreter}-osc-containers",
        *_PROGRAMS,
    }


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("python3-osc-containers", {"python3", "python3-lxml"}),
        ("obs-service-kiwi_containers_inject", {"python3-lxml", "python3-osc-containers", *_PROGRAMS}),
        ("obs-service-kiwi_containers", {"python3-osc-containers", *_FOR_THE_NETWORK}),
        ("osc-containers", {"python3-osc-containers", *_FOR_THE_NETWORK}),
    ],
)
def test_rpm_and_debian_dependencies_agree(rpms: dict[str, Path], name: str, needs: set[str]) -> None:
    found = {line.split()[0] for line in output("rpm", "--query", "--requires", "--package", rpms[name])}
    assert {need for need in found if not need.startswith(("rpmlib(", "config(", "/"))} == needs


def test_rpm_services_run_in_a_clean_root(
    clean_root: CleanRoot, rpms: dict[str, Path], package: Path, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    for rpm in rpms.values():
        run("rpm", "--install", "--nodeps", "--root", files, rpm)
    lines = [install("python3-lxml", *_FOR_THE_NETWORK), "cp -a /rpms/usr /", _PREFETCH, _INJECT]
    done = clean_root("\n".join(lines), {"/package": package, "/rpms": files})
    assert done.returncode == 0, done.stderr
    assert injected_blobs(package) == blobs_of(_APP)
