"""Credential files and helpers of podman, skopeo and docker."""

import json
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.errors import RegistryError
from osc_containers.registry.challenge import Login
from osc_containers.registry.config import auth_json
from osc_containers.registry.config.auth_json import Logins


def entry(user: str, password: str = "secret") -> dict[str, str]:
    return {"auth": b64encode(f"{user}:{password}".encode()).decode()}


def written(directory: Path, document: object) -> dict[str, str]:
    """Write a credential file; return an environment with its path."""
    file = directory / "auth.json"
    file.write_text(json.dumps(document))
    return {"REGISTRY_AUTH_FILE": str(file), "PATH": str(directory)}


AUTHS = {
    "registry.example": entry("host"),
    "registry.example/team": entry("team"),
    "registry.example/team/app": entry("app"),
    "registry.example:5000": entry("port"),
    "https://index.docker.io/v1/": entry("hub"),
    "https://old.example/v2/": entry("old"),
    "empty.example": {},
    "plain.example": {"username": "plain", "password": "secret"},
    "token.example": {"auth": b64encode(b"<token>:").decode(), "identitytoken": "refresh"},
}


@pytest.mark.parametrize(
    ("host", "repository", "user"),
    [
        ("registry.example", "other", "host"),
        ("registry.example", "team/other", "team"),
        ("registry.example", "teams/other", "host"),
        ("registry.example", "team/app", "app"),
        ("registry.example", "team/app/deep", "app"),
        ("registry.example:5000", "team/app", "port"),
        ("docker.io", "library/x", "hub"),
        ("registry-1.docker.io", "library/x", "hub"),
        ("old.example", "x", "old"),
        ("plain.example", "x", "plain"),
        ("empty.example", "x", None),
        ("unknown.example", "x", None),
        ("example", "x", None),
    ],
)
def test_the_longest_name_takes_precedence(tmp_path: Path, host: str, repository: str, user: str | None) -> None:
    login = Logins((), written(tmp_path, {"auths": AUTHS})).find(host, repository)
    assert (login.username if login else None) == user
    assert login is None or login.password == "secret"


def test_identity_tokens_are_read(tmp_path: Path) -> None:
    login = Logins((), written(tmp_path, {"auths": AUTHS})).find("token.example", "x")
    assert login is not None
    assert login.identity_token == "refresh"


def test_files_are_searched_in_podmans_order(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    paths = ["run/containers/auth.json", ".config/containers/auth.json", ".docker/config.json"]
    assert [str(path) for path in auth_json.files(environ, 0)] == [str(tmp_path / path) for path in paths]
    for user, path in reversed(list(enumerate(paths))):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(json.dumps({"auths": {"a.example": entry(str(user))}}))
        assert Logins((), environ).find("a.example", "x") == Login(username=str(user), password="secret")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ["/run/containers/7/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]),
        (
            {"REGISTRY_AUTH_FILE": "/a/b.json", "XDG_RUNTIME_DIR": "/r"},
            ["/a/b.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"],
        ),
        (
            {"DOCKER_CONFIG": "/d", "XDG_CONFIG_HOME": "/c", "XDG_RUNTIME_DIR": "/r"},
            ["/d/config.json", "/c/containers/auth.json"],
        ),
        (
            {"REGISTRY_AUTH_FILE": "/a/b.json", "DOCKER_CONFIG": "/d"},
            ["/a/b.json", "/h/.config/containers/auth.json", "/d/config.json"],
        ),
    ],
)
def test_the_environment_moves_the_files(environ: dict[str, str], expected: list[str]) -> None:
    assert [str(path) for path in auth_json.files({"HOME": "/h"} | environ, 7)] == expected


def test_a_file_from_the_environment_does_not_hide_others(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {"a.example": entry("docker")}}))
    environ = written(tmp_path, {"auths": {"b.example": entry("named")}}) | {"HOME": str(tmp_path)}
    for named in (environ["REGISTRY_AUTH_FILE"], str(tmp_path / "missing.json")):
        login = Logins((), environ | {"REGISTRY_AUTH_FILE": named}).find("a.example", "x")
        assert login == Login(username="docker", password="secret")


