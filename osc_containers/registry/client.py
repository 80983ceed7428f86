"""Requests to one registry: authentication, redirects and retries.

Redirects are followed here and not by the HTTP library, so that their number is limited and credentials stay with
their origin. Sources: OCI distribution-spec v1.1; distribution's "Token Authentication Specification".
"""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

from osc_containers import __version__
from osc_containers.errors import RegistryError
from osc_containers.registry import errors, retry, url_policy
from osc_containers.registry.address import Address
from osc_containers.registry.challenge import Login, TokenRequest
from osc_containers.registry.config import certs_d
from osc_containers.registry.config import proxy as proxy_settings
from osc_containers.registry.errors import Failure, Route
from osc_containers.registry.response import Response
from osc_containers.registry.retry import Attempts, Policy
from osc_containers.registry.session import Transport
from osc_containers.registry.tokens import Tokens

logger = logging.getLogger(__name__)

_USER_AGENT = f"osc-containers/{__version__}"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT = 9
"""Redirects to follow; as many as Go's `http.Client`, which podman and skopeo use, and which sends ten requests."""
_LOGIN_TO_NETWORK = 511
"""Network Authentication Required (RFC 6585, 6)."""
_UNDECIDED_TIMEOUT = 10.0
"""Seconds to connect with TLS to a registry that may use plain HTTP; the same as in skopeo."""
_AUTH_ATTEMPTS = 5
"""A token, no credentials, two new tokens, and a password; more cannot help."""
_Result = TypeVar("_Result")


