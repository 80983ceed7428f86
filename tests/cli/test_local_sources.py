"""Images that may be private: outside of the package, or behind the user's login."""

import base64
import json
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from osc_containers.obs.parameters import SERVICES
from tests.support import images, packages
from tests.support.fault_registry import FaultRegistry

IMAGE = images.small("app")
ARCH = ["--arch", "x86_64"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Give a package whose only image is in a layout beside it."""
    images.write_layout(IMAGE, tmp_path / "outside/app", "1")
    package = packages.write(tmp_path / "package", packages.section(f"oci:{tmp_path}/outside", 'name="app" tag="1"'))
    (package / "_service").unlink()
    return package


@pytest.mark.parametrize("command", ["prefetch", "init"])
def test_commands_need_the_option(package: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, str(package), *ARCH]) == 1
    assert capsys.readouterr().err.endswith("run: osc-containers prefetch --allow-local-sources\n")
    assert not list(package.glob("*.ociarchive"))
    assert main([command, str(package), *ARCH, "--allow-local-sources"]) == 0
    assert ", from this machine\n" in capsys.readouterr().err
    assert len(list(package.glob("*.ociarchive"))) == 1


def test_outdated_needs_the_option(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prefetch", str(package), *ARCH, "--allow-local-sources"]) == 0
    assert main(["outdated", str(package), *ARCH]) == 3
    assert "--allow-local-sources" in capsys.readouterr().err
    assert main(["outdated", str(package), *ARCH, "--allow-local-sources"]) == 0


def test_locked_run_with_all_archives_needs_no_option(package: Path) -> None:
    assert main(["prefetch", str(package), *ARCH, "--allow-local-sources"]) == 0
    assert main(["prefetch", str(package), *ARCH, "--locked"]) == 0
    next(package.glob("*.ociarchive")).unlink()
    assert main(["prefetch", str(package), *ARCH, "--locked"]) == 1


@pytest.mark.parametrize("command", ["check", "init --no-prefetch"])
def test_image_on_this_machine_is_a_warning(package: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    main([*command.split(), str(package), *ARCH])
    captured = capsys.readouterr()
    assert "comes from this machine" in captured.out + captured.err


def test_no_service_has_the_option() -> None:
    assert not any("local" in parameter for service in SERVICES.values() for parameter in service.parameters)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_login_is_reported(
    tmp_path: Path,
    registry: FaultRegistry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    auth: str,
) -> None:
    registry.push(IMAGE, "team/app:1")
    package = packages.write(tmp_path / "package", packages.section(registry.host, 'name="app" path="team" tag="1"'))
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {registry.host: {"auth": base64.b64encode(b"ann:secret").decode()}}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    assert main(["prefetch", str(package), *ARCH]) == 0
    assert "login" not in capsys.readouterr().err
    registry.auth, registry.users, registry.allows_anonymous = auth, {"ann": "secret"}, False
    assert main(["prefetch", str(package), *ARCH]) == 0
    assert f", with your login for {registry.host}\n" in capsys.readouterr().err
