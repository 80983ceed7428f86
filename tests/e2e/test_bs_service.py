"""The services, run by the source service server of OBS: Debian's bs_service, on the loopback interface."""

import http.client
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from lxml import etree

from osc_containers.lock import lockfile
from osc_containers.obs import service_file
from tests.support import images
from tests.support.docker_registry import DockerRegistry
from tests.support.e2e.debs import ROOT, once, run

pytestmark = pytest.mark.integration

_PACKAGES = ("obs-server", "libxml-parser-perl", "libfile-sync-perl")
_CONFIG = """\
package BSConfig;
our ($bsdir, $rundir, $logdir) = map { "DIR$_" } "", "/run", "/log";
our ($srcserver, $reposerver, $serviceserver) = ("http://127.0.0.1:1") x 3;
our ($servicedir, $service_timeout, $service_maxchild) = ("SERVICES", 300, 2);
our ($bsuser, $bsgroup, $bsserviceuser, $bsservicegroup);
our $ipaccess = { "127.0.0.1" => "rw" };
1;
"""
_PATIENCE = 60.0

Update = Callable[..., dict[str, bytes]]


@pytest.fixture(scope="module")
def obs_server() -> Path:
    """Return the unpacked packages of the server; installing them would start it."""

    def unpack(directory: Path) -> None:
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *_PACKAGES]
        subprocess.run(download, cwd=directory, check=True)
        for package in list(directory.glob("*.deb")):
            run("dpkg-deb", "--extract", package, directory)
            package.unlink()

    return once("obs-server", unpack, *_PACKAGES)


@contextmanager
def serve(obs_server: Path, services: Path, directory: Path, *, offline: bool) -> Iterator[int]:
    """Run the server on a free loopback port; with `offline`, its services have no network."""
    for name in ("run", "log"):
        (directory / name).mkdir(parents=True)
    (directory / "BSConfig.pm").write_text(
        _CONFIG.replace("DIR", str(directory)).replace("SERVICES", str(services / "lib/obs/service"))
    )
    perl = ["perl", f"-I{directory}", f"-I{obs_server}/usr/lib/x86_64-linux-gnu/perl5/5.36", "-I/usr/lib/obs-build"]
    with socket.create_server(("127.0.0.1", 0)) as listening, (directory / "log/out").open("wb") as log:
        command = [*(["unshare", "--net"] if offline else []), *perl, f"{obs_server}/usr/lib/obs/server/bs_service"]
        # Pass a socket to the server, because it would open its own port on all interfaces.
        process = subprocess.Popen(
            [*command, "--port", f"&{listening.fileno()}"],
            cwd=directory,
            pass_fds=[listening.fileno()],
            stdout=log,
            stderr=log,
        )
        try:
            yield listening.getsockname()[1]
        finally:
            process.terminate()
            process.wait(_PATIENCE)


@pytest.fixture
def update(obs_server: Path, installed_for_debian: Path, tmp_path: Path) -> Iterator[Update]:
    """Return a function that runs the services of a package on a server, and returns the files that it would store."""
    with ExitStack() as stack:
        ports: dict[bool, int] = {}

        def post(package: Path, *, offline: bool = False) -> dict[str, bytes]:
            if offline not in ports:
                server = serve(obs_server, installed_for_debian, tmp_path / f"server{offline}", offline=offline)
                ports[offline] = stack.enter_context(server)
            return _post(ports[offline], package, tmp_path / "reply")

        yield post


def _post(port: int, package: Path, reply: Path) -> dict[str, bytes]:
    names = "\n".join(path.name for path in package.iterdir())
    pack = ["cpio", "--create", "--format=newc", "--quiet"]
    packed = subprocess.run(pack, input=names.encode(), cwd=package, check=True, stdout=subprocess.PIPE).stdout
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    connection.request("POST", "/sourceupdate/home:ann/appliance", packed, {"Content-Type": "application/x-cpio"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.status != http.HTTPStatus.OK:
        return {"error": content}
    reply.mkdir()
    unpack = ["cpio", "--extract", "--quiet", "--no-absolute-filenames"]
    subprocess.run(unpack, input=content, cwd=reply, check=True)
    return {path.name: path.read_bytes() for path in reply.iterdir()}


@pytest.fixture
def package(docker_registry: DockerRegistry, tmp_path: Path) -> Path:
    """Return a package with a container; the test writes its `_service`."""
    docker_registry.push(images.small("app"), "server/app:1.0")
    package = tmp_path / "package"
    package.mkdir()
    (package / "appliance.kiwi").write_text(
        f'<image schemaversion="8.0" name="appliance"><containers source="{docker_registry.host}" backend="podman">'
        '<container name="app" path="server" tag="1.0"/></containers></image>\n'
    )
    return package


def write_service(package: Path, mode: str, **parameters: str) -> None:
    """Write a `_service` with the prefetch in this mode."""
    params = "".join(f'<param name="{name}">{value}</param>' for name, value in parameters.items())
    (package / "_service").write_text(
        f'<services><service name="kiwi_containers" mode="{mode}">{params}</service>'
        '<service name="kiwi_containers_inject" mode="buildtime"/></services>'
    )


def test_server_run_writes_lock_and_archive(package: Path, update: Update) -> None:
    write_service(package, "trylocal", arch="x86_64", locked="no", inject="buildtime", description="appliance.kiwi")
    stored = update(package)
    prefix = "_service:kiwi_containers:"
    assert all(name.startswith(prefix) for name in stored), stored
    lock = lockfile.loads(stored[f"{prefix}containers.lock"].decode())
    assert set(stored) == {f"{prefix}{name}" for name in ("containers.lock", *lock.archive_names().values())}


def test_last_line_explains_a_missing_network(package: Path, update: Update, docker_registry: DockerRegistry) -> None:
    write_service(package, "trylocal", arch="x86_64")
    stored = update(package, offline=True)
    assert set(stored) == {"_service_error"}
    lines = stored["_service_error"].decode().splitlines()
    print(*lines, sep="\n")
    assert lines[0] == "service kiwi_containers failed:"
    assert docker_registry.host in lines[-1], "the line that users of OBS get to see"
    assert "Traceback" not in "".join(lines)


def test_server_does_not_run_buildtime_services(package: Path, update: Update) -> None:
    """A server of 2018 does not know `manual`, but `disabled`, which has the same effect there."""
    write_service(package, "disabled")
    assert update(package) == {}


def test_server_runs_nothing_that_init_writes() -> None:
    """With these modes, a current server starts no run (BSSrcServer/Service.pm, genservicemark)."""
    document = etree.fromstring(service_file.add_our_services(None, []))
    assert {service.get("mode") for service in document.iterchildren("service")} == {"manual", "buildtime"}


def test_server_accepts_all_parameters(package: Path, update: Update) -> None:
    write_service(package, "trylocal", unheard="of")
    error = update(package)["error"]
    assert b"unheard" in error
    assert b"is not defined" in error
    described = etree.parse(str(ROOT / "service/kiwi_containers.service")).getroot().iterchildren("parameter")
    values = {
        "description": "appliance.kiwi",
        "arch": "x86_64",
        "profile": "any",
        "locked": "no",
        "inject": "buildtime",
    }
    assert sorted(str(parameter.get("name")) for parameter in described) == sorted(values)
    write_service(package, "trylocal", **values)
    stored = update(package)
    print(stored)
    assert "error" not in stored
    assert b"usage:" not in stored.get("_service_error", b"")