class Registry:
    """A client for the registry at `host`; may be used from several threads.

    `login` returns the login for a repository, and `certificates` is the directory that certificates for the registry
    belong into. Plain HTTP is used only for loopback addresses and `insecure` registries, if HTTPS fails there.
    """

    def __init__(
        self,
        host: str,
        *,
        policy: Policy,
        login: Callable[[str], Login | None],
        context: ssl.SSLContext,
        certificates: Path,
        insecure: bool = False,
    ) -> None:
        self.host = host
        self._address = Address(host, insecure=insecure)
        self._certificates = str(certificates)
        self._policy = policy
        self._context = context
        self._cancelled = threading.Event()
        self._tokens = Tokens(host, self._address.home, login, self._fetch_token)
        self._transport = Transport(context, policy.connections)
        # Peers are checked when a connection is opened, so connections that were not checked must stay apart.
        self._untrusted_transport = Transport(context, policy.connections, home=self._transport)
        # Redacted URLs of the servers that have answered in this run: an outage of one of these is worth waiting for.
        self._answered: set[str] = set()
        self.is_down = False
        """Whether all attempts at some request have failed."""
        self.latency: float | None = None
        """Seconds until the quickest response so far, without connecting; None before the first."""

    def request(
        self,
        method: str,
        path: str,
        *,
        repository: str,
        where: str,
        headers: Mapping[str, str],
        expected: frozenset[int],
        consume: Callable[[Response], _Result],
        attempts: Attempts | None = None,
    ) -> _Result:
        """Send a request for `path` (below `/v2/`) and return what `consume` makes of the response.

        A status that is not in `expected` is a failure. `consume` is part of an attempt: it raises `Failure` if the
        response is unusable, and closes a response that it does not keep. Messages begin with `where`. Failures count
        towards `attempts` if it is passed.

        :raises RegistryError: the registry refuses, or all attempts that the policy allows have failed.
        """
        attempts = attempts or self.attempts(where)
        while True:
            try:
                response = self._try(method, f"/v2/{path}", repository, headers, expected)
                try:
                    return consume(response)
                except BaseException:
                    response.close()
                    raise
            except Failure as failure:
                if failure.is_final:
                    raise failure.raises(f"{where}: {failure}") from None
                try:
                    attempts.record(failure)
                except RegistryError:
                    # Refusals are final and were raised above; here, all attempts have failed.
                    self.is_down = True
                    raise

    def attempts(self, where: str) -> Attempts:
        """Return a new count of attempts, whose messages begin with `where`."""
        return Attempts(self._policy, where, self._cancelled)

    def fetch(self, url: str) -> Response:
        """Return the response to an anonymous GET of a URL from a manifest.

        :raises Failure: the URL is not allowed, or nothing is there.
        """
        where = url_policy.redact(url)
        # The URL comes from a manifest, which anybody may have written, so no credentials are sent.
        try:
            target = url_policy.follow(self._address.url, url, home=self._address.home)
        except ValueError as error:
            raise Failure(f"{where}: {error}", is_final=True) from None
        response = self._follow("GET", target, {}, None)
        if response.status != 200:
            raise _refusal(response, where)
        return response

    def read_file(self, url: str, limit: int) -> bytes | None:
        """Return what an anonymous GET of a URL of this host gives, or None if nothing is there.

        The URL must come from the user's own configuration.

        :raises RegistryError: the server failed or refused, or sent more than `limit` bytes.
        """
        attempts = self.attempts(url_policy.redact(url))
        while True:
            try:
                response = self._follow("GET", url, {}, None)
                if response.status == 404:
                    response.discard()
                    return None
                if response.status != 200:
                    raise _refusal(response, url_policy.redact(url))
                return response.read(limit)
            except Failure as failure:
                if failure.is_final:
                    raise RegistryError(str(failure)) from None
                attempts.record(failure)

    def used_login(self, repository: str) -> bool:
        """Tell whether a login of the user was sent for a repository."""
        return self._tokens.used_login(repository)

    def cancel(self) -> None:
        """Interrupt every request, except that a connection which is being opened is waited for."""
        self._cancelled.set()
        self._transport.cancel()
        self._untrusted_transport.cancel()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()
        self._untrusted_transport.close()

    def _try(
        self, method: str, path: str, repository: str, headers: Mapping[str, str], expected: frozenset[int]
    ) -> Response:
        response = self._authorized(method, path, repository, headers)
        if response.status in expected:
            return response
        where = url_policy.redact(response.url)
        if response.status not in (401, 403):
            raise _refusal(response, where)
        if self._is_home(response):
            raise self._tokens.denial(repository, f"{where}: {response.refusal()}")
        problem = f"{response.refusal()}; {self.host} redirected there, credentials are not forwarded"
        # Such stores sign their URLs, and every new redirect has a new signature.
        raise Failure(f"{where}: {problem}", max_attempts=3)

    def _authorized(self, method: str, path: str, repository: str, headers: Mapping[str, str]) -> Response:
        """Send a request, and send it again with credentials if the registry asks for them."""
        # Nothing is sent before the registry has asked for it: many registries need no credentials.
        authorization = self._tokens.authorization(repository, self._address.url)
        response = self._send_home(method, path, headers, authorization)
        tried = [authorization]
        while response.status == 401 and self._is_home(response):
            challenge = response.headers.get("WWW-Authenticate", "")
            # Reading the refusal also frees the connection for the next request.
            refusal = f"{url_policy.redact(response.url)}: {response.refusal()}"
            self._tokens.learn(challenge, repository, tried)
            authorization = self._tokens.authorization(repository, self._address.url)
            # What was rejected once is rejected again. The limit is for servers that reject every new token.
            if authorization in tried or len(tried) == _AUTH_ATTEMPTS:
                raise self._tokens.denial(repository, refusal)
            response = self._send_home(method, path, headers, authorization)
            tried.append(authorization)
        return response

    def _is_home(self, response: Response) -> bool:
        """Tell whether the response comes from the registry itself, and not from the target of a redirect."""
        return url_policy.origin(response.url) == url_policy.origin(self._address.url)

    def _fetch_token(self, request: TokenRequest) -> Response:
        method = "POST" if request.form else "GET"
        return self._follow(method, request.url, {"Accept": "application/json"}, request.authorization, request.form)

    def _send_home(self, method: str, path: str, headers: Mapping[str, str], authorization: str | None) -> Response:
        return self._address.send(lambda url: self._follow(method, url + path, headers, authorization))

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        form: dict[str, str] | None = None,
    ) -> Response:
        """Send a request and follow redirects; only the original origin receives `authorization`."""
        for hop in range(_REDIRECT_LIMIT + 1):
            all_headers = dict(headers, Authorization=authorization) if authorization else headers
            # The path of a redirect may be a signature, as its query may.
            label = f"{method} {url_policy.redact(url)}{'/...' if hop else url_policy.path(url)}"
            try:
                response = self._send(method, url, all_headers, form, label)
            except Failure as failure:
                if hop:
                    failure.come_from_redirect(self.host)
                raise
            target = response.headers.get("Location")
            # A form contains a secret, so it is never sent to a second URL.
            if response.status not in _REDIRECTS or target is None or form is not None:
                return response
            response.discard()
            try:
                next_url = url_policy.follow(url, target, home=self._address.home)
            except ValueError as error:
                raise Failure(f"{url_policy.redact(url)}: redirect: {error}", is_final=True) from None
            # The credentials stay away from here on, even if a later redirect leads back to the registry.
            if url_policy.origin(next_url) != url_policy.origin(url):
                authorization = None
            url = next_url
        problem = f"got more than {_REDIRECT_LIMIT} redirects, which may lead in a circle; ask the administrator"
        raise Failure(f"{url_policy.redact(url)}: {problem} of {self.host}", is_final=True)

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], form: dict[str, str] | None, label: str
    ) -> Response:
        # Blobs are verified and stored as they are, so compression for the transfer would only cost time.
        all_headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers}
        if form is not None:
            all_headers["Content-Type"] = "application/x-www-form-urlencoded"
        proxy = proxy_settings.of_environment(url)
        redacted_proxy = url_policy.redact(proxy) if proxy else ""
        route = Route(url=url_policy.redact(url), proxy=redacted_proxy, certificates=self._certificates)
        # Hosts are compared without their ports, because a peer is judged by its address alone.
        is_home = url_policy.origin(url)[1] == url_policy.origin(self._address.url)[1]
        connect_timeout = self._policy.connect_timeout
        # A server of plain HTTP may keep a TLS handshake waiting, and then plain HTTP must still get its turn.
        if self._address.may_be_plain_http:
            connect_timeout = min(connect_timeout, _UNDECIDED_TIMEOUT)
        # Read before the request: another thread may complete the settings while this one fails with the partial ones.
        is_partial = certs_d.is_partial(self._context)
        started = time.monotonic()
        try:
            raw = (self._transport if is_home else self._untrusted_transport).send(
                method,
                url,
                headers=all_headers,
                body=None if form is None else urlencode(form).encode(),
                timeout=(connect_timeout, self._policy.read_timeout),
                proxy=proxy,
                route=route,
            )
        except Failure as failure:
            # The handshake failed, so the server has not seen the request, and it can be sent again.
            if failure.is_untrusted and is_partial:
                certs_d.complete(self._context)
                return self._send(method, url, headers, form, label)
            # A name or address that has never worked is wrong more often than it is down.
            failure.is_outage = failure.is_outage and route.url in self._answered
            failure.is_final = failure.is_final and not failure.is_outage
            logger.debug("%s: no response, %.2f s; %s", label, time.monotonic() - started, failure)
            raise
        self._answered.add(route.url)
        response = Response(raw, url, route, label)
        # A tunnel's refusal is an exception, but with plain HTTP the proxy answers in place of the server.
        if proxy and response.status == 407:
            response.close()
            raise errors.from_proxy_status(response.status, route)
        if is_home:
            # The quickest response shows the distance best; the others include time for the server's own work.
            self.latency = min(self.latency or response.latency, response.latency)
        return response


def _refusal(response: Response, where: str) -> Failure:
    problem = f"{where}: {response.refusal()}"
    if response.status == _LOGIN_TO_NETWORK:
        problem += "; the network wants a login of its own: open any page in a browser"
    if not retry.is_transient(response.status):
        return Failure(problem, is_final=True)
    return Failure(problem, wait=retry.parse_retry_after(response.headers.get("Retry-After")))
