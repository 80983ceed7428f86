"""Signature policies are read as strictly as podman reads them; `test_oracle.py` compares the two."""

import json
from pathlib import Path

import pytest

from osc_containers.errors import Error, PolicyError
from osc_containers.evidence.policy import load, locations, parser
from osc_containers.evidence.policy.identity import Identity
from osc_containers.evidence.policy.requirements import Policy

KEY = {"type": "sigstoreSigned", "keyPath": "key.pub"}


def parse(document: object) -> Policy:
    return parser.parse(json.dumps(document).encode(), "policy.json")


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("r.test:5000/ns/app:1", "docker r.test:5000/ns/app:1"),
        ("r.test:5000/ns/app", "docker r.test:5000/ns/app"),
        ("r.test:5000/ns", "docker r.test:5000/ns"),
        ("r.test:5000", "docker r.test:5000"),
        ("*.test", "docker *.test"),
        ("", "docker default"),
        ("r.test", "default"),
        ("*.r.test", "default"),
        ("r.test:5000/n", "default"),
    ],
)
def test_the_narrowest_scope_applies(scope: str, expected: str) -> None:
    document = parse({"default": [{"type": "reject"}], "transports": {"docker": {scope: [KEY]}}})
    assert document.requirements("docker", Identity.parse("r.test:5000/ns/app:1").scopes())[0] == expected


def test_narrow_scopes_precede_wide_ones() -> None:
    scopes = {scope: [{"type": "reject"}] for scope in ("", "*.test", "r.test", "r.test/ns", "r.test/ns/app")}
    document = parse({"default": [KEY], "transports": {"docker": scopes}})
    assert document.requirements("docker", Identity.parse("r.test/ns/app:1").scopes())[0] == "docker r.test/ns/app"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({}, "policy.json: default is missing"),
        ([], "policy.json: got an array, expected an object"),
        ({"default": []}, "policy.json: default: got no requirement, expected at least one"),
        (
            {"default": [{"type": "reject", "x": 1}]},
            "policy.json: default[0]: got the unknown field 'x', expected type",
        ),
        ({"default": [{"type": "trust"}]}, "policy.json: default[0].type: got 'trust', expected one of"),
        ({"default": [{**KEY, "keyData": "eA=="}]}, "policy.json: default[0]: expected exactly one of keyPath"),
        ({"default": [{**KEY, "keyPath": 1}]}, "policy.json: default[0].keyPath: got a number, expected a string"),
        (
            {"default": [{**KEY, "signedIdentity": {"type": "exactReference", "dockerReference": "r.test/app"}}]},
            "policy.json: default[0].signedIdentity.dockerReference: got 'r.test/app', expected a tag or a digest",
        ),
        (
            {"default": [KEY], "transports": {"dir": {"x": [KEY]}}},
            "policy.json: transports['dir']['x']: not a valid scope of this transport",
        ),
    ],
)
def test_what_is_unknown_is_an_error(document: object, problem: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse(document)
    assert str(error.value).startswith(problem)
    assert "see containers-policy.json(5)" in str(error.value)


def test_every_scope_with_a_problem_is_named() -> None:
    with pytest.raises(PolicyError) as error:
        parse({"default": [{}], "transports": {"docker": {"a": [{}], "b": [KEY], "c": []}}})
    assert len(error.value.problems) == 3


def test_the_policy_of_the_user_replaces_that_of_the_system(tmp_path: Path) -> None:
    home, system = tmp_path / "home", tmp_path / "system"
    assert locations.policy_json({"HOME": str(home)}, system) is None
    for directory in (system, home / ".config/containers"):
        directory.mkdir(parents=True)
        (directory / "policy.json").touch()
        assert locations.policy_json({"HOME": str(home)}, system) == directory / "policy.json"


@pytest.mark.parametrize("name", ["missing", "../missing", "x\0y"])
def test_a_missing_key_is_named(tmp_path: Path, name: str) -> None:
    document = parse({"default": [{**KEY, "keyPath": name}]})._replace(directory=tmp_path)
    with pytest.raises(Error, match=r"^policy.json: default\[0\]: key "):
        load.read_keys(document, document.default[0])


def test_relative_paths_of_keys_begin_at_the_package(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_bytes(b"key")
    document = parse({"default": [KEY]})._replace(directory=tmp_path)
    assert load.read_keys(document, document.default[0]) == (b"key",)
