"""Credentials for one registry: its challenges, its tokens, and advice if they do not suffice.

Sources: distribution's "Token Authentication Specification" and "OAuth2 Token Authentication".
"""

import threading
import time
from collections.abc import Callable

from osc_containers.registry import challenge as challenges
from osc_containers.registry import retry, url_policy
from osc_containers.registry.challenge import Challenge, Login, Token, TokenRequest
from osc_containers.registry.errors import Failure
from osc_containers.registry.response import Response

_USABLE = 0.9
"""The part of a token's lifetime in which it is used: it must still be valid when the request arrives."""


class _Access:
    """What is known about one repository. Threads that need a token wait for the one that fetches it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.challenge: Challenge | None = None
        self.token: Token | None = None
        self.expires = 0.0
        self.used_login = False


class Tokens:
    """The credentials for each repository of a registry.

    `host` is the registry's name in messages, `home` the host that it is really at; `fetch` sends one request to a
    token server.
    """

    def __init__(
        self,
        host: str,
        home: str,
        login: Callable[[str], Login | None],
        fetch: Callable[[TokenRequest], Response],
    ) -> None:
        self._host = host
        self._home = home
        self._login = login
        self._fetch = fetch
        self._challenge: Challenge | None = None
        self._accesses: dict[str, _Access] = {}

    def authorization(self, repository: str, base: str) -> str | None:
        """Return a value for `Authorization`, with a new token if there is no valid one. `base` is the registry's URL.

        None if the registry has not asked for credentials yet, or there are none.

        :raises Failure: the token server refuses a token.
        """
        access = self._access(repository)
        challenge = access.challenge or self._challenge
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            login = self._login(repository)
            if login is None or login.identity_token:
                return None
            access.used_login = True
            return login.basic
        with access.lock:
            # The lifetime counts from the request, before which the server cannot have issued the token.
            if access.token is None or time.monotonic() >= access.expires:
                began = time.monotonic()
                access.token = self._new_token(challenge, repository, base)
                access.expires = began + access.token.lifetime * _USABLE
            return f"Bearer {access.token.value}"

    def learn(self, header: str, repository: str, *, rejected: str | None) -> None:
        """Remember the challenge in a `WWW-Authenticate` header, and forget the token that was `rejected`.

        :raises Failure: the header has no challenge that we can answer.
        """
        offers = {challenge.scheme: challenge for challenge in challenges.parse_challenges(header)}
        challenge = offers.get("bearer") or offers.get("basic")
        if challenge is None:
            raise Failure(f"{self._host}: asks for an unknown kind of login: {header[:200]!r}", is_final=True)
        # Other repositories will get the same challenge, so their first request can already have a token.
        self._challenge = challenge.without_scope()
        access = self._access(repository)
        with access.lock:
            access.challenge = challenge
            # Another thread may have replaced the rejected token in the meantime.
            if access.token and rejected == f"Bearer {access.token.value}":
                access.token = None

    def denial(self, repository: str, refusal: str) -> Failure:
        """Return the failure for a denied access, with advice."""
        commands = f"`podman login {self._host}` or `skopeo login {self._host}`"
        if self._login(repository):
            problem = f"the login for {self._host} is not sufficient, renew it with {commands}"
        else:
            problem = f"it does not exist, or requires a login: use {commands}"
        return Failure(f"{refusal}; {problem}", is_final=True)

    def used_login(self, repository: str) -> bool:
        """Tell whether a login was sent for a repository."""
        return repository in self._accesses and self._accesses[repository].used_login

    def _access(self, repository: str) -> _Access:
        return self._accesses.setdefault(repository, _Access())

    def _new_token(self, challenge: Challenge, repository: str, base: str) -> Token:
        try:
            realm = url_policy.follow(base, challenge.parameters.get("realm", ""), home=self._home)
        except ValueError as error:
            raise Failure(f"{self._host}: token server: {error}", is_final=True) from None
        scope = challenges.scope_of(challenge, repository)
        login = self._login(repository)
        self._access(repository).used_login |= login is not None
        response = self._fetch(challenges.token_request(challenge, realm, scope, login))
        where = f"token server {url_policy.redact(realm)}"
        if retry.is_transient(response.status):
            wait = retry.parse_retry_after(response.headers.get("Retry-After"))
            raise Failure(f"{where}: {response.refusal()}", wait=wait)
        if response.status != 200:
            raise self.denial(repository, f"{where}: {response.refusal()}")
        try:
            return challenges.parse_token(response.read(challenges.TOKEN_RESPONSE_LIMIT), where)
        except ValueError as error:
            raise Failure(str(error)) from None
