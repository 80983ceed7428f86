"""The services as the osc of PyPI runs them, in a working copy, against a real registry."""

import hashlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import images
import osc_program
import pytest
from docker_registry import DockerRegistry
from images import AMD64, ARM64, Image

pytestmark = pytest.mark.integration

_IMAGES = {
    "index": images.multi_platform("index"),
    "list": images.multi_platform("list", docker=True),
    "single": images.small("single"),
}
_PLATFORMS = {"x86_64": AMD64, "aarch64": ARM64}
_DESCRIPTION = """\
<?xml version="1.0"?>
<image schemaversion="8.0" name="appliance">
    <include from="this://./containers.xml"/>
</image>
"""
_CONTAINERS = """\
<image schemaversion="8.0" name="containers">
    <containers source="HOST" backend="podman">
        <container name="index" path="osc" tag="1.0"/>
        <container name="list" path="osc" tag="1.0"/>
        <container name="single" path="osc" tag="1.0" arch="x86_64"/>
    </containers>
</image>
"""
_SERVICE = """\
<services>
  <service name="kiwi_containers" mode="manual">
    <param name="arch">x86_64</param>
    <param name="arch">aarch64</param>
  </service>
  <service name="kiwi_containers_inject" mode="buildtime"/>
</services>
"""


class _Api(BaseHTTPRequestHandler):
    """As much of OBS as osc asks before it runs services: no project has services of its own."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<services/>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """Give the URL of an OBS that has nothing to say."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def working_copy(api: str, docker_registry: DockerRegistry, tmp_path: Path) -> Path:
    """Give a working copy of a package whose description names three containers; the home directory has osc's login."""
    for name, image in _IMAGES.items():
        docker_registry.push(image, f"osc/{name}:1.0")
    osc_program.log_in(api)
    package = tmp_path / "package"
    store = {"_osclib_version": "2.0", "_apiurl": api, "_project": "home:ann", "_package": "appliance"}
    (package / ".osc").mkdir(parents=True)
    for name, text in store.items():
        (package / ".osc" / name).write_text(f"{text}\n")
    (package / ".osc/_files").write_text("<directory/>\n")
    (package / "appliance.kiwi").write_text(_DESCRIPTION)
    (package / "containers.xml").write_text(_CONTAINERS.replace("HOST", docker_registry.host))
    (package / "_service").write_text(_SERVICE)
    return package


def run_osc(
    package: Path, installed: Path, *arguments: str, umask: int = 0o022, environment: dict[str, str] | None = None
) -> str:
    done = osc_program.run(*arguments, prefix=installed, directory=package, umask=umask, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def contents(package: Path) -> dict[str, str]:
    """Return the digest of every file of a package."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in package.iterdir() if path.is_file()}


def archive_of(package: Path, registry: DockerRegistry, name: str, arch: str) -> Path:
    return package / f"{registry.host.replace(':', '_')}_osc_{name}_1.0.{arch}.ociarchive"


def manifest_of(image: Image, arch: str) -> Image:
    return next(part for part in image.manifests() if part.platform == _PLATFORMS[arch])


_ARCHIVES = [(name, arch) for name in _IMAGES for arch in _PLATFORMS if (name, arch) != ("single", "aarch64")]


def test_runall_fetches_every_kind_of_image_and_touches_nothing_else(
    working_copy: Path, installed: Path, docker_registry: DockerRegistry
) -> None:
    before = contents(working_copy)
    said = run_osc(working_copy, installed, "service", "runall")
    after = contents(working_copy)
    assert {name: digest for name, digest in after.items() if name in before} == before
    archives = {archive_of(working_copy, docker_registry, *item).name for item in _ARCHIVES}
    assert set(after) - set(before) == {"containers.lock", *archives}
    assert "not in a build root: 5 archives verified, nothing changed" in said

    asked = len(docker_registry.requests())
    times = {path.name: path.stat().st_mtime_ns for path in working_copy.iterdir() if path.is_file()}
    run_osc(working_copy, installed, "service", "runall")
    assert contents(working_copy) == after
    assert {path.name: path.stat().st_mtime_ns for path in working_copy.iterdir() if path.is_file()} == times
    assert not [request for request in docker_registry.requests()[asked:] if request.is_blob]


def test_it_runs_on_debians_own_python(working_copy: Path, installed_for_debian: Path) -> None:
    run_osc(working_copy, installed_for_debian, "service", "runall")
    assert "5 archives verified" in run_osc(working_copy, installed_for_debian, "containers", "verify")


def test_two_clones_get_the_same_bytes(working_copy: Path, installed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(working_copy, other)
    elsewhere = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "1"}
    run_osc(working_copy, installed, "service", "manualrun")
    run_osc(other, installed, "service", "manualrun", umask=0o077, environment=elsewhere)
    assert contents(other) == contents(working_copy)


def test_osc_containers_verifies_what_the_service_wrote(working_copy: Path, installed: Path) -> None:
    run_osc(working_copy, installed, "service", "manualrun")
    assert "5 archives verified" in run_osc(working_copy, installed, "containers", "verify")


@pytest.fixture
def podman() -> Iterator[list[str]]:
    """Give podman with a store of its own; its paths have to be short."""
    with tempfile.TemporaryDirectory() as store:
        yield ["podman", f"--root={store}/root", f"--runroot={store}/run", "--storage-driver=vfs"]


def test_other_programs_read_the_archives(
    working_copy: Path, installed: Path, docker_registry: DockerRegistry, tmp_path: Path, podman: list[str]
) -> None:
    run_osc(working_copy, installed, "service", "manualrun")
    for name, arch in _ARCHIVES:
        archive = archive_of(working_copy, docker_registry, name, arch)
        image = manifest_of(_IMAGES[name], arch)
        inspected = _output("skopeo", "inspect", "--format={{.Digest}}", f"oci-archive:{archive}")
        assert inspected.strip() == str(image.digest)
        _output("skopeo", "copy", f"docker-archive:{archive}", f"dir:{tmp_path / archive.name}")
        loaded = _output(*podman, "load", "--input", str(archive))
        assert f"{docker_registry.host}/osc/{name}:1.0" in loaded


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
