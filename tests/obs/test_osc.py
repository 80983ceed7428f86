"""osc is asked for names as OBS makes them only, and at the user's own servers."""

import os
import sys
from pathlib import Path

import pytest

from osc_containers.errors import Error
from osc_containers.obs import osc
from tests.support import osc_program
from tests.support.sink import listen

API = "https://api.example.com"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install an osc that shows its arguments, and return an empty package."""
    program = tmp_path / "bin/osc"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "package").mkdir()
    return tmp_path / "package"


def read(package: Path, revision: str = "7", limit: int = 1000) -> str:
    return osc.read(package, "lock", revision, limit, os.environ).decode().strip()


@pytest.mark.parametrize(
    ("project", "package"),
    [("home:ann", "app"), ("openSUSE.org:openSUSE:Factory", "app.x86_64-1+2_3"), ("_x", "app:flavor"), ("9", "a..b")],
)
def test_names_of_obs_are_passed_on(asked: Path, project: str, package: str) -> None:
    osc_program.write_working_copy(asked, API, _project=project, _package=package)
    oscrc = osc_program.log_in(API) / ".config/osc/oscrc"
    assert read(asked) == f"--config={oscrc} -A {API} cat --revision 7 {project} {package} lock"
    with pytest.raises(Error, match=r"^osc: killed, because it wrote more than 9 bytes$"):
        read(asked, limit=9)


@pytest.mark.parametrize("name", ["_project", "_package"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "-A",
        "--config=x",
        "a/b",
        "..",
        ".a",
        "a%2fb",
        "a?cmd=x",
        "a#b",
        "a:",
        ":a",
        "a::b",
        "a b",
        "a\nb",
        "ä",
        "a" * 5000,
    ],
)
def test_other_names_are_refused(asked: Path, name: str, text: str) -> None:
    osc_program.write_working_copy(asked, API, **{name: text})
    osc_program.log_in(API)
    with pytest.raises(Error, match=rf"/\.osc/{name}: got .*, expected "):
        read(asked)


CONFIGURATION = """\
[general]
apiurl = obs
# comment
[https://api.one.example/]
user = ann
pass = a%b;c
aliases = one, obs
[two.example]
aliases=two ; comment
[http://three.example:1/path/]
flag
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://api.one.example", "https://api.one.example"),
        ("https://api.one.example/", "https://api.one.example"),
        ("one", "https://api.one.example"),
        ("https://two.example", "https://two.example"),
        ("two", "https://two.example"),
        ("http://three.example:1/path", "http://three.example:1/path"),
        ("http://api.one.example", None),
        ("https://api.one.example.evil.example", None),
        ("https://api.one.example@evil.example", None),
        ("https://api.one.example/public", None),
        ("https://ann@two.example", None),
        ("general", None),
        ("", None),
        ("-A", None),
        ("http://three.example:1", None),
    ],
)
def test_only_servers_of_the_users_configuration_are_asked(asked: Path, text: str, expected: str | None) -> None:
    osc_program.write_working_copy(asked, text)
    (osc_program.log_in(API) / ".config/osc/oscrc").write_text(CONFIGURATION)
    if expected:
        assert f" -A {expected} cat " in read(asked)
    else:
        with pytest.raises(Error, match=r"/\.osc/_apiurl: got .*, expected a server of /.*/oscrc; check"):
            read(asked)


def test_the_configuration_is_the_one_that_osc_finds(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    osc_program.write_working_copy(asked, API)
    home = osc_program.log_in(API)
    new, old = home / ".config/osc/oscrc", home / ".oscrc"
    assert f"--config={new} " in read(asked)
    old.write_text(new.read_text())
    assert f"--config={new} " in read(asked)
    new.rename(tmp_path / "mine")
    assert f"--config={old} " in read(asked)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "osc").mkdir()
    (tmp_path / "mine").rename(tmp_path / "osc/oscrc")
    assert f"--config={tmp_path}/osc/oscrc " in read(asked)
    monkeypatch.setenv("OSC_CONFIG", "~/.oscrc")
    assert f"--config={old} " in read(asked)
    monkeypatch.chdir(asked)
    (asked / "evil").write_text(old.read_text())
    for name in ("evil", "./evil"):
        monkeypatch.setenv("OSC_CONFIG", name)
        with pytest.raises(Error, match=f"^OSC_CONFIG: got '{name}', expected an absolute path$"):
            read(asked)
    monkeypatch.setenv("OSC_CONFIG", "")
    with pytest.raises(Error, match=r"expected a server of /dev/null"):
        read(asked)
    monkeypatch.setenv("OSC_APIURL", API)
    assert f"--config=/dev/null -A {API} " in read(asked)


@pytest.mark.parametrize("text", ["no section\n", "[a\n", "[http://[]\n"])
def test_a_broken_configuration_is_reported(asked: Path, text: str) -> None:
    osc_program.write_working_copy(asked, API)
    (osc_program.log_in(API) / ".config/osc/oscrc").write_text(text)
    with pytest.raises(Error, match=r"oscrc: |not the URL of a server"):
        read(asked)


def test_a_configuration_that_is_too_large_is_reported(asked: Path) -> None:
    osc_program.write_working_copy(asked, API)
    oscrc = osc_program.log_in(API) / ".config/osc/oscrc"
    oscrc.write_text(f"{oscrc.read_text()}\n{'#' * (1 << 20)}")
    with pytest.raises(Error, match=rf"^{oscrc}: got more than 1048576 characters, expected a file of osc$"):
        read(asked)


def test_the_last_received_file_is_kept_in_two_places(tmp_path: Path) -> None:
    (tmp_path / ".osc/sources").mkdir(parents=True)
    assert osc.kept(tmp_path, "lock", 9) is None
    (tmp_path / ".osc/lock").write_text("old")
    assert osc.kept(tmp_path, "lock", 9) == b"old"
    (tmp_path / ".osc/sources/lock").write_text("new")
    assert osc.kept(tmp_path, "lock", 9) == b"new"
    with pytest.raises(Error, match=r"got more than 2 bytes"):
        osc.kept(tmp_path, "lock", 2)
    (tmp_path / ".osc/sources/lock").unlink()
    (tmp_path / ".osc/sources/lock").symlink_to("../lock")
    with pytest.raises(Error, match=r"got a symlink"):
        osc.kept(tmp_path, "lock", 9)


@pytest.mark.integration
def test_the_real_osc_takes_these_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    with listen(body=b'<directory srcmd5="5eed"/>') as server:
        osc_program.write_working_copy(tmp_path, server.url)
        osc_program.log_in(server.url)
        assert read(tmp_path) == '<directory srcmd5="5eed"/>'
    first, last = (server.received[number].partition(b" HTTP/")[0] for number in (0, -1))
    assert first.startswith(b"GET /source/home:ann/appliance?")
    assert b"rev=7" in first
    assert last.startswith(b"GET /source/home:ann/appliance/lock?")
    assert b"rev=5eed" in last
