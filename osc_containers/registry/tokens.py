"""Credentials for one registry: its challenges, its tokens, and advice if they do not suffice.

Sources: distribution's "Token Authentication Specification" and "OAuth2 Token Authentication".
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from osc_containers.formats import strict_json
from osc_containers.registry import challenge as challenges
from osc_containers.registry import retry, url_policy
from osc_containers.registry.challenge import Challenge, Login, Token, TokenRequest
from osc_containers.registry.errors import Failure
from osc_containers.registry.response import Response, is_web_page

_BEARER, _BASIC = "bearer", "basic"
_TOKEN_ATTEMPTS = 2
"""Tokens for one request: the first one may have expired on its way."""
_USABLE = 0.9
"""The part of a token's lifetime in which it is used: it must still be valid when the request arrives."""


_Offers = Mapping[str, Challenge]
"""Challenges that we can answer, by scheme."""


class _Access:
    """What is known about one repository. Threads that need a token wait for the one that fetches it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.offers: _Offers | None = None
        self.uses_basic = False
        """Whether the password is sent although tokens are offered, because none is to be had."""
        self.is_password_rejected = False
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
        self._offers: _Offers = {}
        self._accesses: dict[str, _Access] = {}

    def authorization(self, repository: str, base: str) -> str | None:
        """Return a value for `Authorization`, with a new token if there is no valid one. `base` is the registry's URL.

        None if the registry has not asked for credentials yet, or there are none.

        :raises Failure: the token server refuses a token.
        """
        access = self._access(repository)
        # Before its first request, a repository is expected to ask for the same credentials as the others.
        offers = self._offers if access.offers is None else access.offers
        if _BEARER in offers and not access.uses_basic:
            try:
                return self._bearer(access, offers[_BEARER], repository, base)
            except Failure:
                # The token server may be down while the registry itself takes passwords.
                password = self._basic(access, repository) if _BASIC in offers else None
                if password is None:
                    raise
                access.uses_basic = True
                return password
        return self._basic(access, repository) if _BASIC in offers else None

    def _bearer(self, access: _Access, challenge: Challenge, repository: str, base: str) -> str:
        with access.lock:
            # The lifetime counts from the request, before which the server cannot have issued the token.
            if access.token is None or time.monotonic() >= access.expires:
                began = time.monotonic()
                access.token = self._new_token(challenge, repository, base)
                access.expires = began + access.token.lifetime * _USABLE
            return f"Bearer {access.token.value}"

    def _basic(self, access: _Access, repository: str) -> str | None:
        login = self._login(repository)
        # To send the same password again would achieve nothing, and could lock the account.
        if login is None or login.identity_token or access.is_password_rejected:
            return None
        access.used_login = True
        return login.basic

    def learn(self, header: str, repository: str, tried: Sequence[str | None]) -> None:
        """Remember the challenges in a `WWW-Authenticate` header, and forget the credentials that were rejected.

        `tried` are the values of `Authorization` that the same request had so far.

        :raises Failure: the header has no challenge that we can answer.
        """
        offers = self._answerable(header)
        tokens = [value for value in tried if value and value.startswith("Bearer ")]
        access = self._access(repository)
        with access.lock:
            # Another thread may have replaced the rejected token in the meantime.
            if access.token and tried[-1] == f"Bearer {access.token.value}":
                access.token = None
            # The rejected value was not a token, so it was the password.
            if tried[-1] and tried[-1] not in tokens:
                access.is_password_rejected, access.uses_basic = True, False
            # Harbor answers a rejected token by Basic alone, and a request without credentials by what it really wants.
            if tokens and _BEARER not in offers and None not in tried:
                access.offers = self._offers = {}
                return
            # Other repositories will get the same challenges, so their first request can already have a token.
            self._offers = {scheme: challenge.without_scope() for scheme, challenge in offers.items()}
            # Another token would not help; what is left is the password, if the registry takes one.
            if len(tokens) >= _TOKEN_ATTEMPTS:
                offers.pop(_BEARER, None)
            access.offers = offers

    def _answerable(self, header: str) -> dict[str, Challenge]:
        every = challenges.parse_challenges(header)
        offers: dict[str, Challenge] = {}
        for challenge in every:
            # Of two with the same scheme the first one counts. A token needs an address to get it from.
            if challenge.scheme == _BASIC or (challenge.scheme == _BEARER and challenge.parameters.get("realm")):
                offers.setdefault(challenge.scheme, challenge)
        if offers:
            return offers
        schemes = ", ".join(dict.fromkeys(challenge.scheme for challenge in every))[:200]
        if not schemes:
            problem = (
                "asks for a login (HTTP 401), but names no way to log in: WWW-Authenticate is missing or malformed"
            )
        elif any(challenge.scheme == _BEARER for challenge in every):
            problem = "asks for a token, but does not name the token server: its challenge has no realm"
        else:
            problem = f"asks for a login by {schemes}, expected Basic or Bearer"
        hint = "check the name of the registry, or tell its administrator"
        raise Failure(f"{self._host}: {problem}; {hint}", is_final=True)

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
        content = response.read(challenges.TOKEN_RESPONSE_LIMIT)
        if is_web_page(content, response.content_type):
            raise response.web_page("a token from the token server")
        try:
            return challenges.parse_token(content, where)
        except ValueError as error:
            # Another answer that is complete will come again.
            raise Failure(str(error), max_attempts=3, is_final=strict_json.is_object(content)) from None
