"""A link to a server on this machine: as slow as asked for, and every byte counted.

The rate is the kernel's (`SO_MAX_PACING_RATE`, which TCP obeys without any queueing discipline), bytes go by splice(2)
from socket to socket, and each connection has threads of its own: a link costs about 1 % of a core per 20 MB/s. The
whole round trip is waited for on the way up, where the requests are; who asks cannot tell it from half of it each way.
A new connection waits one more, for its handshake. There is no slow start and no loss.
"""

import contextlib
import fcntl
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SO_MAX_PACING_RATE = 47  # asm-generic/socket.h; Python does not have the name
_PIPE = 1 << 20
_MESSAGE = 64 << 10


@dataclass(frozen=True, slots=True)
class Link:
    """A link that runs in a process of its own."""

    host: str
    process: "subprocess.Popen[str]"

    def count(self) -> int:
        """Return the bytes that it has carried so far, in both directions, HTTP's headers included."""
        assert self.process.stdin
        assert self.process.stdout
        print("count", file=self.process.stdin, flush=True)
        return int(json.loads(self.process.stdout.readline()))


@contextmanager
def open_link(server: str, *, round_trip: float, rate: int) -> Iterator[Link]:
    """Carry connections to `server` (`HOST:PORT`); `rate` is of each connection, in bytes a second, 0 for no limit."""
    command = [sys.executable, "-I", "-S", __file__, server, str(round_trip), str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield Link(host=f"127.0.0.1:{json.loads(process.stdout.readline())}", process=process)
        finally:
            process.kill()


class _Carrier:
    """Both ways of every connection."""

    def __init__(self, server: tuple[str, int], round_trip: float, rate: int) -> None:
        self._server = server
        self._round_trip = round_trip
        self._rate = rate
        self._lock = threading.Lock()
        self.count = 0

    def carry(self, client: socket.socket) -> None:
        """Carry one connection until both sides have closed it."""
        opened = time.monotonic()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._rate:
            client.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, self._rate)
        with client, socket.create_connection(self._server) as upstream:
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            messages: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            ways = [
                threading.Thread(target=self._receive, args=(client, messages, opened)),
                threading.Thread(target=self._send, args=(messages, upstream)),
            ]
            for way in ways:
                way.start()
            self._bring(upstream, client)
            for way in ways:
                way.join()

    def _add(self, count: int) -> None:
        with self._lock:
            self.count += count

    def _receive(
        self, client: socket.socket, messages: "queue.SimpleQueue[tuple[float, bytes]]", opened: float
    ) -> None:
        """Take requests, and note when they are due."""
        with contextlib.suppress(OSError):
            while message := client.recv(_MESSAGE):
                messages.put((max(time.monotonic(), opened + self._round_trip) + self._round_trip, message))
        messages.put((0.0, b""))

    def _send(self, messages: "queue.SimpleQueue[tuple[float, bytes]]", upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (due_and_message := messages.get())[1]:
                due, message = due_and_message
                time.sleep(max(0.0, due - time.monotonic()))
                self._add(len(message))
                upstream.sendall(message)
            # Nothing more will be asked. Replies that are still on their way are for nobody: end both.
            upstream.shutdown(socket.SHUT_RDWR)

    def _bring(self, upstream: socket.socket, client: socket.socket) -> None:
        source, target = os.pipe()
        fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, _PIPE)
        try:
            while count := os.splice(upstream.fileno(), target, _PIPE):
                self._add(count)
                while count:
                    count -= os.splice(source, client.fileno(), count)
        except OSError:
            pass  # one of them went away: the other shall know
        finally:
            os.close(source)
            os.close(target)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)


def main(arguments: list[str]) -> int:
    """Print the port as JSON, then the count for each line of standard input; end with it."""
    host, _, port = arguments[0].rpartition(":")
    carrier = _Carrier((host, int(port)), float(arguments[1]), int(arguments[2]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    threading.Thread(target=_accept, args=(listener, carrier), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    for _ in sys.stdin:
        print(carrier.count, flush=True)
    return 0


def _accept(listener: socket.socket, carrier: _Carrier) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=carrier.carry, args=(client,), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # connections may still be open
