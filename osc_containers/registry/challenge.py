"""Authentication at a registry without any HTTP: challenges, logins and tokens.

Sources: RFC 9110, 11 (challenges); RFC 6750, 3 (Bearer); distribution's "Token Authentication Specification".
"""

import base64
import re
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlencode

from osc_containers.formats import strict_json

TOKEN_RESPONSE_LIMIT = 1 << 20
"""Bytes of a token server's response."""
_HEADER_LIMIT = 16 << 10
_TOKEN_LIMIT = 64 << 10
_DEFAULT_LIFETIME = 60  # "If omitted, this defaults to 60 seconds."
_CLIENT_ID = "osc-containers"

# The patterns follow the grammar of RFC 9110, 11.6.1, where both the challenges of a header and the parameters of a
# challenge are separated by commas. A word is a scheme if a blank, a comma or the end follows, but no "=".
_SCHEME = re.compile(r"[ \t,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ ]+|(?=,)|$)")
# Some servers do not quote the URL of a realm, so a value without quotes may contain '/' and ':', too.
_PARAMETER = re.compile(
    r"[ \t,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*"
    r"(?:\"((?:[^\"\\]|\\.)*)\"|([!#$%&'*+.^_`|~0-9A-Za-z/:-]+))"
)
# The bare token that some schemes have in place of parameters: base64 in either alphabet, with its padding.
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_PULL = re.compile(r"repository:[A-Za-z0-9._/:-]{1,300}:pull")


class Challenge(NamedTuple):
    """One kind of authentication that a server offers; scheme and parameter names are in lower case."""

    scheme: str
    parameters: dict[str, str]

    def without_scope(self) -> "Challenge":
        """Return the challenge as it applies to other repositories of the registry."""
        parameters = {name: value for name, value in self.parameters.items() if name != "scope"}
        return Challenge(scheme=self.scheme, parameters=parameters)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Parse `WWW-Authenticate`, or several of these headers joined by commas; malformed parts are skipped."""
    header = header[:_HEADER_LIMIT]
    challenges = []
    position = 0
    while match := _SCHEME.match(header, position):
        position = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            # A parameter may not occur twice; if it does, the first one counts.
            parameters.setdefault(name.lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            position = parameter.end()
        # Other schemes, as Negotiate, have a bare token instead of parameters.
        if not parameters and (token := _TOKEN68.match(header, position)):
            position = token.end()
        challenges.append(Challenge(scheme=match[1].lower(), parameters=parameters))
    return tuple(challenges)


class Login(NamedTuple):
    """A user name and password, or an identity token. Its representation shows neither secret."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Login(username={self.username!r})"

    @property
    def basic(self) -> str:
        """The value of `Authorization` for the scheme Basic (RFC 7617)."""
        # RFC 7617 leaves the encoding open; Go's programs and curl send UTF-8.
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class TokenRequest(NamedTuple):
    """A request to a token server: a POST if there is a `form`, otherwise a GET."""

    url: str
    authorization: str | None = None
    form: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"TokenRequest(url={self.url!r})"


def scope_of(challenge: Challenge, repository: str) -> str:
    """Return the scope to request: to pull, under the name that the registry uses for the repository.

    A registry that asks for a wider scope does not get it.
    """
    scope = challenge.parameters.get("scope", "")
    return scope if _PULL.fullmatch(scope) else f"repository:{repository}:pull"


def token_request(challenge: Challenge, realm: str, scope: str, login: Login | None) -> TokenRequest:
    """Return the request for a token. `realm` is the challenge's URL, already checked."""
    query = {"service": challenge.parameters.get("service", ""), "scope": scope}
    query = {name: value for name, value in query.items() if value}
    # An identity token is exchanged by OAuth2's POST, a password is sent in the header of a GET. Both keep secrets out
    # of the URL, which servers write to their logs.
    if login and login.identity_token:
        form = query | {
            "grant_type": "refresh_token",
            "client_id": _CLIENT_ID,
            "refresh_token": login.identity_token,
        }
        return TokenRequest(url=realm, form=form)
    if login:
        query["account"] = login.username
    # The URL of a realm may have a query of its own, which is kept.
    url = realm + ("&" if "?" in realm else "?") + urlencode(query)
    return TokenRequest(url=url, authorization=login.basic if login else None)


class Token(NamedTuple):
    """A bearer token and its lifetime in seconds."""

    value: str
    lifetime: int

    def __repr__(self) -> str:
        return f"Token(lifetime={self.lifetime!r})"


def parse_token(response: bytes, where: str) -> Token:
    """Parse a token server's response.

    :raises ValueError: there is no usable token in it.
    """
    document = strict_json.load(response, where)
    # `access_token` is the name in OAuth2. The specification allows either, and both are the same if both are there.
    value = document.text("token", "") or document.text("access_token", "")
    if not value:
        raise ValueError(f"{where}: got no token")
    # The token becomes part of a header, so it must not be able to add another one.
    if len(value) > _TOKEN_LIMIT or not re.fullmatch(r"[!-~]+", value):
        raise ValueError(f"{where}: got {len(value)} characters, expected a token of printable ASCII")
    lifetime = 0
    # A token is usable even if its lifetime is malformed.
    with suppress(ValueError):
        lifetime = document.size("expires_in")
    # Shorter lifetimes are raised, as in containers/image: the specification promises at least 60 seconds.
    return Token(value=value, lifetime=max(lifetime, _DEFAULT_LIFETIME))
