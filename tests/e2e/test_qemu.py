"""The image that obs-build built, booted by its own kernel: the containers are loaded, and one of them runs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.builds import Built
from e2e.debs import HERE

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("images")]

_LIMIT = 600
"""Seconds; on an idle machine it takes one minute."""


def test_a_container_runs_after_the_first_boot(built_without_service: Built, tmp_path: Path) -> None:
    with built_without_service.mounted(tmp_path / "image") as root:
        for name in ("vmlinuz", "initrd.img"):
            (found,) = (root / "boot").glob(f"{name}-*")
            shutil.copy(found, tmp_path / name)
    app = next(name for name in built_without_service.package.images if name.endswith("/app:1.0"))
    script = f"systemctl start multi-user.target && podman run --network=none {app} /bin/hello"
    command: list[str | Path] = [HERE / "qemu", built_without_service.image, tmp_path, f"/bin/sh -c '{script}'"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=_LIMIT
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert any(line.rstrip().endswith("it runs") for line in done.stdout.splitlines()), done.stdout[-4000:]
