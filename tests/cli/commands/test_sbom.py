"""`sbom`: which files it writes; what is in them is tested with the formats."""

from pathlib import Path

import pytest

from osc_containers.cli.main import main
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import APP, run_prefetch, want

KIWI = """<image schemaversion="8.0" name="a">
  <profiles><profile name="A" description="a"/><profile name="B" description="b"/></profiles>
  <containers source="registry.example.com" backend="podman">
    <container name="app" path="team" tag="1.0"/>
  </containers>
</image>
"""


@pytest.mark.parametrize(
    ("entries", "names", "message"),
    [
        (
            ['<param name="arch">x86_64</param>', '<param name="arch">aarch64</param>'],
            ["a.aarch64-", "a.x86_64-"],
            "one --arch and one --format",
        ),
        (
            [f'<param name="arch">x86_64</param><param name="profile">{each}</param>' for each in ("A", "B")],
            ["a.x86_64--A", "a.x86_64--B"],
            "one --arch, one --profile and one --format",
        ),
    ],
)
def test_each_entry_of_the_service_counts(
    tmp_path: Path, entries: list[str], names: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    run_prefetch(
        FakeSource({APP: images.multi_platform("app")}), package, *want(APP, architectures=("x86_64", "aarch64"))
    )
    (package / "a.kiwi").write_text(KIWI)
    services = [f'<service name="kiwi_containers" mode="manual">{each}</service>' for each in entries]
    (package / "_service").write_text(f"<services>{''.join(services)}</services>")
    assert main(["sbom", "--format", "spdx", "--output", str(tmp_path / "out"), str(package)]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{name}.containers.spdx.json" for name in names
    ]
    assert main(["sbom", str(package)]) == 1
    assert f"got 2 SBOMs to print; choose {message}, or use --output" in capsys.readouterr().err
