"""Linters and types, as tests like the others: whoever runs the tests has run them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [
    "service/kiwi_containers",
    "service/kiwi_containers_inject",
    "scripts/osc-containers",
    "scripts/demo",
    "scripts/engines",
    "scripts/obs",
    "scripts/pictures",
    "scripts/manpage",
    "scripts/service-files",
    "scripts/audit",
    "scripts/say-missing",
]
"""Python without a suffix, which the tools do not find by themselves."""


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--output-format=concise", ".", *SCRIPTS],
        ["ruff", "format", "--check", ".", *SCRIPTS],
        ["mypy", "--scripts-are-modules", "osc_containers", "tests", "bench", *SCRIPTS],
        ["bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", "osc_containers", "plugin", *SCRIPTS],
    ],
    ids=["ruff check", "ruff format", "mypy", "bandit"],
)
def test_there_is_nothing_to_say_about(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"
