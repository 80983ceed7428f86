"""`list`: the table for people and the JSON for programs."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from osc_containers.cli.output import table, terminal
from osc_containers.lock import lockfile
from tests.support.locks import NEW_LOCK, make_lock, named_blob

KIWI = """<image>
  <profiles>
    <profile name="Server" description="d" import="true"/>
    <profile name="Workstation" description="d"/>
    <profile name="Kiosk" description="d"/>
  </profiles>
  <containers source="registry.example.com" backend="podman">
    <container name="app" path="team" tag="1.0"/>
    <container name="base" path="a/very/long/path/to/the/images/of/somebody" tag="2026.11.24-build7" fetch_only="true"/>
  </containers>
  <containers source="docker.io" backend="container-snap" profiles="Server,Workstation,Kiosk" arch="x86_64,aarch64">
    <container name="busybox"/>
  </containers>
  <containers source="docker.io" backend="docker" profiles="Kiosk"><container name="alpine"/></containers>
  <containers source="docker.io" backend="docker" arch="s390x"><container name="debian"/></containers>
</image>
"""

TABLE = """\
REFERENCE                   BACKEND         ARCH     PROFILES      FETCH ONLY  PINNED           SIZE
registry.example.com/team/  podman          -        -             no          e3b0c44298fc  10.5 MB
app:1.0
registry.example.com/a/     podman          -        -             yes         -                   -
very/long/path/to/the/
images/of/somebody/base:
2026.11.24-build7
docker.io/library/busybox:  container-snap  x86_64,  Server,       no          -                   -
latest                                      aarch64  Workstation,
                                                     Kiosk
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a package with one of its containers in the lock."""
    (tmp_path / "a.kiwi").write_text(KIWI)
    (tmp_path / "containers.lock").write_text(
        lockfile.dumps(make_lock({"registry.example.com/team/app:1.0": 10 << 20}))
    )
    return tmp_path


def test_list_prints_a_table(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--arch", "x86_64", str(package)]) == 0
    output = capsys.readouterr().out
    assert output == TABLE
    assert max(map(len, output.splitlines())) <= table.WIDTH


def test_list_with_a_profile(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--arch", "s390x", "--profile", "Kiosk", "--format", "json", str(package)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [each["reference"].rpartition("/")[2] for each in rows] == [
        "app:1.0",
        "base:2026.11.24-build7",
        "alpine:latest",
        "debian:latest",
    ]


def test_list_prints_json(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--arch", "x86_64", "--format", "json", str(package / "a.kiwi")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {
        "endpoint": "registry.example.com/team/app:1.0",
        "reference": "registry.example.com/team/app:1.0",
        "origin": "docker://registry.example.com/team/app:1.0",
        "backend": "podman",
        "fetch_only": False,
        "path": "/var/tmp/kiwi_containers/app_1.0",
        "arch": None,
        "profiles": None,
        "file": "a.kiwi",
        "line": 8,
        "locked": {
            "x86_64": {
                "digest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "archive": "registry.example.com_team_app_1.0.x86_64.ociarchive",
                "size": 10485760,
                "signatures": [],
            }
        },
    }


@pytest.mark.parametrize(
    ("is_terminal", "environment", "expected"),
    [
        (True, {}, "\x1b[1mHEAD\x1b[0m\nrow"),
        (True, {"NO_COLOR": ""}, "\x1b[1mHEAD\x1b[0m\nrow"),
        (True, {"NO_COLOR": "1"}, "HEAD\nrow"),
        (True, {"TERM": "dumb"}, "HEAD\nrow"),
        (False, {}, "HEAD\nrow"),
    ],
)
def test_colours_only_on_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool, environment: dict[str, str], expected: str
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    for name, value in ({"NO_COLOR": "", "TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    assert terminal.paint_head("HEAD\nrow") == expected


def test_real_terminal_gets_colours(package: Path) -> None:
    master, slave = pty.openpty()
    script = "import sys; from osc_containers.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "list", "--arch", "x86_64", str(package)]
    subprocess.run(command, stdout=slave, check=True, env=os.environ | {"TERM": "xterm", "NO_COLOR": ""})
    os.close(slave)
    assert os.read(master, 100).startswith(b"\x1b[1mREFERENCE")
    os.close(master)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("abc", 3, ["abc"]),
        ("registry/app:1", 10, ["registry/", "app:1"]),
        ("abcdefghijkl", 5, ["abcde", "fghij", "kl"]),
        ("a/bcdefghijkl", 8, ["a/", "bcdefghi", "jkl"]),
    ],
)
def test_names_wrap_at_separators(text: str, width: int, lines: list[str]) -> None:
    assert table.wrap(text, width) == lines


def test_list_prints_blobs_with_their_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "containers.lock").write_text(lockfile.dumps(NEW_LOCK))
    assert main(["list", "--blobs", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    base = named_blob("base", 30_000_000).digest
    rows = [line for line in output.splitlines() if line.startswith(base.short)]
    assert rows[0].startswith(f"{base.short}  30.0 MB  docker.io/library/added:1 (x86_64), ")
    assert output.endswith("17 blobs of 34.5 MB, 2 of them in several images; 156 MB with layout=archives\n")
    assert main(["list", "--blobs", "--format", "json", str(tmp_path)]) == 0
    (first, *_) = json.loads(capsys.readouterr().out)
    assert (first["digest"], first["size"], first["file"]) == (str(base), 30_000_000, f"sha256-{base.hex}.blob")
    assert {"reference": "docker.io/library/same:1", "arch": "x86_64"} in first["images"]
    assert len(first["images"]) == 5
