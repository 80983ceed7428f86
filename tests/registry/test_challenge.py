"""Challenges and token responses, well-formed and malformed."""

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.registry import challenge as auth
from osc_containers.registry.challenge import Challenge, Login

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            HUB,
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:library/x:pull",
                    },
                )
            ],
        ),
        ('BASIC Realm="a"', [("basic", {"realm": "a"})]),
        ("Basic", [("basic", {})]),
        ('Basic realm="a\\"b\\\\c"', [("basic", {"realm": 'a"b\\c'})]),
        ("Bearer realm=https://a/t , service = b", [("bearer", {"realm": "https://a/t", "service": "b"})]),
        ('Negotiate, Basic realm="a"', [("negotiate", {}), ("basic", {"realm": "a"})]),
        ('Negotiate abc==, Bearer realm="b,c"', [("negotiate", {}), ("bearer", {"realm": "b,c"})]),
        ('Basic realm="a", Bearer realm="b", x="1"', [("basic", {"realm": "a"}), ("bearer", {"realm": "b", "x": "1"})]),
        ('Bearer realm="first", realm="second"', [("bearer", {"realm": "first"})]),
        ("", []),
        ("  , ,", []),
        ('="x"', []),
        ('Bearer realm="unclosed', [("bearer", {})]),
    ],
)
def test_challenges_are_parsed(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    parsed = [(challenge.scheme, challenge.parameters) for challenge in auth.parse_challenges(header)]
    assert parsed == expected


@given(st.text(alphabet=st.sampled_from('Bearer realm="\\,= \t\x00é'), max_size=300))
def test_any_challenge_header_is_parsed_without_an_error(header: str) -> None:
    assert len(auth.parse_challenges(header)) <= len(header)


def test_long_challenge_headers_are_parsed_in_linear_time() -> None:
    assert len(auth.parse_challenges("a," * 1_000_000)) < 10_000
    auth.parse_challenges("a " * 1_000_000)
    auth.parse_challenges('Bearer realm="' + "\\" * 1_000_000)


@pytest.mark.parametrize(
    ("offered", "scope"),
    [
        ("repository:other/name:pull", "repository:other/name:pull"),
        ("repository:team/app:pull,push", "repository:team/app:pull"),
        ("repository:a:pull repository:b:pull", "repository:team/app:pull"),
        ("registry:catalog:*", "repository:team/app:pull"),
        ("", "repository:team/app:pull"),
    ],
)
def test_the_requested_scope_is_only_pull(offered: str, scope: str) -> None:
    assert auth.scope_of(Challenge(scheme="bearer", parameters={"scope": offered}), "team/app") == scope


CHALLENGE = Challenge(scheme="bearer", parameters={"service": "a b&c"})


def test_an_anonymous_token_is_requested_by_get() -> None:
    request = auth.token_request(CHALLENGE, "https://a/t?x=1", "s:t", None)
    assert parse_qs(urlsplit(request.url).query) == {"x": ["1"], "service": ["a b&c"], "scope": ["s:t"]}
    assert (request.authorization, request.form) == (None, None)


def test_a_password_is_sent_in_a_header_not_in_the_url() -> None:
    request = auth.token_request(CHALLENGE, "https://a/t", "s", Login(username="me", password="secret"))
    assert request.authorization == "Basic bWU6c2VjcmV0"
    assert "secret" not in request.url + repr(request)


def test_an_identity_token_is_sent_in_a_form_not_in_the_url() -> None:
    request = auth.token_request(CHALLENGE, "https://a/t", "s", Login(identity_token="secret"))
    assert request.url == "https://a/t"
    assert request.form is not None
    assert request.form["grant_type"] == "refresh_token"
    assert request.form["refresh_token"] == "secret"
    assert "secret" not in repr(request)


def test_representations_contain_no_secrets() -> None:
    login = Login(username="me", password="secret", identity_token="hidden")
    assert repr(login) == "Login(username='me')"
    assert "secret" not in repr(auth.parse_token(b'{"token": "secret"}', "x"))


@pytest.mark.parametrize(
    ("reply", "value", "lifetime"),
    [
        (b'{"token": "a", "access_token": "b", "expires_in": 300}', "a", 300),
        (b'{"access_token": "b"}', "b", 60),
        (b'{"token": "", "access_token": "b", "expires_in": 1}', "b", 60),
        (b'{"token": "a", "expires_in": null}', "a", 60),
        (b'{"token": "a", "expires_in": -1}', "a", 60),
        (b'{"token": "a", "expires_in": "300"}', "a", 60),
        (b'{"token": "a", "expires_in": 1e99}', "a", 60),
    ],
)
def test_token_responses_are_parsed(reply: bytes, value: str, lifetime: int) -> None:
    token = auth.parse_token(reply, "server")
    assert (token.value, token.lifetime) == (value, lifetime)


@given(st.binary(max_size=100))
def test_any_token_response_is_parsed_or_refused(reply: bytes) -> None:
    with pytest.raises(ValueError, match=r"^server: "):
        auth.parse_token(reply, "server")
