"""The HTTP transport: sessions of requests that send exactly what they are told to.

Podman's rules hold for proxies, logins, certificates and redirects, and this package implements them. Therefore
everything that requests would do by itself is off: its netrc logins, its proxies and authorities from the environment,
its cookies, redirects, retries and default headers.
"""

import ipaddress
import logging
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ClosedPoolError, HTTPError

from osc_containers.registry import errors, url_policy
from osc_containers.registry.config import proxy as proxy_settings
from osc_containers.registry.connection import IS_URLLIB3_1, pool_classes
from osc_containers.registry.errors import Route

# The messages of urllib3 contain whole URLs, and a URL may contain a signature.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)


class Transport:
    """One session of requests, for the hosts of one trust domain; may be used from several threads.

    There are two domains: the host of the registry, and those that it leads to, for instance by a redirect, which have
    the transport of the registry as `home`. A host is refused if it resolves to an address that the registry, at the
    address that it really has, may not lead to. At most `count` idle connections are kept for each host.
    """

    def __init__(self, context: ssl.SSLContext, count: int, *, home: "Transport | None" = None) -> None:
        if IS_URLLIB3_1 and context.verify_mode != ssl.CERT_NONE:
            # urllib3 1 passes no name to `ssl` if the host is an address, and compares the names itself.
            context.check_hostname = False
        self._home = home
        self._peer: url_policy.Address | None = None
        self._adapter = _Adapter(context, count, pool_classes(self._register))
        self._session = _Session(self._adapter)
        # All open sockets, idle or in use. Weak, so that sockets of closed connections disappear.
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
        route: Route,
    ) -> requests.Response:
        """Send a request and return the response, with its body still to be read.

        `timeout` is the number of seconds for connecting and for reading.

        :raises Failure: there is no response.
        """
        try:
            request = self._session.prepare_request(requests.Request(method, url, headers=headers, data=body))
            # requests has normalised the URL, but a store may have signed it exactly as it is.
            request.url = url
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
                    # `drop_idle` may close a pool between its selection and its use. Nothing has been sent then, and
                    # the next attempt gets a new pool.
                    if not isinstance(next(iter(error.args), None), ClosedPoolError):
                        raise
        except (HTTPError, OSError, ValueError) as error:
            # The connections that wait may have the same fault: a network may have forgotten them, and a server that
            # handles one connection at a time waits until they are closed.
            self.drop_idle()
            raise errors.from_exception(error, route) from None

    def cancel(self) -> None:
        """Interrupt every request, those in progress and those to come."""
        with self._lock:
            self._is_cancelled = True
            for sock in self._sockets:
                _shut_down(sock)

    def drop_idle(self) -> None:
        """Close the idle connections."""
        self._adapter.drop_idle()

    def close(self) -> None:
        """Close all connections; requests and urllib3 close only the idle ones."""
        self._session.close()
        with self._lock:
            for sock in self._sockets:
                sock.close()

    def _register(self, connection: HTTPConnection) -> None:
        self._check_peer(connection)
        if connection.sock is not None:
            with self._lock:
                self._sockets.add(connection.sock)
                # `cancel` may have run while this connection was being opened.
                if self._is_cancelled:
                    _shut_down(connection.sock)

    def _check_peer(self, connection: HTTPConnection) -> None:
        """Refuse a peer that we must not be led to. The name in the URL was checked, but not what it resolves to."""
        # With a proxy, the peer is the proxy, and only the proxy knows where the name leads.
        if getattr(connection, "proxy", None) is not None or connection.sock is None:
            return
        # After a '%', a link-local IPv6 address names the interface.
        address = ipaddress.ip_address(str(connection.sock.getpeername()[0]).partition("%")[0])
        if self._home is not None:
            is_allowed = url_policy.may_lead(self._home._peer, address)
        else:
            self._peer = self._peer or address
            is_allowed = url_policy.may_be_home(self._peer, address)
        if not is_allowed:
            connection.close()
            raise PermissionError(
                f"the name resolves to {address}, which is inside this machine or its link or in a private network, "
                "or outside of it while the registry is inside"
            )


class _Session(requests.Session):
    """A session that takes nothing from the environment, keeps no cookies and follows no redirects."""

    def __init__(self, adapter: HTTPAdapter) -> None:
        super().__init__()
        self.trust_env = False
        self.headers.clear()
        # Without either protocol, the headers of cookies are not even parsed.
        self.cookies.set_policy(DefaultCookiePolicy(netscape=False, rfc2965=False))
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Find no redirect. Otherwise requests reads its whole body, of any size, even with `allow_redirects=False`."""


class _Adapter(HTTPAdapter):
    """Connects a session with our pools, whose TLS settings come from `context` alone."""

    def __init__(self, context: ssl.SSLContext, count: int, pools: dict[str, type]) -> None:
        self._settings: dict[str, Any] = {"num_pools": count, "maxsize": count, "ssl_context": context}
        # Debian's urllib3 1 has defaults of its own for these, which override the context.
        self._settings |= {"cert_reqs": context.verify_mode, "ca_certs": None}
        self._pools = pools
        self._managers: dict[str, PoolManager] = {}
        self._lock = threading.Lock()
        super().__init__(max_retries=0)

    def init_poolmanager(self, *_args: Any, **_kwargs: Any) -> None:
        """Create no pool manager yet: there is one for each proxy, and one for direct connections."""

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> HTTPConnectionPool:
        """Return the pool for a request. `verify` and `cert` are ignored: they would override the context."""
        return self.get_connection(str(request.url), proxies)

    def get_connection(self, url: str, proxies: Any = None) -> HTTPConnectionPool:
        """Return the pool for a URL; the name of this method before requests 2.32."""
        return self._manager((proxies or {}).get("all", "")).connection_from_url(url)

    def cert_verify(self, *_args: Any, **_kwargs: Any) -> None:
        """Leave the pool as it is: requests would add certifi's authorities to those of the context."""

    def drop_idle(self) -> None:
        """Close the idle connections, and let the next requests use new pools."""
        # Pools cannot drop their idle connections and stay open, so they are replaced.
        with self._lock:
            managers = list(self._managers.values())
            self._managers.clear()
        # urllib3's container of pools refuses iteration; it only lists its keys.
        for pool in [manager.pools[key] for manager in managers for key in manager.pools.keys()]:  # noqa: SIM118
            pool.close()

    def close(self) -> None:
        """Close all pools."""
        for manager in self._managers.values():
            manager.clear()

    def _manager(self, proxy: str) -> PoolManager:
        with self._lock:
            if proxy not in self._managers:
                manager = proxy_settings.manager(proxy, **self._settings) if proxy else PoolManager(**self._settings)
                manager.pool_classes_by_scheme = self._pools
                self._managers[proxy] = manager
            return self._managers[proxy]


def _shut_down(sock: socket.socket) -> None:
    """End a connection whose TLS layer may be in use by another thread, which then reads the end of the stream."""
    with suppress(OSError):
        # The object for TLS inside TLS is not a socket, but has one.
        socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)
