"""git reads what was committed, in every kind of work tree, and neither fetches nor runs anything."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from osc_containers.errors import Error
from osc_containers.obs import git

LIMIT = 1000


def run(directory: Path, *arguments: str | Path) -> str:
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "protocol.file.allow=always")
    command = ["git", "-C", directory, *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """Return a repository with two commits; the file `package/lock` has their numbers."""
    directory = tmp_path / "origin"
    (directory / "package").mkdir(parents=True)
    run(directory, "init", "--initial-branch=main")
    run(directory, "config", "uploadpack.allowFilter", "true")
    run(directory, "config", "uploadpack.allowAnySHA1InWant", "true")
    for number in "12":
        (directory / "package/lock").write_text(number)
        run(directory, "add", ".")
        run(directory, "commit", "--message", number)
    return directory


def read(directory: Path, name: str = "lock", revision: str | None = None) -> bytes | None:
    top = git.find_top(directory)
    assert top
    return git.open_repository(top, os.environ).read(directory.resolve() / name, revision, LIMIT)


@pytest.mark.parametrize("kind", ["clone", "worktree", "submodule", "separate", "link", "colon"])
def test_every_kind_of_work_tree_is_read(origin: Path, tmp_path: Path, kind: str) -> None:
    directory = tmp_path / ("home:ann" if kind == "colon" else "other")
    if kind == "worktree":
        run(origin, "worktree", "add", "--detach", directory)
    elif kind == "submodule":
        run(tmp_path, "init", "outer")
        run(tmp_path / "outer", "submodule", "add", origin, "inner")
        directory = tmp_path / "outer/inner"
    elif kind == "separate":
        run(tmp_path, "clone", f"--separate-git-dir={tmp_path}/elsewhere", origin, directory)
    elif kind == "link":
        directory.symlink_to(origin)
    else:
        run(tmp_path, "clone", origin, directory)
    assert read(directory / "package") == b"2"
    assert read(directory / "package", revision="HEAD~1") == b"1"
    assert read(directory / "package", "gone") is None
    assert read(directory, "package/lock", "main" if kind == "link" else "HEAD") == b"2"
    with pytest.raises(Error, match=r"'gone': no such file, and no such revision in git"):
        read(directory, revision="gone")


@pytest.mark.parametrize("kind", ["blob:none", "tree:0"])
def test_a_partial_clone_names_the_fetch_to_run(origin: Path, tmp_path: Path, kind: str) -> None:
    run(tmp_path, "clone", f"--filter={kind}", origin.as_uri(), "partial")
    package = tmp_path / "partial/package"
    assert read(package) == b"2"
    for _ in range(3):  # a tree can lack trees, and they files
        try:
            assert read(package, revision="HEAD~1") == b"1"
        except Error as error:
            message = str(error)
        else:
            break
        found = re.fullmatch(
            rf"{package.parent}: this partial clone lacks the object ([0-9a-f]+); if you cloned it yourself, run: "
            r"(git fetch origin \1)",
            message,
        )
        assert found, message
        run(package, *found[2].split()[1:])
    assert read(package, revision="HEAD~1") == b"1"
    assert message


@pytest.mark.parametrize("name", ["HEAD", "HEAD^{tree}", "HEAD:package", "HEAD:package/lock"])
def test_an_object_that_git_lost_is_named(origin: Path, name: str) -> None:
    number = run(origin, "rev-parse", name)
    (origin / ".git/objects" / number[:2] / number[2:]).unlink()
    with pytest.raises(Error, match=f"^{origin}: git lacks the object {number}; run: git fsck$"):
        read(origin / "package")


def test_only_files_of_a_bounded_size_are_read(origin: Path) -> None:
    (origin / "link").symlink_to("package/lock")
    (origin / "long").write_bytes(bytes(LIMIT + 1))
    run(origin, "add", ".")
    run(origin, "commit", "--message", "3")
    for name in ("link", "package"):
        with pytest.raises(Error, match=f"/{name}: got a link or a directory in the last commit, expected a file$"):
            read(origin, name)
    with pytest.raises(Error, match=f"git: killed, because it wrote more than {LIMIT} bytes"):
        read(origin, "long")
    assert read(origin, "*") is None


def test_a_damaged_repository_is_not_replaced_by_another(origin: Path) -> None:
    inner = origin / "package"
    (inner / ".git").mkdir()
    with pytest.raises(Error, match=r"^git: "):
        read(inner)
    (inner / ".git").rmdir()
    run(origin, "clone", "--bare", ".", "package/bare")
    (inner / "bare/lock").touch()
    assert read(inner / "bare") is None, "a bare repository is a directory like others"
    (inner / "bare/.git").mkdir()
    with pytest.raises(Error, match=r"^git: "):
        read(inner / "bare")


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"])
def test_variables_of_git_do_not_count(origin: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A hook of git runs with them."""
    monkeypatch.setenv(name, "/nowhere")
    assert read(origin / "package") == b"2"


def test_only_what_the_user_ignores_is_ignored(origin: Path) -> None:
    store = origin / "package/.osc"
    store.mkdir()
    (store / "_project").touch()
    repository = git.open_repository(origin, os.environ)
    assert not repository.ignores(store)
    (origin / ".gitignore").write_text(".osc\n")
    assert not repository.ignores(store)
    exclude = origin / ".git/info/exclude"
    exclude.write_text(".osc\n")
    assert repository.ignores(store)
    exclude.unlink()
    assert not repository.ignores(store)
    ignore = Path(os.environ["HOME"], ".config/git/ignore")
    ignore.parent.mkdir(parents=True)
    ignore.write_text("/package/.osc/\n")
    assert repository.ignores(store)
    ignore.rename(ignore.parent.parent / "mine")
    run(origin, "config", "--global", "core.excludesFile", "~/.config/mine")
    assert repository.ignores(store)
    run(origin, "add", "--force", ".osc" if (origin / ".osc").exists() else "package/.osc")
    assert not repository.ignores(store)
