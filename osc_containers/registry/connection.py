"""Connections whose replies cannot take for ever, and that do not lead into this machine by accident.

`http.client` bounds one silence and one header line; a server can still send a byte a minute, or interim replies and
trailers without end. Here each reply has a limit for all that is not its body, and must send `SLOWEST` bytes in each
read timeout.
The classes are those that urllib3 asks for by their documented names (`pool_classes_by_scheme`, `ConnectionCls`);
requests gets them by a transport adapter of ours, which also keeps out what requests would do by itself: follow
redirects, keep cookies, and take proxies, logins and authorities from places that podman does not know.
"""

import http.client
import io
import ipaddress
import logging
import math
import socket
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from queue import Empty, LifoQueue
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ClosedPoolError, HTTPError
from urllib3.util.ssl_match_hostname import CertificateError

from osc_containers.registry import errors, url_policy
from osc_containers.registry.config import proxy as proxies
from osc_containers.registry.errors import Way

# Its messages hold whole URLs, and those may be signatures.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)

SLOWEST = 16 << 10
"""Bytes that must come in each read timeout, or all of what is left."""
HEADER_LIMIT = 256 << 10
"""Bytes of status lines and headers of one reply, interim replies included; and of trailers."""
_CHUNKED = 8
"""Bytes over the wire for one of a body that comes in chunks as small as can be."""
_BUFFER = 32 << 10
_IS_OLD = not hasattr(urllib3, "BaseHTTPResponse")  # which version 2 brought
_FALLBACK_TIMEOUT = 60.0


class _Incoming(io.RawIOBase):
    """The receiving side of a socket, with a limit on headers and on the time that bytes are waited for.

    Only waiting counts: a reader that is busy with its disk does not make the server slow.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._patience = sock.gettimeout() or _FALLBACK_TIMEOUT
        self._waited = 0.0
        self._count = 0
        self._is_header = True
        self._left = HEADER_LIMIT

    def begin_body(self) -> None:
        """Count anew; from here on, the reader says what may come."""
        self._is_header = False
        self._waited = 0.0
        self._count = 0

    def allow(self, count: int) -> None:
        """Let `count` bytes of body come, and what belongs to them, before this is called again."""
        self._left = count * _CHUNKED + HEADER_LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._waited >= self._patience:
            raise TimeoutError("too slow")
        self._sock.settimeout(self._patience - self._waited)
        began = time.monotonic()
        count: int = self._raw.readinto(buffer) or 0
        self._waited += time.monotonic() - began
        self._count += count
        self._left -= count
        if self._left < 0:
            raise http.client.HTTPException(f"more than {HEADER_LIMIT} bytes of headers or trailers")
        if not self._is_header and self._count >= SLOWEST:
            self._count = 0
            self._waited = 0.0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """Gives what came before a connection broke, and says only then that it broke."""

    _error: Exception | None = None

    def readinto(self, buffer: Any) -> int:
        if self._error:
            raise self._error
        view, count = memoryview(buffer), 0
        try:
            while count < len(view) and (got := self.readinto1(view[count:])):
                count += got
        except (OSError, http.client.HTTPException) as error:
            if not count:
                raise
            self._error = error
        return count


class IncomingReply(http.client.HTTPResponse):
    """A reply that is read through `_Incoming`.

    `latency` is how many seconds passed from the beginning of the request to the end of the headers.
    """

    request_began = 0.0
    latency = math.inf

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._incoming = _Incoming(self.fp.detach(), sock)  # keeps the socket's own count of its users
        self.fp = _Reader(self._incoming, _BUFFER)

    def begin(self) -> None:
        """Receive the headers; `http.client` passes over interim replies of status 100 alone."""
        super().begin()
        while 100 <= self.status < 200:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()
        self.latency = time.monotonic() - self.request_began
        self._incoming.begin_body()

    def read(self, amt: int | None = None) -> bytes:
        """Receive up to `amt` bytes of the body; who asks for all of it has no limit."""
        self._incoming.allow(sys.maxsize if amt is None else amt)
        return super().read(amt)

    def readinto(self, buffer: Any) -> int:
        """Receive as much of the body as there is room for."""
        self._incoming.allow(len(buffer))
        return super().readinto(buffer)


def _ignore(connection: HTTPConnection) -> None:
    pass


class _Tracked:
    """What connections of both kinds do: time their requests, and tell `opened` when they are there."""

    reply: IncomingReply | None = None
    opened = staticmethod(_ignore)
    _began = 0.0

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        # A request that needs a new connection connects after `putrequest`, and that time is not the server's.
        self._began = time.monotonic()
        self.opened(self)  # type: ignore[arg-type]

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def response_class(self, *args: Any, **kwargs: Any) -> IncomingReply:
        """Begin a reply; `http.client` calls this as the class that it usually is."""
        self.reply = IncomingReply(*args, **kwargs)
        self.reply.request_began = self._began
        return self.reply


class _Connection(_Tracked, HTTPConnection):  # type: ignore[misc]
    """A connection without TLS."""


class _SecureConnection(_Tracked, HTTPSConnection):  # type: ignore[misc]
    """A connection with TLS."""

    def connect(self) -> None:
        super().connect()
        # Where the administrator wants no verification, urllib3 need not warn of it at every request.
        self.is_verified = True

    def _connect_tls_proxy(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Begin TLS with the proxy. urllib3 does not say whether it was this that failed, or TLS with the server."""
        try:
            return super()._connect_tls_proxy(*args, **kwargs)
        except (ssl.SSLError, CertificateError) as error:
            raise errors.of_proxy(error, url_policy.shown(str(self.proxy))) from None


