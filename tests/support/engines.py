"""Container engines with stores of their own, which neither the machine nor its user notices."""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 30.0
"""Seconds that a daemon has to come up."""


def output(*command: str | Path) -> str:
    """Run a command and return what it prints; what it complains of is in the failure."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def podman() -> Iterator[Sequence[str]]:
    """Give the beginning of a podman command line; the paths of its store have to be short."""
    with tempfile.TemporaryDirectory() as store:
        yield ["podman", f"--root={store}/root", f"--runroot={store}/run", "--storage-driver=vfs"]


@contextmanager
def docker() -> Iterator[Sequence[str]]:
    """Run a dockerd without a network and give the beginning of a command line for it."""
    with tempfile.TemporaryDirectory() as store:
        offline = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs")
        places = (f"--data-root={store}/data", f"--exec-root={store}/run", f"--pidfile={store}/pid")
        client = ["docker", "--host", f"unix://{store}/socket"]
        daemon = ["dockerd", *offline, *places, f"--host=unix://{store}/socket"]
        with _running(daemon, [*client, "version"], Path(store, "log")):
            yield client


@contextmanager
def containerd() -> Iterator[Sequence[str]]:
    """Run a containerd and give the beginning of a command line for it."""
    with tempfile.TemporaryDirectory() as store:
        client = ["ctr", "--address", f"{store}/socket"]
        daemon = ["containerd", f"--root={store}/root", f"--state={store}/run"]
        with _running([*daemon, f"--address={store}/socket"], [*client, "version"], Path(store, "log")):
            yield client


@contextmanager
def _running(daemon: Sequence[str], question: Sequence[str], log: Path) -> Iterator[None]:
    command = ["unshare", "--net", "--mount", *daemon]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out) as it,
    ):
        try:
            deadline = time.monotonic() + _PATIENCE
            while subprocess.run(question, capture_output=True).returncode:
                assert it.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.05)
            yield
        finally:
            it.terminate()  # dockerd ends its containerd, too
