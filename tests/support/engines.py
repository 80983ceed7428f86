"""Container engines with separate stores, which do not affect the machine or the user's own engines."""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_TIMEOUT = 30.0
"""Seconds for a daemon to start."""


def output(*command: str | Path) -> str:
    """Run a command and return its output; if it fails, the assertion shows its messages."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


@contextmanager
def podman() -> Iterator[Sequence[str]]:
    """Yield the start of a podman command line."""
    # podman limits the length of the paths of its store, so it cannot be in the directory of a test.
    with tempfile.TemporaryDirectory() as store:
        yield ["podman", f"--root={store}/root", f"--runroot={store}/run", "--storage-driver=vfs"]


@contextmanager
def docker() -> Iterator[Sequence[str]]:
    """Run a dockerd without network access and yield the start of a command line for it."""
    with tempfile.TemporaryDirectory() as store:
        offline = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs")
        directories = (f"--data-root={store}/data", f"--exec-root={store}/run", f"--pidfile={store}/pid")
        client = ["docker", "--host", f"unix://{store}/socket"]
        daemon = ["dockerd", *offline, *directories, f"--host=unix://{store}/socket"]
        with _running(daemon, [*client, "version"], Path(store, "log")):
            yield client


@contextmanager
def containerd() -> Iterator[Sequence[str]]:
    """Run a containerd and yield the start of a command line for it."""
    with tempfile.TemporaryDirectory() as store:
        client = ["ctr", "--address", f"{store}/socket"]
        daemon = ["containerd", f"--root={store}/root", f"--state={store}/run"]
        with _running([*daemon, f"--address={store}/socket"], [*client, "version"], Path(store, "log")):
            yield client


@contextmanager
def _running(daemon: Sequence[str], probe: Sequence[str], log: Path) -> Iterator[None]:
    command = ["unshare", "--net", "--mount", *daemon]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out) as process,
    ):
        try:
            deadline = time.monotonic() + _TIMEOUT
            while subprocess.run(probe, capture_output=True).returncode:
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.05)
            yield
        finally:
            process.terminate()  # dockerd also stops its containerd