HELPER = """#!{python}
import sys
server = sys.stdin.read()
assert sys.argv[1:] == ["get"]
with open({log!r}, "a") as log:
    log.write(server + "\\n")
replies = {{"good.example": '{{"Username": "me", "Secret": "secret", "ServerURL": ""}}',
    "identity.example": '{{"Username": "<token>", "Secret": "refresh"}}',
    "https://index.docker.io/v1/": '{{"Username": "hub", "Secret": "secret"}}',
    "odd.example": "secret"}}
if server == "broken.example":
    print("secret")
    sys.exit(3)
if server not in replies:
    print("credentials not found in native keychain")
    sys.exit(1)
print(replies[server])
"""


@pytest.fixture
def helper(tmp_path: Path) -> Path:
    """Install `docker-credential-test`; return the file in which it records what it was asked."""
    log = tmp_path / "asked"
    program = tmp_path / "docker-credential-test"
    program.write_text(HELPER.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    return log


@pytest.mark.parametrize(
    ("document", "host", "expected"),
    [
        ({"credHelpers": {"good.example": "test"}}, "good.example", Login(username="me", password="secret")),
        ({"credHelpers": {"identity.example": "test"}}, "identity.example", Login(identity_token="refresh")),
        ({"credHelpers": {"good.example": "test"}}, "other.example", None),
        ({"credsStore": "test"}, "good.example", Login(username="me", password="secret")),
        (
            {"credsStore": "test", "auths": {"good.example": {}}},
            "good.example",
            Login(username="me", password="secret"),
        ),
        ({"credsStore": "test"}, "docker.io", Login(username="hub", password="secret")),
        ({"credsStore": "test"}, "other.example", None),
    ],
)
def test_helpers_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helper: Path, document: object, host: str, expected: Login | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    logins = Logins((), written(tmp_path, document))
    assert logins.find(host, "team/app") == expected
    assert logins.find(host, "team/other") == expected
    servers = helper.read_text().split() if helper.exists() else []
    assert len(servers) == len(set(servers))


def test_helpers_of_registries_conf_are_asked_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helper: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    environ = written(tmp_path, {"auths": {"good.example": entry("file")}})
    for order, user in ((("test", "containers-auth.json"), "me"), (("containers-auth.json", "test"), "file")):
        login = Logins(order, environ).find("good.example", "x")
        assert login is not None
        assert login.username == user


@pytest.mark.parametrize(
    ("name", "host", "problem"),
    [
        ("test", "broken.example", "docker-credential-test: failed for broken.example with status 3"),
        ("test", "odd.example", "docker-credential-test: the reply for odd.example is malformed"),
        (
            "missing",
            "a.example",
            "docker-credential-missing: not installed, but needed for the login at a.example",
        ),
        ("../../bin/sh", "a.example", "credential helper '../../bin/sh': expected a name of letters"),
    ],
)
def test_a_failing_helper_is_reported_without_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helper: Path, name: str, host: str, problem: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RegistryError) as caught:
        Logins((), written(tmp_path, {"credHelpers": {host: name}})).find(host, "x")
    assert str(caught.value).startswith(problem)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("store", "problem"),
    [
        ("missing", "docker-credential-missing: not installed, but needed for the login at broken.example"),
        ("test", "docker-credential-test: failed for broken.example with status 3"),
    ],
)
def test_an_unusable_store_causes_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    helper: Path,
    caplog: pytest.LogCaptureFixture,
    store: str,
    problem: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    logins = Logins((), written(tmp_path, {"credsStore": store}))
    for repository in ("app", "other"):
        assert logins.find("broken.example", repository) is None
    expected = Login(username="me", password="secret") if store == "test" else None
    assert logins.find("good.example", "app") == expected
    [warning] = caplog.messages
    assert warning.startswith(f"{tmp_path}/auth.json: credsStore: {problem}; ")
    assert "secret" not in warning


