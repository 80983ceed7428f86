"""Signals at any moment of a run: how it ends, and what it prints."""

import gc
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from osc_containers.cli import process
from tests.support import images, packages
from tests.support.fault_registry import FaultRegistry
from tests.support.service_program import snapshot

STARTS = int(os.environ.get("STARTS", "60"))
SPAN = 0.25
"""Seconds after the start in which a signal arrives."""

WITH_AUDIT = """
import signal, sys, threading
from osc_containers.cli import process
handle_signals = process.handle_signals

def audit(event, arguments):
    # While signals are blocked, none can interrupt an import.
    if event == "import" and audits and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, []):
        print(threading.current_thread().name, arguments[0], file=sys.stderr)

def handle_signals_and_audit():
    handle_signals()
    audits.append(True)

audits = []
sys.addaudithook(audit)
process.handle_signals = handle_signals_and_audit
from osc_containers.cli.main import console
console()
"""


@pytest.mark.integration
def test_nothing_is_imported_after_signals_are_handled(registry: FaultRegistry, tmp_path: Path) -> None:
    """An exception in the middle of an import may become another one, or get lost."""
    registry.push(images.small("app"), "team/app:latest")
    package = packages.write(tmp_path / "package", packages.section(registry.host, 'name="app" path="team"'))
    (tmp_path / "root").mkdir()
    arch = "--arch=x86_64"
    for command in (
        ["list", "-q"],
        ["prefetch", "-q", arch],
        ["outdated", "-q", arch],
        ["verify", "-q", arch],
        ["check", "-q", arch],
        ["diff", "-q", "containers.lock"],
        ["inject", "-q", arch, f"--root={tmp_path / 'root'}"],
    ):
        done = subprocess.run([sys.executable, "-c", WITH_AUDIT, *command], cwd=package, capture_output=True, text=True)
        assert done.stderr == "", command


@pytest.mark.integration
def test_nothing_is_imported_late_for_unusual_packages(registry: FaultRegistry, tmp_path: Path) -> None:
    image = images.small("app")
    registry.push(image, "team/app:latest")
    bundle = packages.write(tmp_path / "bundle", packages.section(registry.host, 'name="app" path="team"'))
    local = packages.write(tmp_path / "local", packages.section("oci:images", 'name="app" tag="1"'))
    images.write_layout(image, local / "images/app", "1")
    (bundle / "_service").write_text("<services><service name='obs_scm'/></services>")
    with tarfile.open(bundle / "root.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("etc/systemd/system/a.service"))
    (local / "unused.xml").write_text((local / "containers.xml").read_text())
    arch = "--arch=x86_64"
    for package, command in (
        (bundle, ["prefetch", "-q", arch, "--inject=source"]),
        (bundle, ["check", "-q", arch]),
        (local, ["prefetch", "-q", arch]),
        (local, ["outdated", "-q", arch]),
        (local, ["check", "-q", arch, "--fix"]),
        (local, ["sbom", "-q", arch]),
        (local, ["export", "-q", arch, "localhost/app:1", str(tmp_path / "x.tar")]),
    ):
        done = subprocess.run([sys.executable, "-c", WITH_AUDIT, *command], cwd=package, capture_output=True, text=True)
        assert done.stderr == "", command


def _end_of(command: list[str], package: Path, number: signal.Signals, delay: float) -> tuple[int, str]:
    """Send a signal `delay` seconds after the start, and return how the process ended."""
    # A shell makes its background jobs ignore SIGINT, and the tests may run in one.
    command = ["env", f"--default-signal={number.name[3:]}", *command]
    with subprocess.Popen(command, cwd=package, stderr=subprocess.PIPE, text=True) as running:
        time.sleep(delay)
        running.send_signal(number)
        _, output = running.communicate(timeout=30)
    return running.returncode, output


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_at_any_moment_of_the_start(installed: Path, tmp_path: Path, number: signal.Signals) -> None:
    """`STARTS=1000` tries more moments."""
    moments = [random.Random(number).uniform(0, SPAN) for _ in range(STARTS // 2)]
    command = [str(installed / "bin/osc-containers"), "prefetch"]
    # The registry accepts connections and says nothing.
    with socket.create_server(("127.0.0.1", 0), backlog=STARTS) as registry, ThreadPoolExecutor(2) as pool:
        host = f"127.0.0.1:{registry.getsockname()[1]}"
        package = packages.write(tmp_path / "package", packages.section(host, 'name="app"'))
        before = snapshot(package)
        ends = set(pool.map(lambda delay: _end_of(command, package, number, delay), moments))
    assert ends <= {(-number, ""), (128 + number, "osc-containers: interrupted\n")}
    assert snapshot(package) == before


class _Finalized:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)


def _work_in_a_finalizer() -> int:
    process.handle_signals()
    _Finalized()
    gc.collect()
    time.sleep(10)
    return 0


def _ignore_exceptions() -> int:
    process.handle_signals()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    except BaseException:
        raise ImportError("PyCapsule_Import could not import module") from None
    return 0


@pytest.mark.parametrize("work", [_work_in_a_finalizer, _ignore_exceptions])
def test_lost_interrupt_ends_the_run(
    work: Callable[[], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(process, "exit_fast", end)
    started = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        process.run("p", work)
    assert caught.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "p: interrupted\n"
    assert time.monotonic() - started < 5
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
