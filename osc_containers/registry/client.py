"""Requests to one registry: where it is, who we are to it, and what to do when it does not answer well.

Redirects are followed here and not by the HTTP library: they are bounded, and what proves who we are goes to no other
origin. Spec: OCI distribution-spec v1.1; distribution's "Token Authentication Specification".
"""

import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

from osc_containers import __version__
from osc_containers.errors import RegistryError
from osc_containers.registry import errors, retry, url_policy
from osc_containers.registry.challenge import Login, TokenRequest
from osc_containers.registry.config import proxy as proxies
from osc_containers.registry.connection import Connections
from osc_containers.registry.errors import Failure, Way
from osc_containers.registry.response import Reply
from osc_containers.registry.retry import Attempts, Policy
from osc_containers.registry.tokens import Tokens

logger = logging.getLogger(__name__)

_USER_AGENT = f"osc-containers/{__version__}"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT = 10
_UNDECIDED_TIMEOUT = 10.0  # seconds to connect with TLS where plain HTTP may be spoken; skopeo has as many
_PROOFS = 2  # once because we did not know, and once because a token can expire on its way
_Result = TypeVar("_Result")
_API_HOSTS = {"docker.io": "registry-1.docker.io"}


class Registry:
    """The registry at `host`, which may be used from several threads.

    `login` finds the login for a repository, and `certificates` is where certificates for the registry would be. Plain
    HTTP is only for loopback and for `insecure` registries, where it is tried when HTTPS does not answer.
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
        self._home = _API_HOSTS.get(host, host)
        self._certificates = str(certificates)
        self._policy = policy
        self._cancelled = threading.Event()
        self._tokens = Tokens(host, self._home, login, self._fetch_token)
        self._connections = Connections(context, policy.connections)
        self._outside = Connections(context, policy.connections, outside=True)
        schemes = ("https", "http") if insecure or url_policy.is_loopback(host) else ("https",)
        self._bases = tuple(f"{scheme}://{self._home}" for scheme in schemes)
        self.is_down = False
        """Whether it has failed to answer in all attempts at some request."""
        self.latency: float | None = None
        """The seconds of its quickest reply so far, connecting not counted; None: there was none."""

    def request(
        self,
        method: str,
        path: str,
        *,
        repository: str,
        where: str,
        headers: Mapping[str, str],
        expected: frozenset[int],
        consume: Callable[[Reply], _Result],
        attempts: Attempts | None = None,
    ) -> _Result:
        """Return what `consume` makes of the reply to a request for `path` (below `/v2/`).

        A status that is not in `expected` is a failure. `consume` is a part of the attempt: it raises `Failure` for a
        reply that is no good, and closes one that it does not keep. `where` begins the messages; failures count in
        `attempts` where it is given.

        :raises RegistryError: the registry refuses, or does not answer in the attempts that its policy allows.
        """
        attempts = attempts or self.attempts(where)
        while True:
            try:
                reply = self._try(method, f"/v2/{path}", repository, headers, expected)
                try:
                    return consume(reply)
                except BaseException:
                    reply.close()
                    raise
            except Failure as failure:
                self._count(failure, attempts, where)

    def _count(self, failure: Failure, attempts: Attempts, where: str) -> None:
        if failure.is_final:
            raise RegistryError(f"{where}: {failure}") from None
        try:
            attempts.failed(str(failure), wait=failure.wait, most=failure.most)
        except RegistryError:
            self.is_down = True
            raise

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()
        self._outside.close()

    def cancel(self) -> None:
        """Let every request fail soon, those under way too: at most a connection that is being made is waited for."""
        self._cancelled.set()
        self._connections.cancel()
        self._outside.cancel()

    def attempts(self, where: str) -> Attempts:
        """Begin to count attempts."""
        return Attempts(self._policy, where, self._cancelled)

    def fetch(self, url: str) -> Reply:
        """Return the reply to an anonymous GET of a URL that a manifest names.

        :raises Failure: it may not be fetched, or is not there.
        """
        shown = url_policy.shown(url)
        try:
            target = url_policy.follow(self._bases[0], url, home=self._home)
        except ValueError as error:
            raise Failure(f"{shown}: {error}", is_final=True) from None
        reply = self._follow("GET", target, {}, None)
        if reply.status != 200:
            raise _refused(reply, shown)
        return reply

    def _try(
        self, method: str, path: str, repository: str, headers: Mapping[str, str], expected: frozenset[int]
    ) -> Reply:
        reply = self._authorized(method, path, repository, headers)
        if reply.status in expected:
            return reply
        where = url_policy.shown(reply.url)
        if reply.status not in (401, 403):
            raise _refused(reply, where)
        if self._is_here(reply):
            raise self._tokens.denial(repository, f"{where}: {reply.refusal()}")
        raise Failure(f"{where}: {reply.refusal()}; {self.host} redirects there, where no login is sent", most=3)

    def _authorized(self, method: str, path: str, repository: str, headers: Mapping[str, str]) -> Reply:
        """Send a request; where the registry wants to know who we are, tell it and send again."""
        authorization = self._tokens.authorization(repository, self._bases[0])
        reply = self._reach(method, path, headers, authorization)
        for _ in range(_PROOFS):
            if reply.status != 401 or not self._is_here(reply):
                break
            header = reply.headers.get("WWW-Authenticate", "")
            refusal = f"{url_policy.shown(reply.url)}: {reply.refusal()}"
            rejected = authorization
            self._tokens.learn(header, repository, rejected=rejected)
            authorization = self._tokens.authorization(repository, self._bases[0])
            if authorization in (None, rejected):  # the same password again would only lock the account
                raise self._tokens.denial(repository, refusal)
            reply = self._reach(method, path, headers, authorization)
        return reply

    def _is_here(self, reply: Reply) -> bool:
        """Tell whether the registry itself replied, and not another to whom it redirected us."""
        return url_policy.origin(reply.url) == url_policy.origin(self._bases[0])

    def _fetch_token(self, request: TokenRequest) -> Reply:
        method = "POST" if request.form else "GET"
        return self._follow(method, request.url, {"Accept": "application/json"}, request.authorization, request.form)

    def _reach(self, method: str, path: str, headers: Mapping[str, str], authorization: str | None) -> Reply:
        """Send a request to the first of the possible addresses that speaks HTTP, and stay with that."""
        bases = self._bases
        try:
            reply = self._follow(method, bases[0] + path, headers, authorization)
        except Failure as failure:
            if len(bases) == 1 or not failure.may_be_plain_http:
                raise
            first = failure
        else:
            self._bases = bases[:1]
            return reply
        if first.is_plain_http:
            self._bases = bases[1:]
        try:
            reply = self._follow(method, bases[1] + path, headers, authorization)
        except Failure as second:
            raise (second if first.is_plain_http or second.is_final else first) from None
        if reply.status == 400 and not first.is_plain_http:  # what a server of HTTPS says to plain HTTP
            reply.close()
            raise first
        self._bases = bases[1:]
        return reply

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        form: dict[str, str] | None = None,
    ) -> Reply:
        for _ in range(_REDIRECT_LIMIT):
            sent = dict(headers, Authorization=authorization) if authorization else headers
            reply = self._send(method, url, sent, form)
            target = reply.headers.get("Location")
            if reply.status not in _REDIRECTS or target is None or form is not None:
                return reply
            reply.discard()
            try:
                following = url_policy.follow(url, target, home=self._home)
            except ValueError as error:
                raise Failure(f"{url_policy.shown(url)}: redirect: {error}", is_final=True) from None
            if url_policy.origin(following) != url_policy.origin(url):
                authorization = None
            url = following
        raise Failure(f"{url_policy.shown(url)}: more than {_REDIRECT_LIMIT} redirects")

    def _send(self, method: str, url: str, headers: Mapping[str, str], form: dict[str, str] | None) -> Reply:
        sent = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers}
        if form is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        host = url_policy.origin(url)[1]
        proxy = proxies.of_environment(url)
        shown_proxy = url_policy.shown(proxy) if proxy else ""
        way = Way(url=url_policy.shown(url), proxy=shown_proxy, certificates=self._certificates)
        is_home = host == url_policy.origin(self._bases[0])[1] or url_policy.is_internal(self._home)
        connect_timeout = self._policy.connect_timeout
        if len(self._bases) > 1:
            connect_timeout = min(connect_timeout, _UNDECIDED_TIMEOUT)
        connections = self._connections if is_home else self._outside
        response = connections.send(
            method,
            url,
            headers=sent,
            body=None if form is None else urlencode(form).encode(),
            timeout=(connect_timeout, self._policy.read_timeout),
            proxy=proxy,
            way=way,
        )
        logger.debug("%s %s: %s", method, way.url, response.status_code)
        reply = Reply(response, url, way)
        if proxy and reply.status == 407:
            reply.close()
            raise errors.refused_by_proxy(reply.status, way)
        if is_home:
            self.latency = min(self.latency or reply.latency, reply.latency)
        return reply


def _refused(reply: Reply, where: str) -> Failure:
    if not retry.is_transient(reply.status):
        return Failure(f"{where}: {reply.refusal()}", is_final=True)
    wait = retry.parse_retry_after(reply.headers.get("Retry-After"))
    return Failure(f"{where}: {reply.refusal()}", wait=wait)