def test_failing_helpers_are_skipped_if_another_has_the_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helper: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    logins = Logins(
        ("missing", "test", "containers-auth.json"), written(tmp_path, {"auths": {"broken.example": entry("file")}})
    )
    assert logins.find("broken.example", "x") == Login(username="file", password="secret")
    assert logins.find("broken.example", "y") == Login(username="file", password="secret")
    assert logins.find("good.example", "x") == Login(username="me", password="secret")
    assert helper.read_text().split() == ["broken.example", "good.example"]
    with pytest.raises(RegistryError, match="docker-credential-missing: not installed"):
        logins.find("other.example", "x")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "not valid JSON"),
        ("[]", "got an array, expected an object"),
        ('{"auths": []}', "auths: got an array, expected an object"),
        ('{"auths": {"a": "secret"}}', "got a string, expected an object"),
        ('{"auths": {"a": {"auth": "%%secret"}}}', "auth: not a user name and a password in base64"),
        ('{"auths": {"a": {"auth": "/////w=="}}}', "auth: not a user name and a password in base64"),
        ('{"auths": {"a": {"auth": "secrét"}}}', "auth: not a user name and a password in base64"),
        ('{"credHelpers": {"a": 5}}', "got a number, expected a string"),
        ('{"credsStore": {}}', "got an object, expected a string"),
    ],
)
def test_a_malformed_file_is_reported_without_its_contents(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "auth.json"
    file.write_text(text)
    with pytest.raises(RegistryError) as caught:
        Logins((), {"REGISTRY_AUTH_FILE": str(file)}).find("a", "x")
    assert str(caught.value).startswith(f"{file}: ")
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "slip",
    [
        {"auths": {"b.example": {"auth": "%%"}}},
        {"auths": {"b.example": {"auth": "é"}}},
        {"auths": {"b.example": {"auth": "/////w=="}}},
        {"auths": {"b.example": None}},
        {"auths": {"b.example": "secret"}},
        {"credHelpers": {"b.example": 5}},
        {"auths": {"": entry("nobody")}},
    ],
)
def test_a_malformed_entry_does_not_affect_other_registries(tmp_path: Path, slip: dict[str, dict[str, object]]) -> None:
    document = slip | {"auths": {"a.example": entry("me")} | slip.get("auths", {})}
    logins = Logins((), written(tmp_path, document))
    assert logins.find("a.example", "x") == Login(username="me", password="secret")
    assert logins.find("c.example", "x") is None


def test_a_malformed_file_after_a_login_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".config/containers").mkdir(parents=True)
    (tmp_path / ".config/containers/auth.json").write_text(json.dumps({"auths": {"a.example": entry("me")}}))
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("{")
    logins = Logins((), {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    assert logins.find("a.example", "x") == Login(username="me", password="secret")
    with pytest.raises(RegistryError, match=r"config\.json: not valid JSON"):
        logins.find("b.example", "x")


def test_line_breaks_in_base64_are_ignored(tmp_path: Path) -> None:
    wrapped = entry("me")["auth"][:8] + "\r\n" + entry("me")["auth"][8:] + "\n"
    logins = Logins((), written(tmp_path, {"auths": {"a.example": {"auth": wrapped}}}))
    assert logins.find("a.example", "x") == Login(username="me", password="secret")


def test_an_empty_file_has_no_login(tmp_path: Path) -> None:
    (tmp_path / "auth.json").touch()
    assert Logins((), {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}).find("a", "x") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["auths", "credHelpers", "credsStore", "auth", "a"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(json_values)
def test_any_file_is_parsed_or_refused(document: object) -> None:
    try:
        auth_json.parse(json.dumps(document).encode(), "file")
    except ValueError as error:
        problem = str(error)
        assert problem.startswith("file")
