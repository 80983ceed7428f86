"""What every test gets: a home of its own, and registries that stop with the test."""

import fcntl
import itertools
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from tests.support import fault_registry, releases
from tests.support.docker_registry import DockerRegistry, StartRegistry, serve
from tests.support.fault_registry import FaultRegistry
from tests.support.workplace import Workplace

pytest_plugins = ("tests.support.e2e.debs", "tests.support.e2e.builds", "tests.support.kiwi_peer")

_FOREIGN = (
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "REGISTRY_AUTH_FILE",
    "DOCKER_CONFIG",
    "BUILD_ARCH",
)

FAST = "not integration"
"""What `make check` selects."""
_SLOW = (
    ("tests/e2e/obs/test_worker.py", "tests/e2e/obs/"),
    ("tests/e2e/test_obs_build.py", "tests/e2e/test_kiwi.py", "tests/e2e/test_packages.py"),
    ("tests/inject/store/test_podman.py", "tests/inject/packages/test_packages.py", "tests/prefetch/test_size.py"),
    ("tests/test_floor.py", "tests/e2e/test_boot.py", "tests/e2e/test_store_boot.py"),
)
"""Tests that take minutes. Each line is for one process to begin with, so that no processor is idle at the end."""

# No test is timed: a busy machine is no bug. The same examples every time: a failure can be had again.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.register_profile("fast", hypothesis.settings.get_profile("steady"), max_examples=10)
hypothesis.settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    """Let the fast suite try fewer examples, before modules with tests are imported."""
    if config.option.markexpr == FAST:
        hypothesis.settings.load_profile("fast")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what only another release of Debian can run, give the fast suite one row in so many, and sort by time."""
    rows: Counter[str] = Counter()
    for item in items:
        if reason := releases.reason_to_skip(item.nodeid):
            item.add_marker(pytest.mark.skip(reason=reason))
        if sampled := item.get_closest_marker("sampled"):
            name = item.nodeid.partition("[")[0]
            if rows[name] % sampled.kwargs["every"]:
                item.add_marker(pytest.mark.integration)
            rows[name] += 1
    items[:] = _slow_first(items, getattr(config, "workerinput", {"workercount": 1})["workercount"])


def _slow_first(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """Return all items so that the share of each process begins with slow ones.

    xdist's "worksteal" starts by giving each process the same number of items, in this order. Later, it moves items
    only from the end of a share.
    """
    shares: list[list[pytest.Item]] = [[] for _ in range(processes)]
    rest = list(items)
    for number, prefixes in enumerate(_SLOW):
        for prefix in prefixes:
            shares[number % processes] += [item for item in rest if item.nodeid.startswith(prefix)]
            rest = [item for item in rest if not item.nodeid.startswith(prefix)]
    for number, share in enumerate(shares):
        count = max(0, (len(items) * (number + 1) // processes) - sum(map(len, shares[: number + 1])))
        share += rest[:count]
        del rest[:count]
    return [*itertools.chain(*shares), *rest]


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give names of homes. To find a free name, `mktemp` would read a directory of thousands for each test."""
    homes = tmp_path_factory.mktemp("homes")
    return (homes / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, _homes: Iterator[Path]) -> None:
    """Keep the developer's credentials, caches and proxies out of the tests."""
    home = next(_homes)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in os.environ:
        if name in _FOREIGN or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Take back the handler that a front door sets: it writes to a stream that pytest closes."""
    yield
    logging.basicConfig(handlers=[logging.NullHandler()], level=logging.WARNING, force=True)


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Give a plain registry that all tests share: choose a repository of your own."""
    with serve(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def start_registry(tmp_path: Path) -> Iterator[StartRegistry]:
    """Give a function that starts a registry for this test alone."""
    with ExitStack() as stack:
        started = 0

        def start(*, tls: bool = False, users: Mapping[str, str] | None = None) -> DockerRegistry:
            nonlocal started
            started += 1
            return stack.enter_context(serve(tmp_path / f"registry{started}", tls=tls, users=users))

        yield start


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    """Give a registry in this process that misbehaves where a test wants it to."""
    with fault_registry.serve() as registry:
        yield registry


@pytest.fixture
def elsewhere() -> Iterator[FaultRegistry]:
    """Give a second one."""
    with fault_registry.serve() as registry:
        yield registry


@pytest.fixture
def workplace(
    tmp_path: Path, registry: FaultRegistry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Workplace:
    """Give a package with a container in `registry`; nothing waits between attempts."""
    monkeypatch.setattr("osc_containers.registry.retry.Attempts._delay", lambda attempts: 0.001)
    directory = tmp_path / "package"
    directory.mkdir()
    return Workplace(directory, registry, capsys)


@pytest.fixture
def package(prefetched: Path, tmp_path: Path) -> Path:
    """Give a copy of the package that a module's fixture `prefetched` made, which the test may change."""
    return shutil.copytree(prefetched, tmp_path / "package")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the prefix of a tree that `make install` made for the Python of the tests. All their processes share it."""
    directory = tmp_path_factory.getbasetemp()
    prefix = (directory.parent if "PYTEST_XDIST_WORKER" in os.environ else directory) / "installed"
    with prefix.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Whether another process has installed it shows only now that the lock is held.
        if not os.fstat(lock.fileno()).st_size:
            _install(prefix, sys.executable)
            lock.write("installed")
    return prefix


@pytest.fixture(scope="session")
def installed_for_debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the prefix of a tree that `make install` made, for Debian's Python."""
    return _install(tmp_path_factory.mktemp("installed"), "/usr/bin/python3")


def _install(prefix: Path, python: str) -> Path:
    command = ["make", "--silent", "install", f"PREFIX={prefix}", "DESTDIR=", f"PYTHON={python}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(command, cwd=Path(__file__).resolve().parent.parent, check=True, env=environment)
    return prefix