def _pool(pool: type, connection: type, opened: Callable[[HTTPConnection], None]) -> type:
    """Return a class of pools whose connections tell `opened`."""
    bound = type(connection.__name__, (connection,), {"opened": staticmethod(opened)})
    return type(pool.__name__, (_Pool, pool), {"ConnectionCls": bound})


class _Pool:
    """A pool that leaves no connection open when it is gone.

    A connection that another thread gives back while the pool is closed can come too late to be closed by that.
    urllib3 2 closes such a connection together with the pool, urllib3 1 does not.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if _IS_OLD:
            weakref.finalize(self, _close_all, self.pool)  # type: ignore[attr-defined]


def _close_all(connections: "LifoQueue[HTTPConnection | None]") -> None:
    with suppress(Empty):
        while True:
            if connection := connections.get(block=False):
                connection.close()


def _check_peer(connection: HTTPConnection) -> None:
    """Refuse a peer inside: names are checked when they are seen, but only the resolver knows where they lead."""
    if getattr(connection, "proxy", None) is not None or connection.sock is None:
        return
    address = ipaddress.ip_address(str(connection.sock.getpeername()[0]).partition("%")[0])
    if url_policy.is_internal_address(address):
        connection.close()
        raise PermissionError(f"the name leads to {address}, inside this machine or its link")


def reply_on(connection: object) -> IncomingReply | None:
    """Return the reply that a connection brings: it gives bytes straight from the socket, urllib3 only by a copy."""
    return getattr(connection, "reply", None)


class _Session(requests.Session):
    """A session that sends what it is given and nothing else.

    It takes nothing from the environment (no netrc, no proxy, no authority), keeps no cookies, and leaves redirects to
    its caller.
    """

    def __init__(self, adapter: HTTPAdapter) -> None:
        super().__init__()
        self.trust_env = False
        self.headers.clear()
        # With neither protocol, the headers of cookies are not even parsed.
        self.cookies.set_policy(DefaultCookiePolicy(netscape=False, rfc2965=False))
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Know no redirect: requests reads the whole body of one, however long, even if it is not to follow it."""


