"""The processes of an OBS back end, started and watched over by the first process of a PID namespace.

`backend.py` runs this program in namespaces of its own, where the daemons have their usual ports and no network but
loopback. The kernel ends all of them with this process: nothing that a build or a service started can stay.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.support import docker_registry

API, SOURCES, REPOSITORIES, SERVICES, REGISTRY = 6500, 5352, 5252, 5152, 5000
"""Ports on 127.0.0.1."""

WORKERS = ("worker1", "worker2")
WORKER_SIZE = "6g"
"""The limit of a build root, which is in memory: dpkg syncs every file."""
_WORKER_DIRECTORIES = {"root": "root", "statedir": "state", "cachedir": "cache"}
_PATIENCE = 60.0
_INTERVAL = 0.1


def commands(directory: Path) -> dict[str, list[str]]:
    """Return the command line of each daemon, in the order in which they start."""
    address = "http://127.0.0.1"
    worker = ["bs_worker", "--cachesize", "1000", "--noworkerupdate", "--arch", "x86_64", "--hostlabel", "worker"]
    worker += ["--reposerver", f"{address}:{REPOSITORIES}", "--srcserver", f"{address}:{SOURCES}", "--jobs", "1"]
    server = {
        "srcserver": ["bs_srcserver"],
        "repserver": ["bs_repserver"],
        "sched": ["bs_sched", "x86_64"],
        "dispatch": ["bs_dispatch"],
        "service": ["bs_service"],
        "servicedispatch": ["bs_servicedispatch"],
        "deltastore": ["bs_deltastore"],
    }
    for port, name in enumerate(WORKERS, 6590):
        server[name] = [*worker, "--id", name, "--port", str(port)]
        for option, place in _WORKER_DIRECTORIES.items():
            server[name] += [f"--{option}", f"{directory}/{name}/{place}"]
    perl = {name: ["perl", f"./{program}", *options] for name, (program, *options) in server.items()}
    api = [sys.executable, "-m", "tests.support.e2e.obs.api", str(API), str(SOURCES), f"{directory}/log/api"]
    return perl | {"api": api, "registry": [docker_registry.program(), "serve", f"{directory}/registry.yml"]}


class Daemons:
    """Running daemons, by name. One that ends is started again, as systemd does it on a server."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._running: dict[int, str] = {}

    def start(self, name: str) -> None:
        """Start a daemon in a session of its own."""
        with (self._directory / "log" / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                commands(self._directory)[name],
                cwd=self._directory / "server",
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running[process.pid] = name

    def kill(self, name: str) -> None:
        """Kill a daemon and its children, as a crash of its machine does."""
        for pid in [pid for pid, running in self._running.items() if running == name]:
            os.killpg(pid, signal.SIGKILL)

    def restart_those_that_ended(self) -> None:
        """Reap every process that has ended, and start daemons again, except those that shall stay away."""
        with suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self._running.pop(pid, None)
        for name in commands(self._directory).keys() - self._running.values():
            if not (self._directory / "away" / name).exists():
                self.start(name)


def main() -> None:
    """Start everything, and stay until no user is left or the process is killed."""
    directory = Path(sys.argv[1])
    environment = os.environ | {"OBS_DIRECTORY": str(directory)}
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name in WORKERS:
        for part in _WORKER_DIRECTORIES.values():
            (directory / name / part).mkdir(parents=True, exist_ok=True)
        size = ["-o", f"size={WORKER_SIZE}"]
        subprocess.run(["mount", "-t", "tmpfs", *size, name, directory / name / "root"], check=True)
    daemons = Daemons(directory, environment)
    for name in ("srcserver", "repserver"):
        daemons.start(name)
    for port in (SOURCES, REPOSITORIES):
        _wait_for(port)
    for name in commands(directory):
        if name not in ("srcserver", "repserver", *WORKERS):
            daemons.start(name)
    for port in (API, SERVICES, REGISTRY):
        _wait_for(port)
    for name in WORKERS:
        daemons.start(name)
    (directory / "ready").touch()
    while _is_used(directory / "users"):
        for request in (directory / "kill").iterdir():
            request.unlink()
            daemons.kill(request.name)
        daemons.restart_those_that_ended()
        time.sleep(_INTERVAL)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(_INTERVAL)
        else:
            return
    sys.exit(f"port {port} is still closed after {_PATIENCE:.0f} seconds")


def _is_used(users: Path) -> bool:
    """Tell whether a process holds a lock on this file; without the file, there is no end."""
    if not users.exists():
        return True
    with users.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


if __name__ == "__main__":
    main()
