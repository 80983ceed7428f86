"""Servers that break: what the packager sees, and that nothing is lost."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import docker_registry, images
from tests.support.e2e.obs import backend as backends
from tests.support.e2e.obs import scene
from tests.support.e2e.obs.backend import Backend
from tests.support.e2e.obs.project import Project

pytestmark = pytest.mark.integration

_PATIENCE = 60.0
_SIZE = 64 << 20
_LAYERS = 3


def wait_for_upload(backend: Backend) -> None:
    """Wait until the source server has received a part of a layer."""
    started, deadline = time.time(), time.monotonic() + _PATIENCE

    def is_uploading() -> bool:
        with suppress(FileNotFoundError):  # complete meanwhile
            for path in (backend.directory / "sources/:upload").iterdir():
                status = path.stat()
                # A server that was killed leaves what it has received.
                if status.st_size > 1 << 20 and status.st_mtime > started:
                    return True
        return False

    while not is_uploading():
        assert time.monotonic() < deadline, "nothing is uploaded"
        time.sleep(0.001)


def revision(backend: Backend) -> str:
    """Return the revision of the package on the server."""
    return backend.osc("api", "/source/home:ann/large").stdout.partition('rev="')[2].partition('"')[0]


def push(backend: Backend, version: str) -> None:
    """Push a new version of a large image."""
    layers = [images.random_layer(f"large {version} {number}", _SIZE) for number in range(_LAYERS)]
    scene.push(backend, {"team/app:1.0": images.image(*layers)})


def verify_checkout(backend: Backend, directory: Path) -> None:
    """Verify what a new working copy has."""
    directory.mkdir()
    package = scene.check_out(backend, "home:ann", "large", directory)
    assert backend.osc("containers", "verify", directory=package).returncode == 0


def test_source_server_fails_during_a_commit(tmp_path: Path) -> None:
    """If the server is back soon, osc repeats its request; otherwise the next commit uploads what is missing."""

    def commit(check: bool) -> "subprocess.CompletedProcess[str]":
        return backend.osc("commit", "--message", "containers", directory=package, check=check)

    with (
        backends.share(tmp_path / "obs", lambda each: backends.make_project(each, "home:ann", "images")) as backend,
        ThreadPoolExecutor(1) as pool,
    ):
        push(backend, "1")
        package = scene.make_package(backend, "home:ann", "large", tmp_path)
        scene.set_containers(package, "app")
        backend.osc("containers", "init", "--mode", "disabled", "--layout", "blobs", directory=package)
        backend.osc("addremove", directory=package)
        running = pool.submit(commit, check=True)
        wait_for_upload(backend)
        backend.kill("srcserver")
        print(running.result().stdout)
        assert "\n503 PUT 0 /source/home:ann/large/" in (backend.directory / "log/api").read_text()
        assert revision(backend) == "1"
        verify_checkout(backend, tmp_path / "first")

        push(backend, "2")
        backend.osc("service", "disabledrun", directory=package)
        backend.osc("addremove", directory=package)
        before = backend.osc("status", directory=package).stdout
        running = pool.submit(commit, check=False)
        wait_for_upload(backend)
        with backend.without("srcserver"):
            failed = running.result()
        print(failed.stdout)
        assert failed.returncode == 1
        assert "503" in failed.stdout
        assert "Traceback" not in failed.stdout
        backends.wait_for_server(backend)
        assert revision(backend) == "1"
        assert backend.osc("status", directory=package).stdout == before
        print(commit(check=True).stdout)
        assert revision(backend) == "2"
        verify_checkout(backend, tmp_path / "second")


@contextmanager
def registry_in(backend: Backend, directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a second registry with the images of the first one in the network of the back end, on port 5001."""
    directory.mkdir()
    text = (backend.directory / "registry.yml").read_text().replace(":5000", ":5001")
    (directory / "registry.yml").write_text(text)
    command = backend.wrap(docker_registry.program(), "serve", directory / "registry.yml")
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()


def test_registry_is_gone(project: Project, tmp_path: Path) -> None:
    backend = project.backend
    with registry_in(backend, tmp_path / "registry") as registry:
        package = project.make_package("gone")
        path = package / "appliance.kiwi"
        path.write_text(path.read_text().replace(":5000", ":5001"))
        project.init(package)
        registry.kill()
        registry.wait()
        failed = backend.osc("service", "disabledrun", directory=package, check=False)
        print(failed.stdout)
        assert failed.returncode == 1
        assert "127.0.0.1:5001: connection refused" in failed.stdout
        assert backend.osc("status", directory=package).stdout == ""
        assert backend.osc("containers", "verify", directory=package).returncode == 0
        assert project.results("gone", "scheduled", "failed", "broken", "unresolvable") in ("scheduled", "failed")


def test_a_back_end_whose_starter_is_busy_is_stopped(tmp_path: Path) -> None:
    """The test process that started it waits for it only at its own end, and until then it is a zombie."""
    script = "import subprocess, sys\nchild = subprocess.Popen('true')\nprint(child.pid, flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        Backend(directory=tmp_path, process=int(starter.stdout.readline())).stop()
        assert starter.poll() is None


def test_a_back_end_that_has_ended_is_stopped(tmp_path: Path) -> None:
    with subprocess.Popen("true") as process:
        process.wait()
        Backend(directory=tmp_path, process=process.pid).stop()
