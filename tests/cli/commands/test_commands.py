"""The commands: their modules, their help, and the process around them."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from osc_containers.cli import commands, main
from osc_containers.cli.output import progress

ROOT = Path(__file__).resolve().parents[3]
MODULES = {path.stem for path in Path(commands.__file__).parent.glob("*.py")} - {"__init__"}


def subparsers(parser: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return action


def test_every_command_has_a_module() -> None:
    assert set(main.COMMANDS) == MODULES


@pytest.mark.parametrize("name", sorted(MODULES))
def test_help_has_an_example_and_short_lines(name: str) -> None:
    text = subparsers(main.parser([name])).choices[name].format_help()
    assert f"example:\n  osc-containers {name}" in text or f"example:\n  osc containers {name}" in text
    assert max(map(len, text.splitlines())) <= 110


def test_help_of_diff_names_the_command_that_takes_lines_as_they_are() -> None:
    """With `-m`, `osc vc` would put a dash before them."""
    assert "osc vc -F FILE" in subparsers(main.parser(["diff"])).choices["diff"].format_help()


@pytest.mark.parametrize("is_there", [True, False])
def test_help_says_how_to_get_the_services(is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install` brings the command alone."""
    service = tmp_path / "kiwi_containers"
    if is_there:
        service.touch()
    monkeypatch.setattr("osc_containers.cli.installation._SERVICE", service)
    assert ("run 'sudo make install' in a checkout" in " ".join(main.parser([]).format_help().split())) is not is_there


def test_help_imports_no_command_and_no_network_client() -> None:
    program = (
        "import sys; from osc_containers.cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not {name for name in loaded if name.startswith("osc_containers.cli.commands.")}
    assert not {"requests", "urllib3", "rich", "ssl", "osc_containers.kiwi.description"} & loaded


def test_commands_do_not_load_what_only_scripts_need() -> None:
    program = "import sys; from osc_containers.cli.commands import check; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"html", "html.entities"} & set(done.stdout.split())


def test_missing_module_is_reported_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.kiwi").write_text('<image schemaversion="8.0" name="a"/>')
    without = "import sys; sys.modules['platformdirs'] = None; from osc_containers.cli.main import main; "
    command = [sys.executable, "-c", without + "sys.exit(main(['prefetch']))"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(
        r"osc-containers: error: .*platformdirs.*; install what the README .* lists, for \S+\n", done.stderr
    )


CONSOLE = [sys.executable, "-c", "from osc_containers.cli.main import console; console()"]


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("command", ["list", "check", "prefetch"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_accepted(tmp_path: Path, command: str, closed: str) -> None:
    (tmp_path / "a.kiwi").write_text('<image schemaversion="8.0" name="a"/>')
    line = f'exec "$@" {command} {closed}'
    done = subprocess.run(["sh", "-c", line, "sh", *CONSOLE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "containers.lock").is_file() == (command == "prefetch")


def test_text_outside_the_locale_is_escaped(tmp_path: Path) -> None:
    containers = '<containers source="a.b" backend="podman" profiles="p"><container name="x"/></containers>'
    (tmp_path / "a.kiwi").write_text(f'<image schemaversion="8.0" name="a">{containers}</image>')
    environment = {**os.environ, "PYTHONIOENCODING": "iso-8859-1"}
    done = subprocess.run([*CONSOLE, "check"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "")
    assert '> <profile name="p" description="\\u2026"/>\n' in done.stdout


def test_no_progress_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with progress.on_terminal() as watcher, watcher.blob("app", 10) as advance:
        advance(10)


COLOURED = """
import argparse, os, runpy, sys
format_help = argparse.HelpFormatter.format_help
argparse.HelpFormatter.format_help = lambda self: ("" if os.environ.get("NO_COLOR") else "\\x1b[1m") + format_help(self)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_manual_page_has_no_colours() -> None:
    """Python 3.14 colours help texts, which older ones do here, too."""
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    command = [sys.executable, "-IBc", COLOURED, str(ROOT / "scripts/manpage")]
    page = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert b"\x1b" not in page
    assert b".SS" in page


@pytest.mark.integration
def test_manual_page_has_every_command_and_no_warnings() -> None:
    page = subprocess.run([sys.executable, "-IB", ROOT / "scripts/manpage"], capture_output=True, check=True).stdout
    done = subprocess.run(["groff", "-man", "-ww", "-Tascii", "-P-cbou"], input=page, capture_output=True, check=True)
    assert done.stderr == b""
    assert [
        status for status in ("0", "1", "2", "3", "129, 130, 143") if f".TP\n.B {status}\n".encode() not in page
    ] == []
    assert [name for name in main.COMMANDS if f"usage: osc-containers {name}".encode() not in done.stdout] == []
