"""An HTTP proxy on the loopback interface that connects every client with the same target."""

import selectors
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_CHUNK = 64 << 10


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy; `asked` has the header of each request."""

    host: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve(target: str, *, status: int = 200, context: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """Run a proxy that opens tunnels (RFC 9110, CONNECT) to `target`, `address:port`.

    Any other `status` is its answer to every request. With `context` it speaks TLS itself.
    """

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = list(iter(lambda: self.rfile.readline(_CHUNK).decode().strip(), ""))
            proxy.asked.append("\n".join(lines))
            if status != 200:
                self.wfile.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
                return
            address, _, port = target.partition(":")
            with socket.create_connection((address, int(port))) as other:
                self.connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                _join(self.connection, other)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Tunnel) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        proxy = Proxy(f"127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


def _join(one: socket.socket, other: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        for here, there in ((one, other), (other, one)):
            selector.register(here, selectors.EVENT_READ, there)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                here, there = key.fileobj, key.data
                content = here.recv(_CHUNK)
                if not content:
                    return
                there.sendall(content)
