"""Where signatures are is found as podman finds it."""

from pathlib import Path

import pytest

from osc_containers.errors import PolicyError
from osc_containers.evidence.policy import locations, registries_d

SCOPES = ("r.test/ns/app:1", "r.test/ns/app", "r.test/ns", "r.test", "*.test")


def load(directory: Path, **files: str) -> registries_d.SignatureStores:
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return registries_d.load(directory, {"HOME": "/home/user"})


def test_without_files_there_are_no_attachments(tmp_path: Path) -> None:
    stores = load(tmp_path / "missing")
    assert (stores.lookaside(SCOPES), stores.uses_attachments(SCOPES)) == ("file:///var/lib/containers/sigstore", False)


def test_each_key_falls_back_to_wider_scopes(tmp_path: Path) -> None:
    stores = load(
        tmp_path,
        a="docker:\n  r.test/ns:\n    lookaside: https://a.test\n  r.test:\n    use-sigstore-attachments: yes\n",
        b="default-docker:\n  sigstore: file:///b\n  lookaside-staging: file:///c\n",
    )
    assert (stores.lookaside(SCOPES), stores.uses_attachments(SCOPES)) == ("https://a.test", True)
    assert (stores.lookaside(["x.test"]), stores.uses_attachments(["x.test"])) == ("file:///b", False)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a": "docker: 1"}, "docker: expected a mapping"),
        ({"a": "docker: {r.test: {use-sigstore-attachments: 'true'}}"}, "expected true or false"),
        ({"a": "docker: {r.test: {lookaside: [x]}}"}, "'r.test': lookaside: expected a string"),
        ({"a": "docker: {r.test: {}, r.test: {}}"}, "docker: got 'r.test' twice"),
        ({"a": "docker: {r.test: {}}", "b": "docker: {r.test: {}}"}, "b.yaml: 'r.test' is also in .*a.yaml"),
        ({"a": "default-docker: {}", "b": "default-docker: {}"}, "b.yaml: 'default-docker' is also in .*a.yaml"),
        ({"a": "docker: ["}, "not valid YAML"),
        ({"a": "[" * 400}, "not valid YAML"),
        ({"a": "x" * (1 << 20) + "x"}, "got more than"),
    ],
)
def test_what_podman_refuses_is_an_error(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        load(tmp_path, **files)


def test_the_directory_of_the_user_replaces_that_of_the_system(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home")}
    assert locations.registries_d(environ, tmp_path) == tmp_path / "registries.d"
    (tmp_path / "home/.config/containers/registries.d").mkdir(parents=True)
    assert locations.registries_d(environ, tmp_path) == tmp_path / "home/.config/containers/registries.d"
