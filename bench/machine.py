"""What this machine can do: the rates that no program here can beat with one thread."""

import hashlib
import os
import platform
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PYTHON = "/usr/bin/python3"
"""The Python of the distribution. One that was built without optimizations starts more slowly."""

_CHUNK = 1 << 20
_SIZE = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Bytes for each second of a thread's processor time, and how many threads can have such seconds at a time."""

    cores: int
    sha256: float
    receive: float
    write: float
    read: float
    copy: float

    def __str__(self) -> str:
        rates = {
            "SHA-256": self.sha256,
            "receive (loopback)": self.receive,
            "write": self.write,
            "read": self.read,
            "copy_file_range": self.copy,
        }
        shown = ", ".join(f"{name} {rate / 1e6:.0f}" for name, rate in rates.items())
        return f"{self.cores} cores; one thread, MB/s: {shown}"


def describe() -> str:
    """Return the processor and the versions of what the figures depend on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    skopeo = subprocess.run(["skopeo", "--version"], check=True, capture_output=True, text=True).stdout.split()[2]
    python = subprocess.run([PYTHON, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    kernel = platform.release().partition("-")[0]
    name = model[1] if model else platform.machine()
    return f"{name}, Linux {kernel}, {python}, skopeo {skopeo}"


def measure_rates(directory: Path) -> Rates:
    """Measure this machine; files are in `directory`, and mostly in the page cache."""
    with tempfile.TemporaryFile(dir=directory) as source, tempfile.TemporaryFile(dir=directory) as target:
        return Rates(
            cores=len(os.sched_getaffinity(0)),
            sha256=_rate(_hash),
            receive=_rate(_receive),
            write=_rate(lambda: _write(source.fileno())),
            read=_rate(lambda: _read(source.fileno())),
            copy=_rate(lambda: _copy(source.fileno(), target.fileno())),
        )


def _rate(work: Callable[[], None]) -> float:
    """Return the best of ten: what disturbs can only slow down."""
    times = []
    for _ in range(10):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return _SIZE / min(times)


def _hash() -> None:
    chunk = os.urandom(_CHUNK)
    hasher = hashlib.sha256()
    for _ in range(0, _SIZE, _CHUNK):
        hasher.update(chunk)


def _write(descriptor: int) -> None:
    chunk = os.urandom(_CHUNK)
    os.ftruncate(descriptor, 0)
    for offset in range(0, _SIZE, _CHUNK):
        os.pwrite(descriptor, chunk, offset)


def _read(descriptor: int) -> None:
    buffer = bytearray(_CHUNK)
    for offset in range(0, _SIZE, _CHUNK):
        os.preadv(descriptor, [buffer], offset)


def _copy(source: int, target: int) -> None:
    os.ftruncate(target, 0)
    offset = 0
    while offset < _SIZE:
        offset += os.copy_file_range(source, target, _SIZE - offset, offset, offset)


def _receive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = threading.Thread(target=_send, args=(listener.getsockname(),))
        sender.start()
        with listener.accept()[0] as connection:
            buffer = bytearray(_CHUNK)
            while connection.recv_into(buffer):
                pass
        sender.join()


def _send(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        chunk = os.urandom(_CHUNK)
        for _ in range(0, _SIZE, _CHUNK):
            connection.sendall(chunk)
