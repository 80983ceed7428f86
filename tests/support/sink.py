"""What an attacker listens with: a server that keeps all it is sent, and networks in which it has any address."""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of unshare(2); Python has it from 3.12 on
_TOKEN = b'{"token": "t0ken", "expires_in": 300}'


class Sink:
    """A server; `received` has each request as it came."""

    def __init__(self, host: str, port: int) -> None:
        self.host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.url = f"http://{self.host}"
        self.received: list[bytes] = []


@contextmanager
def listen(
    host: str = "127.0.0.1",
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    body: bytes = _TOKEN,
) -> Iterator[Sink]:
    """Listen at an address of this machine, and answer every request alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sink.received.append(f"{self.requestline}\n{self.headers}".encode() + self.rfile.read(length))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_HEAD = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

    with Server((host, 0), Handler) as server:
        sink = Sink(host, server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield sink
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def own_network(*addresses: str) -> Iterator[None]:
    """Put this thread, and what it starts, into a network of its own, where the machine has these addresses, too.

    It takes root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call(libc.unshare, _NEW_NETWORK)
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            for address in addresses:
                nodad = ["nodad"] if ":" in address else []
                subprocess.run(["ip", "addr", "add", address, "dev", "lo", *nodad], check=True)
            yield
        finally:
            _call(libc.setns, before, 0)
    finally:
        os.close(before)


def _call(function: "ctypes._FuncPointer", *arguments: int) -> None:
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
