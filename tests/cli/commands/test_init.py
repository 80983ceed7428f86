"""`init`: sets up a package from kiwi's documentation example, and what the commands do in it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from osc_containers.cli import installation, services
from osc_containers.cli.main import main
from osc_containers.obs import hints, service_editor, service_file
from tests.support import images, packages
from tests.support.docker_registry import DockerRegistry
from tests.support.kiwi_peer import Oracle, Selection
from tests.support.obs_build import dependencies, obs_builds

# The example in kiwi 10.3, doc/source/image_description/elements.rst, with the other elements that kiwi requires.
DOCUMENTED = """<?xml version="1.0" encoding="utf-8"?>
<!-- OBS-ExclusiveArch: x86_64 -->
<image schemaversion="8.0" name="appliance">
    <description type="system"><author>a</author><contact>c</contact><specification>s</specification></description>
    <preferences>
        <version>1.0.0</version>
        <packagemanager>zypper</packagemanager>
        <type image="tbz"/>
    </preferences>
    <repository type="rpm-md"><source path="obsrepositories:/"/></repository>
    <containers source="REGISTRY" backend="podman">
        <container name="some"/>
    </containers>

    <containers source="REGISTRY" backend="container-snap">
        <container name="opensuse/bootable" tag="slowroll"/>
    </containers>
    <packages type="image"><package name="podman"/><package name="container-snap"/></packages>
    <packages type="bootstrap"><package name="filesystem"/></packages>
</image>
"""


@pytest.fixture
def package(docker_registry: DockerRegistry, tmp_path: Path) -> Path:
    """Return a package with kiwi's example; the registry has its images."""
    for name in ("some:latest", "opensuse/bootable:slowroll"):
        docker_registry.push(images.small(name.partition(":")[0].replace("/", "-")), name)
    directory = tmp_path / "package"
    directory.mkdir()
    (directory / "appliance.kiwi").write_text(DOCUMENTED.replace("REGISTRY", docker_registry.host))
    return directory


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in directory.iterdir() if path.is_file()}


@pytest.mark.integration
def test_init_turns_kiwis_example_into_a_valid_package(
    package: Path, docker_registry: DockerRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / ".osc/sources").mkdir(parents=True)
    (package / ".osc/sources/appliance.kiwi").touch()
    assert main(["init", str(package)]) == 0
    flat = docker_registry.host.replace(":", "_")
    archives = [f"{flat}_opensuse_bootable_slowroll.x86_64.ociarchive", f"{flat}_some_latest.x86_64.ociarchive"]
    assert sorted(contents(package)) == sorted(
        [*archives, "_service", "appliance.kiwi", "containers.lock", "containers.xml"]
    )
    output = capsys.readouterr()
    assert output.out == ("Now commit:\n  osc add _service containers.lock containers.xml *.ociarchive\n  osc commit\n")
    assert "osc-containers: _service: created\n" in output.err
    assert main(["verify", str(package)]) == 0
    assert capsys.readouterr().out == "2 images verified: all match containers.lock and the description\n"
    (package / ".osc/_to_be_added").write_text("\n".join(contents(package)))
    assert main(["check", "--strict", "--format", "json", str(package)]) == 0
    infos = [each["severity"] for each in json.loads(capsys.readouterr().out)]
    assert set(infos) == {"info"}  # a slash in a name, and no coreutils in the package list


@pytest.mark.integration
def test_second_init_changes_and_requests_nothing(
    package: Path, docker_registry: DockerRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(package)]) == 0
    before, count = contents(package), len(docker_registry.requests())
    capsys.readouterr()
    assert main(["init", str(package)]) == 0
    assert capsys.readouterr().out == "Nothing to do: the package is set up.\n"
    assert contents(package) == before
    assert len(docker_registry.requests()) == count


@pytest.mark.integration
def test_init_hides_containers_from_obs_build_only(package: Path, oracle: Oracle) -> None:
    path = package / "appliance.kiwi"
    selections = [Selection("x86_64", ())]
    before = oracle.ask(path, selections)
    assert main(["init", "--no-prefetch", str(package)]) == 0
    assert oracle.ask(path, selections) == before
    assert len(before["answers"][0]["containers"]) == 2
    for obs_build in obs_builds():
        assert [name for name in dependencies(obs_build, path) if name.startswith("container:")] == []


