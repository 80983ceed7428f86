"""kiwi itself as an oracle, in an environment of its own for each line of versions."""

import fcntl
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LINES = {"10.3": "kiwi~=10.3.0", "11": "kiwi~=11.0"}


ROOT = Path(__file__).resolve().parents[2]


class Oracle:
    """A process that answers as kiwi, and a count of what was compared with it."""

    def __init__(self, python: str) -> None:
        command = [python, str(ROOT / "tests/support/kiwi_oracle.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.counts: Counter[str] = Counter()

    def ask(self, path: Path, selections: list["Selection"]) -> dict[str, Any]:
        """Return what kiwi makes of the description in `path`, as `kiwi_oracle.py` says it."""
        question = {
            "description": str(path),
            "selections": [{"arch": each.arch, "profiles": list(each.profiles)} for each in selections],
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"kiwi's process ended with {self.process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def environment(line: str) -> str:
    """Return the interpreter of an environment with this line of kiwi, and make it where it is not there yet."""
    directory = ROOT / "build" / f"kiwi-{line}"
    directory.parent.mkdir(exist_ok=True)
    with Path(f"{directory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
            # Isolated, because pip does not install what it finds in PYTHONPATH, which tests of old libraries set.
            subprocess.run([directory / "bin/python", "-I", "-m", "pip", "-q", "install", LINES[line]], check=True)
            (directory / "complete").touch()
    return str(directory / "bin/python")


def interpreters() -> list[str]:
    return list(filter(None, os.environ.get("KIWI_VENVS", "").split(":"))) or list(LINES)


@pytest.fixture(scope="module", params=interpreters())
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    oracle = Oracle(environment(request.param) if request.param in LINES else request.param)
    yield oracle
    oracle.close()
    print(
        f"\nkiwi {request.param}:", *(f"{what}: {count}" for what, count in sorted(oracle.counts.items())), sep="\n  "
    )


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked of a description."""

    arch: str
    profiles: tuple[str, ...]
