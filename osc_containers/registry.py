"""Requests to one registry: where it is, who we are to it, and what to do when it does not answer well.

Redirects are followed here and not by the HTTP library: they are bounded, and what proves who we are goes to no other
origin. Spec: OCI distribution-spec v1.1; distribution's "Token Authentication Specification".
"""

import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from osc_containers import __version__, auth, connection, failures, hosts, retries
from osc_containers.auth import Challenge, Login, Token
from osc_containers.errors import RegistryError
from osc_containers.failures import Failure
from osc_containers.replies import Reply
from osc_containers.retries import Attempts, Policy

_USER_AGENT = f"osc-containers/{__version__}"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT = 10
_Result = TypeVar("_Result")
_API_HOSTS = {"docker.io": "registry-1.docker.io"}


class _Adapter(HTTPAdapter):
    """Connections of the given pools, with one TLS context that is already complete."""

    def __init__(self, pools: connection.Pools, context: ssl.SSLContext, size: int) -> None:
        self._pools = pools
        self._context = context
        super().__init__(pool_connections=size, pool_maxsize=size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=self._context, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._context}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the pool as it is: the library would load its own authorities for every connection."""


class _Access:
    """The token for one repository; threads that need it at once wait for the one that asks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.challenge: Challenge | None = None
        self.token: Token | None = None
        self.until = 0.0


