"""The plugin, loaded by osc from PyPI."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import osc_program

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "plugin" / "containers.py"

_PROGRAM = '#!/bin/sh\nprintf "<%s>" "$@"\n[ "$1" != die ] || kill -KILL $$\nexit 7\n'
_TIDY = """#!/bin/sh
trap 'sleep 1; echo tidy; exit 130' INT
echo started
while true; do sleep 0.1; done
"""


@pytest.fixture
def home() -> Path:
    """Return a home directory with osc's configuration; osc also looks for plugins there."""
    return osc_program.log_in("http://127.0.0.1:1")


@pytest.fixture
def plugged(home: Path) -> Path:
    """Return a home directory with the installed plugin, and a program that prints its arguments."""
    for directory in ("lib/osc-plugins", "bin"):
        (home / ".local" / directory).mkdir(parents=True)
    (home / ".local/lib/osc-plugins/containers.py").write_bytes(PLUGIN.read_bytes())
    program = home / ".local/bin/osc-containers"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    return home


def osc(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return osc_program.run(*arguments, environment={"PATH": "/usr/bin:/bin"})


def test_plugin_has_python_3_6_syntax() -> None:
    ast.parse(PLUGIN.read_text(), feature_version=(3, 6))


@pytest.mark.usefixtures("plugged")
def test_osc_help_lists_the_plugin() -> None:
    done = osc("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "containers " in done.stdout
    assert "Prefetch, pin and verify the containers" in done.stdout


@pytest.mark.sampled(every=6)
@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["list"],
        ["list", "--help"],
        ["list", "--format", "json", "-v", "--", "a b", "", "--"],
        ["prefetch", "-A", "x86_64", "--apiurl", "x"],
        ["--help"],
    ],
)
def test_program_gets_the_arguments_unchanged(arguments: list[str]) -> None:
    done = osc("containers", *arguments)
    expected = "".join(f"<{argument}>" for argument in arguments) or "<>"
    assert (done.returncode, done.stdout, done.stderr) == (7, expected, "")


@pytest.mark.integration
@pytest.mark.usefixtures("plugged")
def test_killed_program_is_a_failure() -> None:
    assert osc("containers", "die").returncode == -9


@pytest.mark.integration
def test_interrupted_program_has_time_to_clean_up(plugged: Path) -> None:
    """A terminal interrupts osc and the program together; osc must not end the program early."""
    (plugged / ".local/bin/osc-containers").write_text(_TIDY)
    command = osc_program.command("containers", "prefetch")
    # A shell makes its background jobs ignore SIGINT, and the tests may run in one.
    with subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        env=os.environ | osc_program.PACKAGES | {"PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read().endswith("tidy\n")
    assert process.returncode == 130


@pytest.mark.integration
def test_missing_program_is_reported(plugged: Path) -> None:
    (plugged / ".local/bin/osc-containers").unlink()
    done = osc("containers", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "osc containers: the program osc-containers is not installed\n"
    assert osc("whois", "--help").returncode == 0


@pytest.mark.integration
def test_second_copy_of_the_plugin_is_ignored(plugged: Path) -> None:
    (plugged / ".osc-plugins").mkdir()
    (plugged / ".osc-plugins/containers.py").write_bytes(PLUGIN.read_bytes())
    done = osc("containers", "list")
    assert (done.returncode, done.stdout, done.stderr) == (7, "<list>", "")


def test_link_to_a_checkout_runs_its_venv(home: Path, tmp_path: Path) -> None:
    for path, content in (("plugin/containers.py", PLUGIN.read_text()), (".venv/bin/osc-containers", _PROGRAM)):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(content)
        (tmp_path / path).chmod(0o755)
    (home / ".osc-plugins").mkdir()
    (home / ".osc-plugins/containers.py").symlink_to(tmp_path / "plugin/containers.py")
    assert osc("containers", "list").stdout == "<list>"


def test_osc_without_command_classes_is_unaffected(tmp_path: Path) -> None:
    (tmp_path / "osc").mkdir()
    (tmp_path / "osc/__init__.py").touch()
    (tmp_path / "osc/commandline.py").touch()
    done = subprocess.run([sys.executable, PLUGIN], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
