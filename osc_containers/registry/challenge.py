"""How to prove to a registry who we are: challenges, logins and tokens, without any HTTP.

Spec: RFC 9110, 11 (challenges); RFC 6750, 3 (Bearer); distribution's "Token Authentication Specification".
"""

import base64
import re
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlencode

from osc_containers.formats import strict_json

REPLY_LIMIT = 1 << 20
"""Bytes of a token server's reply."""
_HEADER_LIMIT = 16 << 10
_TOKEN_LIMIT = 64 << 10
_DEFAULT_LIFETIME = 60  # "If omitted, this defaults to 60 seconds."
_CLIENT_ID = "osc-containers"

_SCHEME = re.compile(r"[ \t,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ ]+|(?=,)|$)")
_PARAMETER = re.compile(
    r"[ \t,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*"
    r"(?:\"((?:[^\"\\]|\\.)*)\"|([!#$%&'*+.^_`|~0-9A-Za-z/:-]+))"
)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_PULL = re.compile(r"repository:[A-Za-z0-9._/:-]{1,300}:pull")


class Challenge(NamedTuple):
    """One way in that a server offers; scheme and names of parameters are in lower case."""

    scheme: str
    parameters: dict[str, str]

    def without_scope(self) -> "Challenge":
        """Return what of it is good for other repositories too."""
        kept = {name: value for name, value in self.parameters.items() if name != "scope"}
        return Challenge(scheme=self.scheme, parameters=kept)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Read `WWW-Authenticate`, perhaps several of them joined by commas; what cannot be read is left out."""
    header = header[:_HEADER_LIMIT]
    found = []
    position = 0
    while match := _SCHEME.match(header, position):
        position = match.end()
        if position == match.start():
            break
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            parameters.setdefault(name.lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            position = parameter.end()
        if not parameters and (token := _TOKEN68.match(header, position)):
            position = token.end()
        found.append(Challenge(scheme=match[1].lower(), parameters=parameters))
    return tuple(found)


class Login(NamedTuple):
    """A name and a password, or an identity token; neither is ever shown."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Login(username={self.username!r})"

    @property
    def basic(self) -> str:
        """The value of a Basic `Authorization` header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class TokenRequest(NamedTuple):
    """What to send to a token server; `form` makes it a POST."""

    url: str
    authorization: str | None = None
    form: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"TokenRequest(url={self.url!r})"


def scope_of(challenge: Challenge, repository: str) -> str:
    """Return the scope to ask for: to pull, under the name that the registry uses for the repository.

    A registry that asks for more than that does not get it.
    """
    offered = challenge.parameters.get("scope", "")
    return offered if _PULL.fullmatch(offered) else f"repository:{repository}:pull"


def token_request(challenge: Challenge, realm: str, scope: str, login: Login | None) -> TokenRequest:
    """Compose the request for a token; `realm` is the challenge's, already found to be a place to go to."""
    query = {"service": challenge.parameters.get("service", ""), "scope": scope}
    query = {name: value for name, value in query.items() if value}
    if login and login.identity_token:
        form = query | {
            "grant_type": "refresh_token",
            "client_id": _CLIENT_ID,
            "refresh_token": login.identity_token,
        }
        return TokenRequest(url=realm, form=form)
    if login:
        query["account"] = login.username
    url = realm + ("&" if "?" in realm else "?") + urlencode(query)
    return TokenRequest(url=url, authorization=login.basic if login else None)


class Token(NamedTuple):
    """A bearer token and how many seconds it is good for."""

    value: str
    lifetime: int

    def __repr__(self) -> str:
        return f"Token(lifetime={self.lifetime!r})"


def parse_token(reply: bytes, where: str) -> Token:
    """Read a token server's reply.

    :raises ValueError: it holds no usable token.
    """
    document = strict_json.load(reply, where)
    value = document.text("token", "") or document.text("access_token", "")
    if not value:
        raise ValueError(f"{where}: got no token")
    if len(value) > _TOKEN_LIMIT or not re.fullmatch(r"[!-~]+", value):
        raise ValueError(f"{where}: got {len(value)} characters, expected a token of printable ASCII")
    lifetime = 0
    with suppress(ValueError):  # the token is good even if what is said of its life is not
        lifetime = document.size("expires_in")
    return Token(value=value, lifetime=max(lifetime, _DEFAULT_LIFETIME))
