"""The packages that the workers build while the tests run, and the accident of one of the workers.

| package of `home:ann` | layout | flavors | what is special |
|---|---|---|---|
| `appliance` | archives | | that of docs/first-image.md; its worker dies in the middle of the build |
| `flavors` | blobs | main, extra | some containers in a read-only store; SBOMs |
| `bundled` | archives | | `inject=source` |
"""

import json
import time
from collections.abc import Mapping

from lxml import etree

from tests.support.e2e import appliance
from tests.support.e2e.obs import backend as backends
from tests.support.e2e.obs import first_image, scene
from tests.support.e2e.obs.backend import Backend

FLAVORS = ("main", "extra")
STORED = "*/side:*"
"""What is in a read-only store in the images of `flavors`."""
_ACCIDENT = "accident.json"
_PATIENCE = 120.0


def start(backend: Backend) -> None:
    """Commit all packages; their working copies are in the directory of the back end."""
    first_image.start(backend)
    _start_flavors(backend)
    _start_bundled(backend)
    _kill_a_worker(backend)


def _start_flavors(backend: Backend) -> None:
    package = scene.make_package(backend, "home:ann", "flavors", backend.directory, builds=True)
    scene.set_profiles(package, "@BUILD_FLAVOR@")
    flavors = "".join(f"<flavor>{each}</flavor>" for each in FLAVORS)
    (package / "_multibuild").write_text(f"<multibuild>{flavors}</multibuild>\n")
    backend.osc("containers", "init", "--mode", "disabled", "--layout", "blobs", directory=package)
    appliance.set_inject(package, ("store", STORED), ("sbom", "spdx"))
    scene.commit(backend, package)


def _start_bundled(backend: Backend) -> None:
    package = scene.make_package(backend, "home:ann", "bundled", backend.directory, builds=True)
    scene.set_profiles(package, "extra")
    options = ["--mode", "disabled", "--inject", "source", "--arch", "x86_64"]
    backend.osc("containers", "init", *options, directory=package)
    scene.commit(backend, package)


def _kill_a_worker(backend: Backend) -> None:
    """Kill the worker that builds `appliance` in the middle of that, and keep what osc showed then."""
    worker = _wait_for_its_worker(backend)
    state = backends.results(backend, "home:ann", "appliance")["appliance"]
    backend.kill(worker)
    (backend.directory / _ACCIDENT).write_text(json.dumps({"worker": worker, "state": state}))


def _wait_for_its_worker(backend: Backend) -> str:
    """Return the name of the worker that builds `appliance`, when packages are being installed in its build root."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        status = etree.fromstring(backend.osc("api", "/build/_workerstatus").stdout.encode())
        workers = [each.get("workerid", "") for each in status.iter("building") if each.get("package") == "appliance"]
        if workers and "installing" in log(backend, "appliance"):
            return workers[0]
        time.sleep(0.2)
    raise TimeoutError("no worker builds appliance")


def read_accident(backend: Backend) -> Mapping[str, str]:
    """Return the worker that was killed, and the state of its package before that."""
    accident: dict[str, str] = json.loads((backend.directory / _ACCIDENT).read_text())
    return accident


def assignments(backend: Backend, package: str) -> int:
    """Return how often the dispatcher has given a package to a worker."""
    lines = (backend.directory / "log/dispatch.out").read_text().splitlines()
    return sum("assignjob" in line and f"::{package}-" in line for line in lines)


def log(backend: Backend, package: str) -> str:
    """Return the log of a build as far as it is written."""
    return backend.osc("api", f"/build/home:ann/images/x86_64/{package}/_log?nostream=1", check=False).stdout