def test_bundle_beside_a_description_that_is_not_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = CONTAINERS.replace("<containers", "<containers arch='aarch64'")
    (tmp_path / "c.xml").write_text(f"<image>{section}</image>")
    for name in ("a.kiwi", "b.kiwi"):
        (tmp_path / name).write_text("<image><include from='c.xml'/></image>")
    for options in (["--inject", "source", "--description", "a.kiwi"], []):
        assert main(["init", "--arch", "x86_64", *options, str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("Nothing to do: the package is set up.\n")
    assert main(["check", str(tmp_path)]) == 0


@pytest.mark.parametrize("options", [[], ["--inject", "source"]])
def test_init_without_containers_for_the_architecture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    section = CONTAINERS.replace("<containers", "<containers arch='aarch64'")
    (tmp_path / "a.kiwi").write_text(f"<image>{section}</image>")
    assert main(["init", "--arch", "x86_64", *options, str(tmp_path)]) == 0
    assert "nothing to do: no <containers> for these architectures and profiles" in capsys.readouterr().err
    for command, output in (
        ("init", "Nothing to do: the package is set up.\n"),
        ("verify", "0 images verified: all match containers.lock and the description\n"),
        ("check", "no problems found\n"),
    ):
        assert main([command, str(tmp_path)]) == 0
        assert capsys.readouterr().out == output


@pytest.mark.integration
def test_init_prefetches_for_the_service_parameters(package: Path, docker_registry: DockerRegistry) -> None:
    docker_registry.push(images.multi_platform("some"), "some:latest")
    docker_registry.push(images.multi_platform("bootable"), "opensuse/bootable:slowroll")
    assert main(["init", "--arch", "aarch64", "--arch", "x86_64", str(package)]) == 0
    assert (package / "_service").read_text().count("<param") == 2
    assert len(list(package.glob("*.aarch64.ociarchive"))) == 2
    for path in package.glob("*.ociarchive"):
        path.unlink()
    assert main(["init", str(package)]) == 0
    assert len(list(package.glob("*.ociarchive"))) == 4


@pytest.mark.integration
def test_failed_prefetch_leaves_the_package_set_up(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = package / "appliance.kiwi"
    path.write_text(path.read_text().replace("slowroll", "gone"))
    assert main(["init", str(package)]) == 1
    assert "run 'osc-containers prefetch' again" in capsys.readouterr().err
    assert sorted(contents(package)) == ["_service", "appliance.kiwi", "containers.xml"]


@pytest.mark.integration
def test_prefetch_after_a_failed_init_gives_the_same_error(
    package: Path, docker_registry: DockerRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    path = package / "appliance.kiwi"
    path.write_text(path.read_text().replace("slowroll", "gone"))
    assert main(["init", "--inject", "source", str(package)]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    before = contents(package)
    assert main(["prefetch", str(package)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == message
    assert contents(package) == before
    docker_registry.push(images.small("gone"), "opensuse/bootable:gone")
    assert main(["prefetch", str(package)]) == 0
    assert main(["check", "--strict", str(package)]) == 0


CONTAINERS = "<containers source='a.b' backend='docker'><container name='x'/></containers>"


@pytest.mark.parametrize(
    ("options", "files", "expected"),
    [
        (
            ["--inject", "source"],
            {"a.kiwi": "<image><users/></image>"},
            "a.kiwi: no <containers>, so there is nothing to prefetch",
        ),
        ([], {"a.kiwi": "<image><users/></image>"}, "a.kiwi: no <containers>, so there is nothing to prefetch"),
        (
            [],
            dict.fromkeys(("a.kiwi", "b.kiwi"), f"<image>{CONTAINERS}</image>"),
            "a.kiwi, b.kiwi: several descriptions have <containers>; name the one that OBS builds",
        ),
        (
            ["--inject", "source", "--arch", "x86_64"],
            {
                "a.kiwi": f"<image>{CONTAINERS}\n<include from='x.xml'/></image>",
                "x.xml": f"<image>{CONTAINERS}<packages/></image>",
            },
            "a.kiwi:2: x.xml also has 'packages'; put <containers> into a separate file",
        ),
        (
            ["--inject", "source", "--arch", "x86_64"],
            {
                "a.kiwi": f"<image>{CONTAINERS}\n<include from='x.xml'/></image>",
                "x.xml": f"<image>{CONTAINERS}</image>",
            },
            "a.kiwi: <containers> are in containers.xml, x.xml, but kiwi_containers.obscpio is for those of one file",
        ),
        (
            ["--inject", "source", "--arch", "x86_64"],
            {"a.kiwi": "<image><include from='x/y.xml'/></image>", "x/y.xml": f"<image>{CONTAINERS}</image>"},
            "a.kiwi:1: x/y.xml is in a subdirectory, where the service does not look; put <containers> into",
        ),
    ],
)
def test_init_refuses_before_changing_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], files: dict[str, str], expected: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert main(["init", "--no-prefetch", *options, str(tmp_path)]) == 1
    assert expected in capsys.readouterr().err
    paths = (path for path in tmp_path.rglob("*") if path.is_file())
    assert {str(path.relative_to(tmp_path)): path.read_text() for path in paths} == files


PREFETCH = '<service name="kiwi_containers" mode="manual"/>'
INJECT = '<service name="kiwi_containers_inject" mode="buildtime"/>'
BUNDLE = PREFETCH.replace("/>", "><param name='inject'>source</param></service>")


@pytest.mark.parametrize(
    ("options", "entries", "expected"),
    [
        ([], (PREFETCH, INJECT.replace("buildtime", "manual")), "_service:3: kiwi_containers_inject only works in"),
        ([], (PREFETCH.replace("manual", "buildtime"),), "_service:2: kiwi_containers needs a network, and the build"),
        (
            [],
            (PREFETCH.replace("manual", "trylocal"),),
            "_service:2: kiwi_containers with mode 'trylocal' runs on the OBS",
        ),
        ([], (BUNDLE.replace("manual", ""),), "_service:2: kiwi_containers without a mode runs on the OBS"),
        (
            [],
            (PREFETCH.replace("/>", "><param name='arch'>amd65</param></service>"),),
            "_service:2: kiwi_containers: unknown architecture 'amd65'",
        ),
        (["--arch=s390x"], (PREFETCH, INJECT), "_service:2: kiwi_containers has no arch, got s390x; change it"),
        (
            ["--arch=s390x,x86_64"],
            (BUNDLE.replace("<param", "<param name='arch'>x86_64</param><param"),),
            "_service:2: kiwi_containers has arch x86_64, got s390x, x86_64; change it there",
        ),
        (
            ["--description=a.kiwi"],
            (PREFETCH, INJECT.replace("/>", "><param name='description'>b.kiwi</param></service>")),
            "_service:3: kiwi_containers_inject has description b.kiwi, got a.kiwi; change it there",
        ),
        (
            ["--inject=source"],
            (PREFETCH, INJECT),
            "_service:2: kiwi_containers uses inject=buildtime; remove this entry",
        ),
        (["--inject=buildtime"], (BUNDLE,), "_service:2: kiwi_containers uses inject=source; remove this entry, and"),
        (
            [],
            (BUNDLE, INJECT),
            "_service:3: kiwi_containers_inject does not work with inject=source; remove this entry",
        ),
        (
            [],
            (BUNDLE, "<!-- b.kiwi -->"),
            "a.kiwi:1: kiwi would pull these containers without a network; they are already in",
        ),
    ],
)
def test_init_refuses_conflicting_service_entries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], entries: tuple[str, ...], expected: str
) -> None:
    image = "<image><containers source='a.b' backend='docker'><container name='x'/></containers></image>"
    services = "\n".join(("<services>", *entries, "</services>"))
    files = {"a.kiwi": image, "b.kiwi": "<image/>", "_service": services}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    if "b.kiwi" in services:
        (tmp_path / "b.kiwi").write_text(image)
    before = contents(tmp_path)
    assert main(["init", "--no-prefetch", *options, str(tmp_path)]) == 1
    assert expected in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_init_prints_git_commands_in_a_git_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "sub dir").mkdir()
    path = tmp_path / "sub dir" / "a b.kiwi"
    path.write_text("<image><include from='x.xml'/></image>")
    path.with_name("x.xml").write_text(f"<image>{CONTAINERS}</image>")
    for _ in range(2):
        assert main(["init", "--no-prefetch", str(path.parent)]) == 0
        assert capsys.readouterr().out == (
            "Now fetch and commit:\n  osc-containers prefetch\n  git add .\n  git commit\n"
        )
    assert hints.commit(path.parent, ["_service"]) == ("git add _service", "git commit")


def test_names_may_contain_spaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = '<profiles><profile name="My Profile" description="d"/></profiles>'
    containers = CONTAINERS.replace("<containers", "<containers profiles='My Profile'")
    (tmp_path / "my app.kiwi").write_text(f"<image>{profile}<include from='containers.xml'/></image>")
    (tmp_path / "containers.xml").write_text(f"<image>{containers}</image>")
    assert main(["init", "--no-prefetch", "--description", "my app.kiwi", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Now fetch:\n  osc-containers prefetch\n"
    options = ["--description", "my app.kiwi", "--arch", "x86_64"]
    for command in (
        ["verify", *options],
        ["prefetch", "--locked", *options],
        ["inject", "--root", str(tmp_path), *options],
    ):
        assert main([*command, "--profile", "My Profile", str(tmp_path)]) == 1
        assert capsys.readouterr().err.startswith(
            ("osc-containers: error: containers.lock: missing", "osc-containers: error: containers.lock: not there")
        )
    assert main(["list", "--format", "json", "--arch", "x86_64", "--profile", "My Profile", str(tmp_path)]) == 0
    assert '"a.b/x:latest"' in capsys.readouterr().out
    assert main(["check", "--format", "json", str(tmp_path)]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert [(finding["check"], finding["file"]) for finding in findings] == [
        ("lock", "containers.lock"),
        *[("package", "containers.xml")] * 2,
    ]


@pytest.mark.integration
def test_init_with_inject_source(
    package: Path, docker_registry: DockerRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--inject", "source", "--arch", "x86_64", str(package)]) == 0
    after = contents(package)
    assert sorted(after) == [
        "_service",
        "appliance.kiwi",
        "containers.lock",
        "containers.xml",
        "kiwi_containers.obscpio",
    ]
    start, end = DOCUMENTED.index("    <containers"), DOCUMENTED.index("    <packages")
    assert (package / "appliance.kiwi").read_text() == DOCUMENTED[:start] + "\n" + DOCUMENTED[end:]
    assert (package / "_service").read_text() == (
        '<services>\n  <service name="kiwi_containers" mode="manual">\n'
        '    <param name="description">containers.xml</param>\n    <param name="arch">x86_64</param>\n'
        '    <param name="inject">source</param>\n  </service>\n</services>\n'
    )
    assert main(["verify", "--description", "containers.xml", str(package)]) == 0
    count = len(docker_registry.requests())
    root = package.parent / "root"
    root.mkdir()
    assert main(["inject", "--root", str(root), "--arch", "x86_64", str(package)]) == 0
    assert len(list((root / "var/lib/kiwi_containers/layouts").iterdir())) == 2
    for options in (["--inject", "source"], [], ["--arch", "x86_64"]):
        capsys.readouterr()
        assert main(["init", *options, str(package)]) == 0
        assert contents(package) == after
        assert len(docker_registry.requests()) == count
        assert capsys.readouterr().out == "Nothing to do: the package is set up.\n"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "count"), [(["--arch", "aarch64", "--arch", "x86_64"], 4), (["--inject", "source"], 2)]
)
def test_prefetch_command_uses_the_service_parameters(
    package: Path, docker_registry: DockerRegistry, capsys: pytest.CaptureFixture[str], options: list[str], count: int
) -> None:
    docker_registry.push(images.multi_platform("some"), "some:latest")
    docker_registry.push(images.multi_platform("bootable"), "opensuse/bootable:slowroll")
    assert main(["init", *options, str(package)]) == 0
    before = contents(package)
    capsys.readouterr()
    assert main(["prefetch", str(package)]) == 0
    assert ": unchanged, " in capsys.readouterr().err
    assert contents(package) == before
    assert main(["list", "--format", "json", str(package)]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert main(["outdated", str(package)]) == 0
    assert capsys.readouterr().out == f"All {count} images are up to date\n"
    assert main(["verify", str(package)]) == 0
    text = (package / "containers.xml").read_text()
    (package / "containers.xml").write_text(text.replace('tag="slowroll"', 'tag="another"'))
    assert main(["verify", str(package)]) == 1
    docker_registry.push(images.small("moved"), "some:latest")
    (package / "containers.xml").write_text(text)
    assert main(["outdated", "--arch", "x86_64", str(package)]) == 1


@pytest.mark.integration
def test_prefetch_command_is_locked_if_the_service_is(package: Path, docker_registry: DockerRegistry) -> None:
    assert main(["init", str(package)]) == 0
    before = contents(package)
    service = package / "_service"
    service.write_text(service.read_text().replace('"manual"/>', '"manual"><param name="locked">yes</param></service>'))
    docker_registry.push(images.small("moved"), "some:latest")
    assert main(["prefetch", str(package)]) == 0
    assert {**contents(package), "_service": before["_service"]} == before
    for path in package.glob("*.ociarchive"):
        path.unlink()
    assert main(["init", str(package)]) == 0
    assert {name: text for name, (_, text) in contents(package).items() if name != "_service"} == {
        name: text for name, (_, text) in before.items() if name != "_service"
    }
    assert main(["prefetch", "--no-locked", str(package)]) == 0
    assert contents(package)["containers.lock"] != before["containers.lock"]


def test_prefetch_refuses_partly_locked_entries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.kiwi").write_text(f"<image>{CONTAINERS}</image>")
    entry = '<service name="kiwi_containers" mode="manual"><param name="description">%s.kiwi</param>%s</service>\n'
    entries = entry % ("a", '<param name="locked">yes</param>') + entry % ("b", "")
    (tmp_path / "_service").write_text(f"<services>\n{entries}</services>")
    assert main(["prefetch", str(tmp_path)]) == 1
    assert "_service:2: kiwi_containers is locked, but not in its other entries; run" in capsys.readouterr().err
    assert main(["prefetch", "--description", "a.kiwi", str(tmp_path)]) == 1
    assert "containers.lock: not there, but this run is locked" in capsys.readouterr().err


@pytest.mark.integration
def test_service_entries_do_not_undo_each_other(
    package: Path, docker_registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker_registry.push(images.multi_platform("some"), "some:latest")
    docker_registry.push(images.multi_platform("bootable"), "opensuse/bootable:slowroll")
    assert main(["init", "--no-prefetch", "--arch", "x86_64", str(package)]) == 0
    service = package / "_service"
    entry = '  <service name="kiwi_containers" mode="manual"><param name="arch">aarch64</param></service>\n'
    service.write_text(service.read_text().replace("</services>", entry + "</services>"))
    monkeypatch.chdir(package)
    for arch in ("x86_64", "aarch64", "x86_64"):
        assert services.prefetch(["--arch", arch, "--outdir", "."]) == 0
    assert len(list(package.glob("*.ociarchive"))) == 4
    assert main(["verify"]) == 0
    assert main(["check", "--strict"]) == 0
    before = contents(package)
    assert main(["prefetch"]) == 0
    assert contents(package) == before


@pytest.mark.integration
def test_entries_with_and_without_architecture_coexist(
    package: Path, docker_registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osc_containers.oci.platform.of_this_machine", lambda: "x86_64")
    docker_registry.push(images.multi_platform("some"), "some:latest")
    image = DOCUMENTED.replace("REGISTRY", docker_registry.host).replace("OBS-ExclusiveArch", "For")
    (package / "appliance.kiwi").write_text(image)
    (package / "b.kiwi").write_text(image.partition("<containers")[0] + '<include from="b.xml"/></image>')
    section = f"<containers source='{docker_registry.host}' backend='podman'><container name='some'/></containers>"
    (package / "b.xml").write_text(f"<image>{section}</image>")
    assert main(["init", "--no-prefetch", "--description", "appliance.kiwi", str(package)]) == 0
    service = package / "_service"
    of_b = [("description", "b.kiwi"), ("arch", "aarch64")]
    entry = service_file.Entry(name="kiwi_containers", mode="manual", parameters=tuple(of_b))
    service.write_bytes(service_editor.append(service.read_bytes(), [entry]))
    monkeypatch.chdir(package)
    for _ in range(2):
        assert services.prefetch(["--description", "appliance.kiwi", "--outdir", "."]) == 0
        assert services.prefetch(["--description", "b.kiwi", "--arch", "aarch64", "--outdir", "."]) == 0
        assert sorted(path.suffixes[-2] for path in package.glob("*.ociarchive")) == [".aarch64", ".x86_64", ".x86_64"]
    before = contents(package)
    assert services.inject(["--description", "appliance.kiwi", "--outdir", "."]) == 0
    for command in ("verify", "outdated", "prefetch"):
        assert main([command]) == 0
    assert contents(package) == before


@pytest.mark.integration
def test_verify_reports_references_no_longer_requested(
    package: Path, docker_registry: DockerRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(package)]) == 0
    path = package / "containers.xml"
    text = path.read_text()
    path.write_text(text.replace('"some"', '"opensuse/bootable" tag="slowroll"'))
    capsys.readouterr()
    assert main(["verify", str(package)]) == 1
    message = f"containers.lock: {docker_registry.host}/some:latest is locked, but no description requests it; run the "
    assert message in capsys.readouterr().err
    path.write_text(text)
    assert main(["verify", str(package)]) == 0


@pytest.mark.integration
def test_images_of_other_descriptions_are_not_unused(
    package: Path, docker_registry: DockerRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "other.kiwi").write_text(
        f"<image><containers source='{docker_registry.host}' backend='podman'><container name='some' tag='2'/>"
        "</containers></image>"
    )
    docker_registry.push(images.small("some"), "some:2")
    assert main(["prefetch", str(package)]) == 0
    capsys.readouterr()
    for name, count in (("other.kiwi", "3"), ("appliance.kiwi", "3")):
        assert main(["verify", "--description", name, str(package)]) == 0
        assert capsys.readouterr().out.startswith(f"{count} images verified")
        main(["check", "--format", "json", "--description", name, str(package)])
        assert "lock" not in [finding["check"] for finding in json.loads(capsys.readouterr().out)]
    assert main(["init", "--description", "appliance.kiwi", str(package)]) == 0
    assert main(["verify", str(package)]) == 1
    assert main(["prefetch", str(package)]) == 0
    assert main(["verify", str(package)]) == 0


def write_minimal(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Write a package that `init` can set up, and return its contents."""
    (directory / "a.kiwi").write_text(f"<image>{CONTAINERS}</image>")
    return contents(directory)


@pytest.mark.parametrize("inject", ["buildtime", "source"])
def test_mode_disabled_is_written_and_named_in_hints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inject: str
) -> None:
    write_minimal(tmp_path)
    (tmp_path / ".osc").mkdir()
    (tmp_path / ".osc/_package").write_text("appliance\n")
    options = ["--no-prefetch", "--arch", "x86_64", "--inject", inject, str(tmp_path)]
    assert main(["init", "--mode", "disabled", *options]) == 0
    entry = service_file.read_entries(tmp_path)[0]
    assert (entry.name, entry.mode) == ("kiwi_containers", "disabled")
    before = contents(tmp_path)
    assert main(["init", "--mode", "manual", *options]) == 1
    assert "kiwi_containers has the mode 'disabled', got manual; change it there" in capsys.readouterr().err
    assert main(["init", *options]) == 0
    assert contents(tmp_path) == before
    capsys.readouterr()
    main(["check", str(tmp_path)])
    main(["verify", str(tmp_path)])
    captured = capsys.readouterr()
    assert "> osc service disabledrun" in captured.out
    assert "run 'osc service disabledrun', and commit" in captured.err
    assert "manualrun" not in captured.out + captured.err


def test_init_refuses_the_working_copy_of_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = write_minimal(tmp_path)
    (tmp_path / ".osc").mkdir()
    (tmp_path / ".osc/_project").write_text("home:ann\n")
    assert main(["init", str(tmp_path)]) == 1
    assert "is the working copy of a project, expected that of a package" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_init_without_a_library_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_minimal(tmp_path)
    monkeypatch.setattr(installation, "find_spec", lambda name: None if name == "requests" else name)
    assert main(["init", str(tmp_path)]) == 1
    assert "the prefetch needs requests; install python3-requests, or use --no-prefetch" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert main(["init", "--no-prefetch", str(tmp_path)]) == 0


def test_only_the_named_description_is_split(tmp_path: Path) -> None:
    other = f"<image>{CONTAINERS.replace('x', 'other')}</image>"
    (tmp_path / "app.kiwi").write_text(f"<image>{CONTAINERS}</image>")
    (tmp_path / "other.kiwi").write_text(other)
    assert main(["init", "--no-prefetch", "--description", "app.kiwi", str(tmp_path)]) == 0
    assert (tmp_path / "other.kiwi").read_text() == other
    assert "<include" in (tmp_path / "app.kiwi").read_text()
    assert sorted(contents(tmp_path)) == ["_service", "app.kiwi", "containers.xml", "other.kiwi"]


@pytest.mark.parametrize("system", ["git", "osc"])
def test_everything_that_is_not_committed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], system: str
) -> None:
    """After a first run that failed, the second one changes only lock and archive."""
    (tmp_path / "a.kiwi").write_text(f"<image>{CONTAINERS.replace('a.b', 'oci:images')}</image>")
    if system == "osc":
        (tmp_path / ".osc/sources").mkdir(parents=True)
        shutil.copy(tmp_path / "a.kiwi", tmp_path / ".osc/sources")
    else:
        user = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        for command in (["init", "-q"], ["add", "a.kiwi"], [*user, "commit", "-qm", "x"]):
            subprocess.run(["git", "-C", tmp_path, *command], check=True)
    assert main(["init", "--arch", "x86_64", str(tmp_path)]) == 1
    images.write_layout(images.small("x"), tmp_path / "images/x", "latest")
    capsys.readouterr()
    assert main(["init", "--arch", "x86_64", str(tmp_path)]) == 0
    edited = "a.kiwi " if system == "git" else ""
    archive = "localhost_x_latest.x86_64.ociarchive"
    assert capsys.readouterr().out == (
        f"Now commit:\n  {system} add _service {edited}containers.lock containers.xml {archive}\n  {system} commit\n"
    )
    assert main(["init", "--arch", "x86_64", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("Now commit:\n")


@pytest.mark.integration
def test_init_sets_the_layout_up(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--layout", "blobs", str(package)]) == 0
    assert '<param name="layout">blobs</param>' in (package / "_service").read_text()
    assert list(package.glob("*.blob"))
    assert not list(package.glob("*.ociarchive"))
    assert main(["verify", str(package)]) == 0
    before = contents(package)
    assert main(["prefetch", str(package)]) == 0
    assert contents(package) == before
    capsys.readouterr()
    assert main(["init", "--layout", "archives", str(package)]) == 1
    assert "kiwi_containers has the layout blobs, got archives; change it there" in capsys.readouterr().err
    assert contents(package) == before


def test_a_bundle_has_no_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.kiwi").write_text(f"<image>{CONTAINERS}</image>")
    for command in ("init", "prefetch"):
        assert main([command, "--layout", "blobs", "--inject", "source", "--arch", "x86_64", str(tmp_path)]) == 1
        assert "layout=blobs needs inject=buildtime" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.kiwi"]


def test_init_follows_the_policy_of_the_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = packages.write(tmp_path / "package", packages.section("oci:images", 'name="app" tag="1"'))
    images.write_layout(images.small("app"), package / "images/app", "1")
    (package / "policy.json").write_text('{"default": [{"type": "reject"}]}')
    (package / "_service").write_text(
        '<services><service name="kiwi_containers" mode="manual"><param name="arch">x86_64</param>'
        '<param name="policy">policy.json</param></service>'
        '<service name="kiwi_containers_inject" mode="buildtime"/></services>\n'
    )
    assert main(["init", str(package)]) == 1
    assert "policy.json rejects it" in capsys.readouterr().err
    assert not (package / "containers.lock").exists()
