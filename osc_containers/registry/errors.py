"""What went wrong on the way to a server, in words that say what to do and hold no secrets.

The texts of HTTP libraries are not used: they hold whole URLs, and those may hold signatures.
"""

import http.client
import re
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import requests
from urllib3 import exceptions as urllib3_exceptions
from urllib3.util.ssl_match_hostname import CertificateError

_CAUSES_LIMIT = 20
_WRONG_TIMES = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED, of OpenSSL's x509_vfy.h."""
_WRONG_NAMES = frozenset({None, 62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH; urllib3 1 gives no code."""
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: ([0-9]{3})\b")
"""What http.client and urllib3 say of a proxy that opens no tunnel; they have it in no other form."""


class Failure(Exception):
    """One attempt failed. `wait`: seconds the server asks for; `most`: as many attempts are enough for this kind."""

    def __init__(
        self,
        problem: str,
        *,
        is_final: bool = False,
        wait: float | None = None,
        most: int | None = None,
        may_be_plain_http: bool = False,
        is_plain_http: bool = False,
    ) -> None:
        super().__init__(problem)
        self.is_final = is_final
        self.wait = wait
        self.most = most
        self.may_be_plain_http = may_be_plain_http or is_plain_http
        self.is_plain_http = is_plain_http


class Way(NamedTuple):
    """The way to a server: the URLs of it and of the proxy, fit to be shown, and the directory of its certificates."""

    url: str
    proxy: str
    certificates: str

    @property
    def host(self) -> str:
        """The host, perhaps with a port."""
        return self.url.partition("://")[2]


def of(error: BaseException, way: Way) -> Failure:
    """Describe an exception of the HTTP library."""
    # An exception of requests is an OSError that says nothing by itself; what it holds does.
    causes = [cause for cause in _causes(error) if not isinstance(cause, requests.RequestException)]
    for cause in causes:
        if refusal := _TUNNEL_REFUSED.match(str(cause)):
            return refused_by_proxy(int(refusal[1]), way)
    for kind, describe in _KINDS:
        for cause in causes:
            if isinstance(cause, kind):
                return describe(cause, way)
    return Failure(f"{way.url}: {type(error).__name__}")


def refused_by_proxy(status: int, way: Way) -> Failure:
    """Describe a proxy's own reply."""
    if status == 407:
        hint = "; it wants a login that it knows, as http://USER:PASSWORD@HOST:PORT in https_proxy and its like"
    elif status < 500:
        hint = f"; ask whoever runs it to let {way.host} through, or put that into no_proxy"
    else:
        hint = f"; it does not reach {way.host}"
    return Failure(
        f"{way.url}: the proxy {way.proxy} answers HTTP {status}{hint}",
        is_final=status < 500,
        most=3,
        may_be_plain_http=True,
    )


def of_proxy(error: BaseException, proxy: str) -> Failure:
    """Describe why there is no TLS with the proxy itself, whose URL is fit to be shown."""
    if isinstance(error, (ssl.SSLCertVerificationError, CertificateError)):
        hint = "put its authority among those of the system, or correct https_proxy and its like"
        return Failure(
            f"{proxy}: the certificate of this proxy is not accepted: {_reason(error)}; {hint}", is_final=True
        )
    return Failure(f"{proxy}: no TLS with this proxy; write http:// in https_proxy if it speaks plain HTTP", most=3)


def _causes(error: BaseException) -> Iterator[BaseException]:
    waiting = [error]
    seen: list[BaseException] = []
    while waiting and len(seen) < _CAUSES_LIMIT:
        cause = waiting.pop(0)
        if isinstance(cause, Failure) or any(cause is other for other in seen):
            continue
        seen.append(cause)
        yield cause
        related = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        waiting.extend(item for item in related if isinstance(item, BaseException))


def _certificate(error: BaseException, way: Way) -> Failure:
    code = getattr(error, "verify_code", None)
    if code in _WRONG_TIMES:
        hint = "whoever runs it must renew it, or the clock of this machine is wrong"
    elif code in _WRONG_NAMES:
        hint = "ask for it by a name that it is for"
    else:
        hint = f"put the certificate of its authority into {way.certificates}/ca.crt"
    return Failure(f"{way.url}: the certificate is not accepted: {_reason(error)}; {hint}", is_final=True)


def _reason(error: BaseException) -> str:
    return str(getattr(error, "verify_message", "") or "it is for another name")[:200]


def _tls(error: BaseException, way: Way) -> Failure:
    reason = getattr(error, "reason", None)
    text = reason if isinstance(reason, str) and reason else "the connection broke off"
    if "ALERT" in text and "CERTIFICATE" in text:
        hint = f"it wants a client certificate, to be put into {way.certificates} as client.cert and client.key"
        return Failure(f"{way.url}: TLS: {text[:100]}; {hint}", is_final=True)
    is_plain_http = text in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")
    return Failure(f"{way.url}: TLS: {text[:100]}", may_be_plain_http=True, is_plain_http=is_plain_http, most=3)


def _name(error: BaseException, way: Way) -> Failure:
    is_final = isinstance(error, socket.gaierror) and error.errno in (
        socket.EAI_NONAME,
        getattr(socket, "EAI_NODATA", -5),
    )
    return Failure(
        f"{way.url}: there is no host {way.host!r}; correct the name, or check the network", is_final=is_final
    )


def _refused(_error: BaseException, way: Way) -> Failure:
    return Failure(f"{way.url}: connection refused; nothing listens there", most=3, may_be_plain_http=True)


def _timeout(_error: BaseException, way: Way) -> Failure:
    # What speaks plain HTTP may wait for the end of a line while TLS waits for an answer.
    return Failure(f"{way.url}: no answer in time", may_be_plain_http=True)


def _forbidden(error: BaseException, way: Way) -> Failure:
    text = str(error) if type(error) is PermissionError and error.errno is None else "not permitted"
    return Failure(f"{way.url}: {text[:200]}", is_final=True)


def _system(error: BaseException, way: Way) -> Failure:
    text = error.strerror if isinstance(error, OSError) and error.strerror else "connection broken"
    return Failure(f"{way.url}: {text[:200].lower()}", may_be_plain_http=isinstance(error, ConnectionError))


def _disconnected(_error: BaseException, way: Way) -> Failure:
    return Failure(f"{way.url}: the connection was closed without a reply", may_be_plain_http=True)


def _broken_off(_error: BaseException, way: Way) -> Failure:
    return Failure(f"{way.url}: broken off")


def _not_http(_error: BaseException, way: Way) -> Failure:
    return Failure(f"{way.url}: the reply is not HTTP")


def _proxy(_error: BaseException, way: Way) -> Failure:
    problem = f"the proxy {way.proxy} does not answer; check https_proxy and its like"
    return Failure(f"{way.url}: {problem}", most=3, may_be_plain_http=True)


# The most telling first: an exception of the HTTP library holds those of the system as causes.
_KINDS = (
    (ssl.SSLCertVerificationError, _certificate),
    (CertificateError, _certificate),
    (ssl.SSLError, _tls),
    (urllib3_exceptions.ProxyError, _proxy),
    (socket.gaierror, _name),
    (ConnectionRefusedError, _refused),
    (TimeoutError, _timeout),
    (urllib3_exceptions.TimeoutError, _timeout),
    (PermissionError, _forbidden),
    (http.client.RemoteDisconnected, _disconnected),
    (ConnectionError, _system),
    (http.client.IncompleteRead, _broken_off),
    (urllib3_exceptions.SSLError, _tls),
    (http.client.HTTPException, _not_http),
    (urllib3_exceptions.ProtocolError, _not_http),
    (OSError, _system),
)
