"""The number of parallel downloads: a parameter of the service, and an option."""

from pathlib import Path

import pytest

from osc_containers.cli import services
from osc_containers.cli.main import main
from osc_containers.prefetch import prefetch
from osc_containers.sources.interface import FetchContext
from tests.support import images, packages


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a package whose only image is in it, with a limit in `_service`."""
    package = packages.write(tmp_path / "package", packages.section("oci:images", 'name="app" tag="1"'))
    images.write_layout(images.small("app"), package / "images/app", "1")
    (package / "_service").write_text(
        '<services><service name="kiwi_containers" mode="manual"><param name="arch">x86_64</param>'
        '<param name="connections">3</param></service></services>'
    )
    return package


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Return a list to which each prefetch adds its number of connections."""
    found: list[int | None] = []

    def record(package: object, requests: object, context: FetchContext, **_: object) -> None:
        found.append(context.connections)

    monkeypatch.setattr(prefetch, "prefetch", record)
    return found


def test_commands_follow_the_service(package: Path, numbers: list[int | None]) -> None:
    assert main(["prefetch", str(package)]) == 0
    assert main(["prefetch", str(package), "--connections", "5"]) == 0
    assert main(["init", str(package)]) == 0
    assert numbers == [3, 5, 3]


@pytest.mark.parametrize(("value", "expected"), [(" 7\n", 7), ("0", None), ("", None)])
def test_service_limits_its_connections(
    package: Path, numbers: list[int | None], monkeypatch: pytest.MonkeyPatch, value: str, expected: int | None
) -> None:
    monkeypatch.chdir(package)
    assert services.prefetch(["--outdir", str(package), "--arch", "x86_64", "--connections", value]) == 0
    assert numbers == [expected]


def test_service_refuses_other_numbers(
    package: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(package)
    assert services.prefetch(["--outdir", str(package), "--connections", "65"]) == 2
    assert "argument --connections: got '65', expected a number from 1 to 64" in capsys.readouterr().err