class Registry:
    """The registry at `host`, which may be used from several threads.

    `login` finds the login for a repository. Plain HTTP is only for loopback and for `insecure` registries, where it is
    tried when HTTPS does not answer.
    """

    def __init__(
        self,
        host: str,
        *,
        policy: Policy,
        login: Callable[[str], Login | None],
        context: ssl.SSLContext,
        insecure: bool = False,
    ) -> None:
        self.host = host
        self._home = _API_HOSTS.get(host, host)
        self._policy = policy
        self._login = login
        self._adapter = _Adapter(connection.POOLS, context, policy.connections)
        self._outside = _Adapter(connection.OUTSIDE_POOLS, context, policy.connections)
        schemes = ("https", "http") if insecure or hosts.is_loopback(host) else ("https",)
        self._bases = tuple(f"{scheme}://{self._home}" for scheme in schemes)
        self._challenge: Challenge | None = None
        self._accesses: dict[str, _Access] = {}

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

        A status that is not in `expected` is a failure. `consume` belongs to the attempt: it raises `Failure` for a
        reply that is no good, and closes one that it does not keep. `where` begins the messages. With `attempts`,
        failures count there.

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
                if failure.is_final:
                    raise RegistryError(f"{where}: {failure}") from None
                attempts.failed(str(failure), wait=failure.wait, most=failure.most)

    def attempts(self, where: str) -> Attempts:
        """Begin to count attempts."""
        return Attempts(self._policy, where)

    def fetch(self, url: str) -> Reply:
        """Return the reply to an anonymous GET of a URL that a manifest names.

        :raises Failure: it may not be fetched, or is not there.
        """
        shown = repr(hosts.without_secrets(url))
        try:
            target = hosts.follow(self._bases[0], url, home=self._home)
        except ValueError as error:
            raise Failure(f"{shown}: {error}", is_final=True) from None
        reply = self._follow("GET", target, {}, None)
        if reply.status != 200:
            raise Failure(f"{shown}: {reply.refusal()}")
        return reply

    def _try(
        self, method: str, path: str, repository: str, headers: Mapping[str, str], expected: frozenset[int]
    ) -> Reply:
        reply = self._authorized(method, path, repository, headers)
        if reply.status in expected:
            return reply
        where = f"{method} {hosts.without_secrets(reply.url)}"
        if reply.status in retries.STATUSES:
            wait = retries.parse_retry_after(reply.headers.get("Retry-After"))
            raise Failure(f"{where}: {reply.refusal()}", wait=wait)
        if reply.status in (401, 403):
            raise self._denied(repository, f"{where}: {reply.refusal()}")
        raise Failure(f"{where}: {reply.refusal()}", is_final=True)

    def _authorized(self, method: str, path: str, repository: str, headers: Mapping[str, str]) -> Reply:
        """Send a request; where the registry wants to know who we are, tell it and send again, once."""
        access = self._accesses.setdefault(repository, _Access())
        authorization = self._authorization(repository, access)
        reply = self._reach(method, path, headers, authorization)
        if reply.status != 401 or hosts.origin(reply.url) != hosts.origin(self._bases[0]):
            return reply
        header = reply.headers.get("WWW-Authenticate", "")
        refusal = reply.refusal()
        self._learn(header, access, rejected=authorization)
        authorization = self._authorization(repository, access)
        if authorization is None:
            raise self._denied(repository, refusal)
        return self._reach(method, path, headers, authorization)

    def _learn(self, header: str, access: _Access, *, rejected: str | None) -> None:
        offers = {challenge.scheme: challenge for challenge in auth.parse_challenges(header)}
        challenge = offers.get("bearer") or offers.get("basic")
        if challenge is None:
            raise Failure(
                f"{self.host} wants to know who we are, but not in a known way: {header[:200]!r}", is_final=True
            )
        self._challenge = challenge
        with access.lock:
            access.challenge = challenge
            if access.token and rejected == f"Bearer {access.token.value}":
                access.token = None

    def _authorization(self, repository: str, access: _Access) -> str | None:
        challenge = access.challenge or self._challenge
        if challenge is None:
            return None
        login = self._login(repository)
        if challenge.scheme == "basic":
            return login.basic if login and not login.identity_token else None
        with access.lock:
            if access.token is None or time.monotonic() >= access.until:
                began = time.monotonic()
                access.token = self._fetch_token(challenge, repository, login)
                access.until = began + access.token.lifetime * 0.9
            return f"Bearer {access.token.value}"

    def _fetch_token(self, challenge: Challenge, repository: str, login: Login | None) -> Token:
        named = challenge.parameters.get("realm", "")
        try:
            realm = hosts.follow(self._bases[0], named, home=self._home)
        except ValueError as error:
            raise Failure(f"{self.host} names a token server: {error}", is_final=True) from None
        if not named:
            raise Failure(f"{self.host} names no token server (realm)", is_final=True)
        wanted = auth.token_request(challenge, realm, auth.scope_of(challenge, repository), login)
        method = "POST" if wanted.form else "GET"
        reply = self._follow(method, wanted.url, {"Accept": "application/json"}, wanted.authorization, wanted.form)
        where = f"token server {hosts.without_secrets(realm)}"
        if reply.status in retries.STATUSES:
            wait = retries.parse_retry_after(reply.headers.get("Retry-After"))
            raise Failure(f"{where}: {reply.refusal()}", wait=wait)
        if reply.status != 200:
            raise self._denied(repository, f"{where}: {reply.refusal()}")
        try:
            return auth.parse_token(reply.read(auth.REPLY_LIMIT), where)
        except ValueError as error:
            raise Failure(str(error)) from None

    def _denied(self, repository: str, refusal: str) -> Failure:
        ways = f"`podman login {self.host}` or `skopeo login {self.host}`"
        if self._login(repository):
            return Failure(f"{refusal}; the login for {self.host} is not enough, renew it with {ways}", is_final=True)
        return Failure(f"{refusal}; it does not exist there or needs a login, by {ways}", is_final=True)

    def _reach(self, method: str, path: str, headers: Mapping[str, str], authorization: str | None) -> Reply:
        """Send a request to the first of the possible addresses that speaks HTTP, and stay with that."""
        bases = self._bases
        try:
            reply = self._follow(method, bases[0] + path, headers, authorization)
        except Failure as failure:
            if len(bases) == 1 or not failure.may_be_plain_http:
                raise
            try:
                reply = self._follow(method, bases[1] + path, headers, authorization)
            except Failure:
                raise failure from None
            if reply.status == 400:  # what a server of HTTPS says to plain HTTP
                reply.close()
                raise
            self._bases = bases[1:]
            return reply
        self._bases = bases[:1]
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
                following = hosts.follow(url, target, home=self._home)
            except ValueError as error:
                raise Failure(f"{hosts.without_secrets(url)}: redirect: {error}", is_final=True) from None
            if hosts.origin(following) != hosts.origin(url):
                authorization = None
            url = following
        raise Failure(f"{hosts.without_secrets(url)}: more than {_REDIRECT_LIMIT} redirects")

    def _send(self, method: str, url: str, headers: Mapping[str, str], form: dict[str, str] | None) -> Reply:
        sent = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers}
        host = hosts.origin(url)[1]
        adapter = self._outside
        if hosts.is_internal(self._home) or url.startswith(tuple(f"{base}/" for base in self._bases)):
            adapter = self._adapter
        timeout = (self._policy.connect_timeout, self._policy.read_timeout)
        try:
            prepared = requests.Request(method, url, headers=sent, data=form).prepare()
            proxies = {} if hosts.is_loopback(host) else get_environ_proxies(url)
            response = adapter.send(prepared, stream=True, timeout=timeout, proxies=proxies)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise failures.of(error, hosts.without_secrets(url)) from None
        return Reply(response.raw, url)
