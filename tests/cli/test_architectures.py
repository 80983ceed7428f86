"""Architectures: what a profile excludes is not wanted, and every name of an architecture selects the same."""

import json
from pathlib import Path

import pytest

from osc_containers.cli import services
from osc_containers.cli.main import main
from tests.support import images

KIWI = """<!-- OBS-ExclusiveArch: x86_64 aarch64 -->
<image schemaversion="8.0" name="appliance">
  <profiles>
    <profile name="Pi" description="d" arch="aarch64"/>
    <profile name="PiDesktop" description="d"><requires profile="Pi"/></profile>
    <profile name="Server" description="d"/>
  </profiles>
  <include from="this://./containers.xml"/>
</image>
"""
CONTAINERS = """<image schemaversion="8.0" name="containers">
  <containers source="oci:images" backend="podman"><container name="both" tag="1"/></containers>
  <containers source="oci:images" backend="podman" profiles="Pi"><container name="pi" tag="1"/></containers>
  <containers source="oci:images" backend="podman" profiles="PiDesktop"><container name="desk" tag="1"/></containers>
  <containers source="oci:images" backend="podman" arch="x86_64"><container name="pc" tag="1"/></containers>
</image>
"""
WANTED = {"x86_64": {"both", "pc"}, "aarch64": {"both", "pi", "desk"}}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Give a package for two architectures, with images that exist for one of them only."""
    directory = tmp_path / "package"
    (directory / "images").mkdir(parents=True)
    images.write_layout(images.multi_platform("both"), directory / "images/both", "1")
    images.write_layout(images.small("pc"), directory / "images/pc", "1")
    for name in ("pi", "desk"):
        images.write_layout(images.small(name, platform=images.ARM64), directory / "images" / name, "1")
    (directory / "appliance.kiwi").write_text(KIWI)
    (directory / "containers.xml").write_text(CONTAINERS)
    return directory


def archives(directory: Path) -> set[str]:
    return {path.name.removeprefix("localhost_") for path in directory.glob("*.ociarchive")}


@pytest.mark.parametrize("command", ["init", "prefetch"])
def test_what_a_profile_excludes_is_not_wanted(package: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, str(package)]) == 0
    expected = {f"{name}_1.{arch}.ociarchive" for arch, names in WANTED.items() for name in names}
    assert archives(package) == expected
    capsys.readouterr()
    assert main(["outdated", str(package)]) == 0
    assert capsys.readouterr().out == "All 5 images are up to date\n"
    assert main(["verify", str(package)]) == 0
    assert capsys.readouterr().out.startswith("5 images verified")
    main(["check", "--format", "json", str(package)])
    assert {each["check"] for each in json.loads(capsys.readouterr().out)} <= {"package", "plain-kiwi", "service"}
    for arch, names in WANTED.items():
        main(["list", "--format", "json", "--arch", arch, "--profile", "Server", str(package)])
        listed = {each["reference"].split("/")[1].split(":")[0] for each in json.loads(capsys.readouterr().out)}
        assert listed == names - {"pi", "desk"}
        for name in WANTED["aarch64"] - WANTED["x86_64"]:
            assert (package / f"localhost_{name}_1.x86_64.ociarchive").exists() is False


def test_a_profile_is_used_where_kiwi_takes_it(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`_service` lists the profiles of all builds, and each architecture has some of them."""
    params = "".join(f'<param name="profile">{name}</param>' for name in ("Pi", "PiDesktop", "Server"))
    (package / "_service").write_text(
        f'<services><service name="kiwi_containers" mode="manual">{params}</service>'
        '<service name="kiwi_containers_inject" mode="buildtime"/></services>'
    )
    assert main(["prefetch", str(package)]) == 0
    assert len(archives(package)) == 5
    assert main(["prefetch", "--arch", "x86_64", "--profile", "Pi", str(package)]) == 1
    assert "profile 'Pi' is not declared for x86_64" in capsys.readouterr().err
    assert main(["list", str(package)]) == 0


