"""Who we are to one registry: its challenge, the tokens it wants, and what to say when they do not suffice.

Spec: distribution's "Token Authentication Specification" and "OAuth2 Token Authentication".
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from osc_containers.registry import challenge as auth
from osc_containers.registry import retry, url_policy
from osc_containers.registry.challenge import Challenge, Login, Token, TokenRequest
from osc_containers.registry.errors import Failure
from osc_containers.registry.response import Reply

_USED = 0.9  # of a token's life: it must still be good when the request arrives


class Fetch(Protocol):
    """The way to a token server."""

    def __call__(self, request: TokenRequest) -> Reply:
        """Send a request, once."""


class _Access:
    """What was learnt about one repository; threads that need its token at once wait for the one that asks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.challenge: Challenge | None = None
        self.token: Token | None = None
        self.until = 0.0


class Tokens:
    """The proofs of who we are, by repository; `host` is the registry's name for people, `home` where it really is."""

    def __init__(self, host: str, home: str, login: Callable[[str], Login | None], fetch: Fetch) -> None:
        self._host = host
        self._home = home
        self._login = login
        self._fetch = fetch
        self._challenge: Challenge | None = None
        self._accesses: dict[str, _Access] = {}

    def authorization(self, repository: str, base: str) -> str | None:
        """Return the value of `Authorization`, with a new token where there is none that is good.

        None as long as the registry, whose URL is `base`, has not asked for it, and where we have no answer.

        :raises Failure: the token server does not give one.
        """
        access = self._access(repository)
        challenge = access.challenge or self._challenge
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            login = self._login(repository)
            return login.basic if login and not login.identity_token else None
        with access.lock:
            if access.token is None or time.monotonic() >= access.until:
                began = time.monotonic()
                access.token = self._new_token(challenge, repository, base)
                access.until = began + access.token.lifetime * _USED
            return f"Bearer {access.token.value}"

    def learn(self, header: str, repository: str, *, rejected: str | None) -> None:
        """Note what a `WWW-Authenticate` header asks for, and that `rejected` is no longer good.

        :raises Failure: it asks for nothing that we know.
        """
        offers = {challenge.scheme: challenge for challenge in auth.parse_challenges(header)}
        challenge = offers.get("bearer") or offers.get("basic")
        if challenge is None:
            raise Failure(f"{self._host}: asks for an unknown kind of login: {header[:200]!r}", is_final=True)
        self._challenge = challenge.without_scope()
        access = self._access(repository)
        with access.lock:
            access.challenge = challenge
            if access.token and rejected == f"Bearer {access.token.value}":
                access.token = None

    def denial(self, repository: str, refusal: str) -> Failure:
        """Say that access was refused, and what to do."""
        ways = f"`podman login {self._host}` or `skopeo login {self._host}`"
        if self._login(repository):
            return Failure(f"{refusal}; the login for {self._host} is not enough, renew it with {ways}", is_final=True)
        return Failure(f"{refusal}; it does not exist there or needs a login, by {ways}", is_final=True)

    def _access(self, repository: str) -> _Access:
        return self._accesses.setdefault(repository, _Access())

    def _new_token(self, challenge: Challenge, repository: str, base: str) -> Token:
        named = challenge.parameters.get("realm", "")
        try:
            realm = url_policy.follow(base, named, home=self._home)
        except ValueError as error:
            raise Failure(f"{self._host}: names a token server: {error}", is_final=True) from None
        scope = auth.scope_of(challenge, repository)
        reply = self._fetch(auth.token_request(challenge, realm, scope, self._login(repository)))
        where = f"token server {url_policy.shown(realm)}"
        if retry.is_transient(reply.status):
            wait = retry.parse_retry_after(reply.headers.get("Retry-After"))
            raise Failure(f"{where}: {reply.refusal()}", wait=wait)
        if reply.status != 200:
            raise self.denial(repository, f"{where}: {reply.refusal()}")
        try:
            return auth.parse_token(reply.read(auth.REPLY_LIMIT), where)
        except ValueError as error:
            raise Failure(str(error)) from None
