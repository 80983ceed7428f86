"""The directories that certificates are read from."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from osc_containers.registry.config import certs_d

HOST = "registry.example"


@contextmanager
def _not_root() -> Iterator[None]:
    """Make file permissions apply to root, too."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("closed", ["docker", "docker/certs.d", f"docker/certs.d/{HOST}"])
def test_an_unreadable_directory_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    base = Path("docker/certs.d")  # relative, because directories above tmp_path are closed as well
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(certs_d, "_SYSTEM", (base,))
    (base / HOST).mkdir(parents=True)
    (base / HOST / "ca.crt").write_text("nonsense")
    tmp_path.chmod(0o755)
    Path(closed).chmod(0)
    try:
        with _not_root():
            directory = certs_d.directory_of(HOST, {"HOME": "home"})
            certs_d.context_for(directory)
    finally:
        Path(closed).chmod(0o755)


def test_a_dangling_link_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "redhat-ca.crt").symlink_to("/etc/rhsm/ca/not-there.pem")
    certs_d.context_for(tmp_path)
