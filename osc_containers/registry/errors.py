"""Failures of single attempts, described in our own words.

The messages of the HTTP libraries are not used: they contain whole URLs, and a URL may contain a signature.
"""

import errno
import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

import requests
from urllib3 import exceptions as urllib3_exceptions
from urllib3.util.ssl_match_hostname import CertificateError

from osc_containers.errors import RegistryError

_CAUSES_LIMIT = 20
_WRONG_TIMES = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED in OpenSSL's x509_vfy.h."""
_WRONG_NAMES = frozenset({None, 62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH; urllib3 1 gives no code."""
_PLAIN_HTTP = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
"""What OpenSSL reports, depending on its version, if a plain HTTP response arrives instead of a handshake."""
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: ([0-9]{3})\b")
"""The message of http.client and urllib3 when a proxy refuses a tunnel; the status is available in no other form."""

_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})


class Failure(Exception):
    """One attempt failed.

    `wait` is the number of seconds that the server asks to wait; `max_attempts` limits the attempts for failures that
    rarely go away. A final failure is not retried at all. `raises` is the class of the error for the caller.
    In an outage, nothing reaches the server; if it has answered before, it is waited for. `is_untrusted` says that the
    certificate of a server was not accepted.
    """

    def __init__(
        self,
        problem: str,
        *,
        is_final: bool = False,
        wait: float | None = None,
        max_attempts: int | None = None,
        may_be_plain_http: bool = False,
        is_plain_http: bool = False,
        raises: type[RegistryError] = RegistryError,
        is_outage: bool = False,
        is_untrusted: bool = False,
    ) -> None:
        super().__init__(problem)
        self.is_final = is_final
        self.wait = wait
        self.max_attempts = max_attempts
        self.may_be_plain_http = may_be_plain_http or is_plain_http
        self.is_plain_http = is_plain_http
        self.raises = raises
        self.is_outage = is_outage
        self.is_untrusted = is_untrusted

    def come_from_redirect(self, host: str) -> None:
        """Change the failure into that of another server, to which the registry `host` has redirected."""
        if self.is_plain_http:
            self.args = (f"{self}; {host} redirected there",)
        # The registry cannot be asked by plain HTTP for what another server does.
        self.may_be_plain_http = self.is_plain_http = False


class Route(NamedTuple):
    """How a server is reached: its URL, the URL of the proxy, and the directory for the server's certificates.

    Both URLs are redacted; the proxy's is empty if there is none.
    """

    url: str
    proxy: str
    certificates: str

    @property
    def host(self) -> str:
        """The host, with its port if the URL has one."""
        return self.url.partition("://")[2]


def from_exception(error: BaseException, route: Route) -> Failure:
    """Describe an exception of the HTTP libraries."""
    # An exception of requests is always an OSError, but only the exceptions that it wraps say what happened.
    causes = [cause for cause in _causes(error) if not isinstance(cause, requests.RequestException)]
    # Checked before the kinds: urllib3 reports this like a proxy that does not answer.
    for cause in causes:
        if match := _TUNNEL_REFUSED.match(str(cause)):
            return from_proxy_status(int(match[1]), route)
    # The order of the kinds decides, and not which of the causes is nearer.
    for kind, describe in _KINDS:
        for cause in causes:
            if isinstance(cause, kind):
                return describe(cause, route)
    return Failure(f"{route.url}: {type(error).__name__}")


def from_proxy_status(status: int, route: Route) -> Failure:
    """Describe a response that comes from the proxy itself."""
    if status == 407:
        hint = "it requires a login: use http://USER:PASSWORD@HOST:PORT in https_proxy (or http_proxy)"
    elif status < 500:
        hint = f"ask its administrator to allow {route.host}, or add that to no_proxy"
    else:
        hint = f"it cannot reach {route.host}"
    return Failure(
        f"{route.url}: the proxy {route.proxy} answers HTTP {status}; {hint}",
        is_final=status < 500,
        max_attempts=3,
        # A proxy may refuse the tunnel that HTTPS needs, and still pass on plain HTTP to the same host.
        may_be_plain_http=True,
        is_outage=status >= 500,
    )


def from_proxy_exception(error: BaseException, proxy: str) -> Failure:
    """Describe why TLS with the proxy itself failed. `proxy` is its redacted URL."""
    if isinstance(error, (ssl.SSLCertVerificationError, CertificateError)):
        hint = "add its authority to those of the system, or correct https_proxy (or http_proxy)"
        return Failure(
            f"{proxy}: the certificate of this proxy is not accepted: {_reason(error)}; {hint}", is_final=True
        )
    if _tls_reason(error) in _PLAIN_HTTP:
        return Failure(
            f"{proxy}: this proxy speaks plain HTTP, not TLS; use http:// in https_proxy (or http_proxy)", is_final=True
        )
    return Failure(
        f"{proxy}: TLS with this proxy failed; use http:// in https_proxy if it expects plain HTTP", max_attempts=3
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it, wherever the libraries put them; the nearest first."""
    waiting = [error]
    seen: list[BaseException] = []
    while waiting and len(seen) < _CAUSES_LIMIT:
        cause = waiting.pop(0)
        # A Failure has been described already.
        if isinstance(cause, Failure) or any(cause is other for other in seen):
            continue
        seen.append(cause)
        yield cause
        related = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        waiting.extend(item for item in related if isinstance(item, BaseException))


def _certificate(error: BaseException, route: Route) -> Failure:
    code = getattr(error, "verify_code", None)
    if code in _WRONG_TIMES:
        hint = "its administrator must renew it, or the clock of this machine is wrong"
    elif code in _WRONG_NAMES:
        hint = "use a name that the certificate is valid for"
    else:
        hint = f"put the certificate of its authority into {route.certificates}/ca.crt"
    problem = f"{route.url}: the certificate is not accepted: {_reason(error)}; {hint}"
    return Failure(problem, is_final=True, is_untrusted=True)


def _reason(error: BaseException) -> str:
    return str(getattr(error, "verify_message", "") or "it is for another name")[:200]


def _tls_reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, str) else ""


def _tls(error: BaseException, route: Route) -> Failure:
    text = _tls_reason(error) or "the connection was interrupted"
    # OpenSSL's names of the alerts by which a server demands or rejects a client certificate.
    if "ALERT" in text and "CERTIFICATE" in text:
        hint = f"it requires a client certificate: put client.cert and client.key into {route.certificates}"
        return Failure(f"{route.url}: TLS: {text[:100]}; {hint}", is_final=True)
    if text in _PLAIN_HTTP:
        return Failure(f"{route.url}: it speaks plain HTTP, expected HTTPS", is_plain_http=True, is_final=True)
    return Failure(f"{route.url}: TLS: {text[:100]}", may_be_plain_http=True, max_attempts=3, is_outage=True)


def _proxy(_error: BaseException, route: Route) -> Failure:
    problem = f"the proxy {route.proxy} does not answer; check https_proxy (or http_proxy)"
    return Failure(f"{route.url}: {problem}", max_attempts=3, may_be_plain_http=True, is_outage=True)


def _resolver(error: BaseException, route: Route) -> Failure:
    # Other errors of the resolver, as of a name server that does not answer, may go away.
    # EAI_NODATA is an extension of glibc with the value -5; Python does not have it everywhere.
    missing = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", -5))
    return Failure(
        f"{route.url}: cannot resolve {route.host!r}; correct the name, or check the network",
        is_final=isinstance(error, socket.gaierror) and error.errno in missing,
        # While a container restarts, it may have no name.
        is_outage=True,
    )


def _permission(error: BaseException, route: Route) -> Failure:
    # Without an error number it is our own refusal of a peer, and has our own words.
    text = str(error) if type(error) is PermissionError and error.errno is None else "not permitted"
    return Failure(f"{route.url}: {text[:200]}", is_final=True)


def _system(error: BaseException, route: Route) -> Failure:
    text = error.strerror if isinstance(error, OSError) and error.strerror else "connection broken"
    return Failure(
        f"{route.url}: {text[:200].lower()}",
        # A server of plain HTTP may close the connection when a handshake arrives.
        may_be_plain_http=isinstance(error, ConnectionError),
        is_outage=isinstance(error, OSError) and error.errno in _UNREACHABLE,
    )


def _plain(
    problem: str, *, max_attempts: int | None = None, may_be_plain_http: bool = False, is_outage: bool = False
) -> "_Describe":
    """Describe every exception of a kind by the same words."""
    return lambda _error, route: Failure(
        f"{route.url}: {problem}",
        max_attempts=max_attempts,
        may_be_plain_http=may_be_plain_http,
        is_outage=is_outage,
    )


_Describe = Callable[[BaseException, Route], Failure]
# The most specific first: an exception of an HTTP library has the system's exceptions among its causes.
_KINDS: tuple[tuple[type[BaseException], _Describe], ...] = (
    (ssl.SSLCertVerificationError, _certificate),
    (CertificateError, _certificate),
    (ssl.SSLError, _tls),
    (urllib3_exceptions.ProxyError, _proxy),
    (socket.gaierror, _resolver),
    (
        ConnectionRefusedError,
        _plain("connection refused; nothing listens there", max_attempts=3, may_be_plain_http=True, is_outage=True),
    ),
    # A server of plain HTTP may wait for the end of a line while TLS waits for its answer.
    (TimeoutError, _plain("no answer in time", may_be_plain_http=True)),
    (urllib3_exceptions.TimeoutError, _plain("no answer in time", may_be_plain_http=True)),
    (PermissionError, _permission),
    (
        http.client.RemoteDisconnected,
        _plain("the connection was closed without a response", may_be_plain_http=True),
    ),
    (ConnectionError, _system),
    (http.client.IncompleteRead, _plain("the transfer was interrupted")),
    (urllib3_exceptions.SSLError, _tls),
    (http.client.HTTPException, _plain("the response is not HTTP")),
    (urllib3_exceptions.ProtocolError, _plain("the response is not HTTP")),
    (OSError, _system),
)
