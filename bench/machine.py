"""What this machine can do: the rates that no program here can beat with one thread."""

import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1 << 20
_SIZE = 256 << 20


def describe(directory: Path) -> str:
    """Return a line of rates, in MB/s; files are in `directory`, and mostly in the page cache."""
    with tempfile.TemporaryFile(dir=directory) as source, tempfile.TemporaryFile(dir=directory) as target:
        rates = {
            "SHA-256": _rate(_hash),
            "write": _rate(lambda: _write(source.fileno())),
            "copy_file_range": _rate(lambda: _copy(source.fileno(), target.fileno())),
            "receive (loopback)": _rate(_receive),
        }
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores; one thread, MB/s: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())


def _rate(work: Callable[[], None]) -> float:
    """Return the best of three: what disturbs can only slow down."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        work()
        times.append(time.monotonic() - began)
    return _SIZE / 1e6 / min(times)


def _hash() -> None:
    chunk = bytes(_CHUNK)
    hasher = hashlib.sha256()
    for _ in range(0, _SIZE, _CHUNK):
        hasher.update(chunk)


def _write(descriptor: int) -> None:
    chunk = bytes(_CHUNK)
    os.ftruncate(descriptor, 0)
    for offset in range(0, _SIZE, _CHUNK):
        os.pwrite(descriptor, chunk, offset)


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
        chunk = bytes(_CHUNK)
        for _ in range(0, _SIZE, _CHUNK):
            connection.sendall(chunk)
