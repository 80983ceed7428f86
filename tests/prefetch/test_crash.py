"""A run that is killed leaves no half file under a final name, and the next run completes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.integration
def test_the_run_after_a_killed_one_completes() -> None:
    # In a process of its own: it forks, and the threads of a test runner would not come along.
    done = subprocess.run([sys.executable, "-m", "tests.support.crash", "32"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "32 passed, 0 failed" in done.stdout
