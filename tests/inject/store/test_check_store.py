"""The script that checks at each boot that podman has the images of a store; podman answers here as it is told."""

import os
import subprocess
from pathlib import Path

import pytest

from osc_containers.inject import store

pytestmark = pytest.mark.integration

SCRIPT = Path(store.__file__).with_name("check-store.sh")
MOUNTED = "/proc"
"""A directory that is certainly a mount point."""


@pytest.mark.parametrize(
    ("answers", "status", "output"),
    [
        ("images*) echo sha256:1; echo sha256:2 ;;", 0, ["/proc: podman has its images: 2"]),
        ("images*) echo sha256:2 ;;", 1, ["/proc: podman does not have app:1.0; additionalimagestores in"]),
        # With images whose layers are gone, podman 4 lists none, but finds the others.
        (
            "images*) echo layer not known; exit 125 ;; image*) ;;",
            0,
            ["/proc: podman failed: layer not known", "/proc: podman has its images: 2"],
        ),
        (
            "images*) echo layer not known; exit 125 ;; *2) exit 1 ;; image*) ;;",
            1,
            ["/proc: podman failed: layer not known", "/proc: podman does not have side:1.0; additionalimagestores in"],
        ),
        ("*) echo no such driver; exit 125 ;;", 1, ["/proc: podman failed: no such driver; checked again at the next"]),
    ],
)
def test_images_of_a_store_are_checked(tmp_path: Path, answers: str, status: int, output: list[str]) -> None:
    (tmp_path / "podman").write_text(f'#!/bin/sh\ncase "$*" in {answers} esac\n')
    (tmp_path / "podman").chmod(0o755)
    (tmp_path / "images").write_text("1 app:1.0\n2 side:1.0\n")
    command: list[str | Path] = ["sh", SCRIPT, MOUNTED, "store.squashfs", tmp_path / "images", "check.service"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert [line.startswith(start) for line, start in zip(lines, output, strict=True)] == [True] * len(output), lines
    assert done.returncode == status
