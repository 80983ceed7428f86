"""Completion for `osc-containers` and `osc containers` in bash, zsh and fish."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_SCRIPT = """
. "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_TYPE=9 COMPREPLY=()
set -- $(complete -p "${2%% *}")
while [ "$1" != -F ]; do shift; done
"$2"
printf '%s\\n' "${COMPREPLY[@]}"
"""


_ZSH = """
compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -l -- "$@" }
fpath=($1)
words=("${(@s: :)2}")
CURRENT=$#words
autoload -Uz _osc-containers
_osc-containers
"""
"""Calls the function as zsh's line editor does, and prints what it adds."""


def complete_in(shell: str, line: str) -> list[str]:
    """Return the completions that zsh or fish offers at the end of a line, sorted."""
    plugin = ROOT / "plugin"
    commands = {
        "zsh": ["zsh", "-f", "-c", _ZSH, "zsh", str(plugin), line],
        "fish": ["fish", "--no-config", "-c", f"source {plugin}/osc-containers.fish; complete -C '{line}'"],
    }
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    directory = ROOT / "example"
    done = subprocess.run(commands[shell], capture_output=True, text=True, env=environment, cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(word.partition("\t")[0].strip() for word in done.stdout.splitlines() if word)


def complete(line: str, directory: Path = ROOT / "example") -> list[str]:
    """Return the completions that bash offers at the end of a line."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    command = ["bash", "-c", _SCRIPT, "bash", str(ROOT / "plugin/osc-containers.bash"), line]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    return [word.strip() for word in done.stdout.splitlines() if word]


_PROGRAMS = ["osc-containers", "osc containers", "osc -v -A https://api.x:8/y containers"]
_LINES = [
    ("li", ["list"]),
    ("list --format ", ["table", "json"]),
    ("check --arch s39", ["s390", "s390x"]),
    ("prefetch --profile ", ["plain", "docker"]),
    ("diff --format=ch", ["changes"]),
]


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("program", _PROGRAMS)
@pytest.mark.parametrize(("line", "expected"), _LINES)
def test_program_completes_itself(program: str, line: str, expected: list[str]) -> None:
    assert complete(f"{program} {line}") == expected


@pytest.mark.integration
@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize("program", _PROGRAMS)
def test_other_shells_complete_the_same(shell: str, program: str) -> None:
    for line, expected in _LINES:
        # bash replaces what follows "=", the others the whole word.
        before = line.rpartition(" ")[2].rpartition("=")[0]
        wanted = sorted(f"{before}={word}" if before else word for word in expected)
        assert complete_in(shell, f"{program} {line}") == wanted, line


@pytest.mark.integration
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_add_the_command_to_osc(shell: str) -> None:
    assert complete_in(shell, "osc cont") == ["containers"]
    assert "containers" not in complete_in(shell, "osc add cont")


def test_completion_offers_all_commands() -> None:
    assert {"init", "check", "prefetch"} <= set(complete("osc containers "))


def completed_by_osc(line: str) -> list[str]:
    """Return the completions of osc's own script; none if osc is not installed as a package."""
    helpers = [Path(directory, "osc/complete") for directory in ("/usr/share", "/usr/lib64", "/usr/lib")]
    environment = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    for path in filter(Path.exists, helpers):
        return subprocess.run([path], capture_output=True, text=True, env=environment).stdout.split()
    return []


@pytest.mark.parametrize(
    ("line", "ours"), [("osc co", ["containers"]), ("osc -A x co", ["containers"]), ("osc add containers l", [])]
)
def test_completion_of_other_osc_commands_is_unchanged(line: str, ours: list[str]) -> None:
    assert complete(line) == [*completed_by_osc(line), *ours]


def test_completion_outside_a_package_offers_no_profiles(tmp_path: Path) -> None:
    assert complete("osc-containers list --profile ", tmp_path) == []


def test_completion_without_argcomplete_is_silent(tmp_path: Path) -> None:
    (tmp_path / "argcomplete.py").write_text("raise ImportError")
    environment = os.environ | {"_ARGCOMPLETE": "1", "PYTHONPATH": str(tmp_path), "COMP_LINE": "x", "COMP_POINT": "1"}
    command = [sys.executable, "-c", "from osc_containers.cli.main import console; console()", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