class _Adapter(HTTPAdapter):
    """The way of a session to the network: our pools, and the TLS settings of our context alone."""

    def __init__(self, context: ssl.SSLContext, count: int, pools: dict[str, type]) -> None:
        self._settings: dict[str, Any] = {"num_pools": count, "maxsize": count, "ssl_context": context}
        self._pools = pools
        self._managers: dict[str, PoolManager] = {}
        self._lock = threading.Lock()
        super().__init__(max_retries=0)

    def init_poolmanager(self, *_args: Any, **_kwargs: Any) -> None:
        """Make no manager of pools yet; there is one for each proxy and one without."""

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> HTTPConnectionPool:
        """Return the pool for a request. `verify` and `cert` would change what our context says."""
        return self.get_connection(str(request.url), proxies)

    def get_connection(self, url: str, proxies: Any = None) -> HTTPConnectionPool:
        """Return the pool for a URL; requests before 2.32 asks by this name."""
        return self._manager((proxies or {}).get("all", "")).connection_from_url(url)

    def cert_verify(self, *_args: Any, **_kwargs: Any) -> None:
        """Leave it to the context whom to believe: requests would add certifi's authorities to it."""

    def drop_idle(self) -> None:
        """Close the connections that wait for a request."""
        with self._lock:
            managers = list(self._managers.values())
            self._managers.clear()
        for pool in [manager.pools[key] for manager in managers for key in manager.pools.keys()]:  # noqa: SIM118
            pool.close()

    def close(self) -> None:
        """Close all pools."""
        for manager in self._managers.values():
            manager.clear()

    def _manager(self, proxy: str) -> PoolManager:
        with self._lock:
            if proxy not in self._managers:
                manager = proxies.manager(proxy, **self._settings) if proxy else PoolManager(**self._settings)
                manager.pool_classes_by_scheme = self._pools
                self._managers[proxy] = manager
            return self._managers[proxy]


class Connections:
    """The connections to the hosts of one kind: those that the user named, or, with `outside`, those a server named.

    The latter are refused where they lead into this machine or its link. At most `count` are kept for each host.
    """

    def __init__(self, context: ssl.SSLContext, count: int, *, outside: bool = False) -> None:
        if _IS_OLD and context.verify_mode != ssl.CERT_NONE:
            # urllib3 1 gives `ssl` no name where a host is an address: it compares names with certificates itself.
            context.check_hostname = False
        self._outside = outside
        pools = {
            "http": _pool(HTTPConnectionPool, _Connection, self._note),
            "https": _pool(HTTPSConnectionPool, _SecureConnection, self._note),
        }
        self._adapter = _Adapter(context, count, pools)
        self._session = _Session(self._adapter)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._is_cancelled = False
        self._lock = threading.Lock()

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: tuple[float, float],
        proxy: str | None,
        way: Way,
    ) -> requests.Response:
        """Send a request and return the response, its body still to come; nothing is followed or retried.

        `timeout` has the seconds to connect and those to read.

        :raises Failure: no response came.
        """
        try:
            request = self._session.prepare_request(requests.Request(method, url, headers=headers, data=body))
            request.url = url  # requests writes it in another way, for which a signature may not be good
            while True:
                try:
                    return self._session.send(
                        request,
                        stream=True,
                        timeout=timeout,
                        allow_redirects=False,
                        proxies={"all": proxy} if proxy else {},
                    )
                except requests.ConnectionError as error:
                    # Nothing was sent if the pool was closed: `drop_idle` came between, and the next pool is another.
                    if not isinstance(next(iter(error.args), None), ClosedPoolError):
                        raise
        except (HTTPError, OSError, ValueError) as error:
            self.drop_idle()
            raise errors.of(error, way) from None

    def cancel(self) -> None:
        """Let everybody who waits for a reply find the connection closed, from now on."""
        with self._lock:
            self._is_cancelled = True
            for sock in self._sockets:
                _shut_down(sock)

    def drop_idle(self) -> None:
        """Close those that wait for a request: a server may serve one at a time, or a network have forgotten them."""
        self._adapter.drop_idle()

    def close(self) -> None:
        """Close all connections; requests and urllib3 only forget them."""
        self._session.close()
        with self._lock:
            for sock in self._sockets:
                sock.close()

    def _note(self, connection: HTTPConnection) -> None:
        if self._outside:
            _check_peer(connection)
        if connection.sock is not None:
            with self._lock:
                self._sockets.add(connection.sock)
                if self._is_cancelled:
                    _shut_down(connection.sock)


def _shut_down(sock: socket.socket) -> None:
    """Let whoever waits for bytes see their end; the TLS around them is another thread's, and stays as it is."""
    with suppress(OSError):
        socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)  # TLS in TLS is not a socket itself
