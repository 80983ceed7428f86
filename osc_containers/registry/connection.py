"""Connections with bounded headers and a minimum throughput.

`http.client` limits one silence and one header line, but a server can send a byte a minute, or interim responses and
trailers without end. Here everything of a response but its body has a limit, and a server must send `MINIMUM` bytes in
each read timeout.

The classes are those that urllib3 lets its users replace (`pool_classes_by_scheme`, `ConnectionCls`).
"""

import http.client
import io
import math
import socket
import ssl
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, LifoQueue
from typing import Any

import urllib3
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_match_hostname import CertificateError

from osc_containers.registry import errors, url_policy

MINIMUM = 16 << 10
"""Bytes that must arrive in each read timeout, unless fewer are left."""
HEADER_LIMIT = 256 << 10
"""Bytes of the status lines and headers of one response, with its interim responses; also of its trailers."""
IS_URLLIB3_1 = not hasattr(urllib3, "BaseHTTPResponse")
_CHUNKED = 6
"""Bytes on the wire for one byte of a body in chunks of the smallest size: the size, the byte, and two line ends."""
_BUFFER = 32 << 10
_FALLBACK_TIMEOUT = 60.0

Opened = Callable[[HTTPConnection], None]
"""Called with each connection as soon as it is open; an OSError closes it."""


class _LimitedSocketReader(io.RawIOBase):
    """The receiving side of a socket, with limits on the headers and on the time spent waiting.

    Only waiting counts. A reader that is busy with its disk does not make the server slow.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        # The timeout of the socket is changed with every read, so the configured one is kept here.
        self._timeout = sock.gettimeout() or _FALLBACK_TIMEOUT
        self._waited = 0.0
        self._count = 0
        self._is_header = True
        self._left = HEADER_LIMIT

    def begin_body(self) -> None:
        """End the headers: from here on, `allow` sets the limit."""
        self._is_header = False
        self._waited = 0.0
        self._count = 0

    def allow(self, count: int) -> None:
        """Allow `count` bytes of body, and what chunks and trailers add, before the next call."""
        self._left = count * _CHUNKED + HEADER_LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # `settimeout` takes 0 for a socket that does not block, and refuses negative numbers.
        if self._waited >= self._timeout:
            raise TimeoutError("too slow")
        self._sock.settimeout(self._timeout - self._waited)
        began = time.monotonic()
        count: int = self._raw.readinto(buffer) or 0
        self._waited += time.monotonic() - began
        self._count += count
        self._left -= count
        if self._left < 0:
            raise http.client.HTTPException(f"more than {HEADER_LIMIT} bytes of headers or trailers")
        # Headers get one timeout altogether. A body gets a new one for each `MINIMUM` bytes.
        if not self._is_header and self._count >= MINIMUM:
            self._count = 0
            self._waited = 0.0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PatientReader(io.BufferedReader):
    """A reader that returns the bytes received before a connection broke, and raises the error afterwards."""

    _error: Exception | None = None

    def readinto(self, buffer: Any) -> int:
        if self._error:
            raise self._error
        view, count = memoryview(buffer), 0
        try:
            # `readinto1` reads from the socket at most once, so an error cannot take along bytes that came before it.
            while count < len(view) and (received := self.readinto1(view[count:])):
                count += received
        except (OSError, http.client.HTTPException) as error:
            if not count:
                raise
            self._error = error
        return count


class IncomingResponse(http.client.HTTPResponse):
    """A response that is read with limits.

    `latency` is the number of seconds from the start of the request, or of the connection if a new one was needed, to
    the end of the headers.
    """

    request_began = 0.0
    latency = math.inf

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # Detached and not created again: the file object counts as a user of the socket, which must stay open for it.
        self._limits = _LimitedSocketReader(self.fp.detach(), sock)
        self.fp = _PatientReader(self._limits, _BUFFER)

    def begin(self) -> None:
        """Receive the headers. `http.client` skips interim responses of status 100 only; this skips all of them."""
        super().begin()
        while 100 <= self.status < 200:
            # `begin` does nothing while there are headers.
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()
        self.latency = time.monotonic() - self.request_began
        self._limits.begin_body()

    def read(self, amt: int | None = None) -> bytes:
        """Receive up to `amt` bytes of the body; all of it, without a limit, if there is no `amt`."""
        self._limits.allow(sys.maxsize if amt is None else amt)
        return super().read(amt)

    def readinto(self, buffer: Any) -> int:
        """Receive as much of the body as `buffer` can hold."""
        self._limits.allow(len(buffer))
        return super().readinto(buffer)


def _ignore(connection: HTTPConnection) -> None:
    pass


class _LimitedConnection:
    """What connections with and without TLS have in common.

    `incoming` is the latest response. It reads directly from the socket, which urllib3 does not offer.
    """

    incoming: IncomingResponse | None = None
    opened = staticmethod(_ignore)
    _began = 0.0

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        # `putrequest` came first, but the time needed to connect is not the latency of the server.
        self._began = time.monotonic()
        self.opened(self)  # type: ignore[arg-type]

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def response_class(self, *args: Any, **kwargs: Any) -> IncomingResponse:
        """Create a response. `http.client` expects a class here, and only calls it."""
        self.incoming = IncomingResponse(*args, **kwargs)
        self.incoming.request_began = self._began
        return self.incoming


class _Connection(_LimitedConnection, HTTPConnection):  # type: ignore[misc]
    """A connection without TLS."""


class _SecureConnection(_LimitedConnection, HTTPSConnection):  # type: ignore[misc]
    """A connection with TLS."""

    def connect(self) -> None:
        super().connect()
        # The administrator decides whether certificates are verified; urllib3 need not warn at every request.
        self.is_verified = True

    def _connect_tls_proxy(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Start TLS with the proxy. urllib3 does not tell a failure of this from one of TLS with the server."""
        try:
            return super()._connect_tls_proxy(*args, **kwargs)
        except (ssl.SSLError, CertificateError) as error:
            raise errors.from_proxy_exception(error, url_policy.redact(str(self.proxy))) from None


class _Pool:
    """A pool that closes its connections when it is deleted.

    A thread can return a connection at the very moment that another thread closes the pool, too late to be closed with
    it. urllib3 2 closes such a connection when it deletes the pool; urllib3 1 leaves it open.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if IS_URLLIB3_1:
            # A finalizer that knew the pool itself would keep it alive, so it gets only the queue of connections.
            weakref.finalize(self, _close_all, self.pool)  # type: ignore[attr-defined]


def _close_all(connections: "LifoQueue[HTTPConnection | None]") -> None:
    with suppress(Empty):
        while True:
            if connection := connections.get(block=False):
                connection.close()


def pool_classes(opened: Opened) -> dict[str, type]:
    """Return pool classes by URL scheme, for connections that call `opened`."""
    kinds: dict[str, tuple[type, type]] = {
        "http": (HTTPConnectionPool, _Connection),
        "https": (HTTPSConnectionPool, _SecureConnection),
    }
    classes = {}
    for scheme, (pool, connection) in kinds.items():
        # urllib3 creates connections itself and passes no arguments of ours, hence a class for each callback.
        bound = type(connection.__name__, (connection,), {"opened": staticmethod(opened)})
        classes[scheme] = type(pool.__name__, (_Pool, pool), {"ConnectionCls": bound})
    return classes