def test_a_misspelled_profile_is_a_warning(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / "containers.xml").write_text(CONTAINERS.replace('profiles="Pi"', 'profiles="P1,Pj"'))
    assert main(["prefetch", str(package)]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warnings == [
        "osc-containers: warning: containers.xml:3: not fetched, because no profile of its section is declared"
    ]
    assert len(archives(package)) == 4


def test_a_bundle_has_what_the_profiles_of_its_description_allow(package: Path) -> None:
    (package / "appliance.kiwi").write_text(KIWI.replace(" aarch64", ""))
    assert main(["init", "--inject", "source", str(package)]) == 0
    assert set(json.loads((package / "containers.lock").read_text())["containers"]) == {
        "localhost/both:1",
        "localhost/pc:1",
    }


@pytest.mark.parametrize("own", ["x86_64", "amd64"])
@pytest.mark.parametrize("asked", ["x86_64", "amd64"])
def test_every_name_of_an_architecture_selects_the_same(
    package: Path, capsys: pytest.CaptureFixture[str], own: str, asked: str
) -> None:
    assert main(["prefetch", "--arch", own, str(package)]) == 0
    assert archives(package) == {"both_1.x86_64.ociarchive", "pc_1.x86_64.ociarchive"}
    assert main(["verify", "--arch", asked, str(package)]) == 0
    assert main(["outdated", "--arch", asked, str(package)]) == 0
    damaged = package / "localhost_both_1.x86_64.ociarchive"
    damaged.write_bytes(damaged.read_bytes()[:-2000] + bytes([1]) * 2000)
    capsys.readouterr()
    assert main(["verify", "--arch", asked, str(package)]) != 0
    assert "localhost_both_1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arch", "overlays"),
    [
        ("x86_64:i686:i586", {"root"}),
        ("amd64", {"root"}),
        ("aarch64", {"root", "Pi", "PiDesktop"}),
        ("arm64", {"root", "Pi", "PiDesktop"}),
    ],
)
def test_a_build_gets_its_containers_by_any_name(
    package: Path, monkeypatch: pytest.MonkeyPatch, arch: str, overlays: set[str]
) -> None:
    """As obs-build names the architecture of a build; a build for aarch64 also gets those of the profile Pi."""
    assert main(["prefetch", str(package)]) == 0
    (package / "buildenv").touch()
    monkeypatch.setattr("osc_containers.obs.build_root._ENVIRONMENT", package / "buildenv")
    monkeypatch.setenv("BUILD_ARCH", arch)
    monkeypatch.chdir(package)
    assert services.inject(["--outdir", "."]) == 0
    assert "<containers" not in (package / "containers.xml").read_text()
    assert {name for name in ("root", "Pi", "PiDesktop") if (package / name).exists()} == overlays


@pytest.mark.parametrize("command", ["verify", "outdated"])
@pytest.mark.parametrize("options", [["--arch", "s390x"], ["--arch", "aarch64,s390x"], ["--description", "b.kiwi"]])
def test_checking_nothing_is_an_error(
    package: Path, capsys: pytest.CaptureFixture[str], command: str, options: list[str]
) -> None:
    (package / "containers.xml").write_text(CONTAINERS.replace("<containers ", '<containers arch="aarch64" ', 3))
    (package / "b.kiwi").write_text("<image><users/></image>")
    assert main(["prefetch", str(package)]) == 0
    assert main([command, str(package)]) == 0
    capsys.readouterr()
    assert main([command, *options, str(package)]) != 0
    assert (
        f"no <containers> are for {options[1].rpartition(',')[2]}, so there is nothing to check"
        in capsys.readouterr().err
    )


def test_init_writes_the_canonical_name(package: Path) -> None:
    for _ in range(2):
        assert main(["init", "--arch", "arm64,amd64", str(package)]) == 0
    text = (package / "_service").read_text()
    assert text.count("<param") == text.count('<param name="arch">aarch64') + text.count('<param name="arch">x86_64')
