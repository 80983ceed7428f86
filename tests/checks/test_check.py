"""`check`: a package for each finding, and a clean package without any."""

import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from osc_containers.archive.layout import layout_of
from osc_containers.checks import context
from osc_containers.cli.main import main
from osc_containers.formats import cpio
from osc_containers.fs.ranges import FileSlice
from osc_containers.inject import bundle
from osc_containers.lock import archive_names, lockfile
from osc_containers.obs import selection
from osc_containers.obs.package import Package
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference
from tests.support import images
from tests.support.docker_registry import DockerRegistry
from tests.support.locks import make_lock, named_blob
from tests.support.prefetch_run import LAYOUTS

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("check.golden")
MIB = 1 << 20
NOTE = "contents of archives were not read; 'osc-containers verify' reads them\n"

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<!-- OBS-ExclusiveArch: x86_64 -->
<image schemaversion="8.0" name="n">
  <preferences>
    <type image="oem" filesystem="ext4"/>
  </preferences>
  <packages type="image"><package name="podman"/><package name="coreutils"/></packages>
"""
KIWI = HEAD + '  <include from="this://./containers.xml"/>\n</image>\n'
KIWI_B = KIWI.replace("containers.xml", "b.xml")
CONTAINERS = """<image schemaversion="8.0" name="n">
  <containers source="registry.example.com" backend="podman">
    <container name="app" path="team" tag="1.0"/>
  </containers>
</image>
"""
AND_APP = CONTAINERS.partition("\n")[2]
SERVICE = """<services>
  <service name="kiwi_containers" mode="manual"/>
  <service name="kiwi_containers_inject" mode="buildtime"/>
</services>
"""
INJECT_B = """<service name="kiwi_containers_inject" mode="buildtime">
    <param name="description">b.kiwi</param>
  </service>
"""
CLEAN = {"a.kiwi": KIWI, "containers.xml": CONTAINERS, "_service": SERVICE}
SECTION_OF_BIG = """<containers source="registry.example.com" backend="podman" profiles="big" arch="s390x">
<container name="app" path="team" tag="1.0"/></containers>"""
APP = {"registry.example.com/team/app:1.0": 10 * MIB}


def write(directory: Path, files: Mapping[str, str | None], sizes: Mapping[str, int]) -> Path:
    """Write the clean package with these files replaced, and with sparse archives of these sizes."""
    text = files.get("containers.lock")
    lock = lockfile.loads(text) if text and "version" in text else make_lock(sizes)
    for (reference, arch), name in lock.archive_names().items():
        with (directory / name).open("wb") as file:
            file.truncate(layout_of(lock.references[reference].claim(reference, arch)).size)
    for name, text in ({**CLEAN, "containers.lock": lockfile.dumps(lock)} | dict(files)).items():
        if text is not None:
            (directory / name).write_text(text)
    return directory


def check(directory: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    status = main(["check", str(directory), *options])
    captured = capsys.readouterr()
    assert captured.err == ""
    return status, captured.out.removesuffix(NOTE)


def test_clean_package_has_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(write(tmp_path, {}, APP), capsys, "--strict") == (0, "no problems found\n")
    assert check(tmp_path, capsys, "--format", "json") == (0, "[]\n")


@pytest.mark.integration
@pytest.mark.parametrize("layout", LAYOUTS)
def test_example_has_no_findings(
    docker_registry: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    shutil.copytree(ROOT / "example", tmp_path, dirs_exist_ok=True)
    containers = tmp_path / "containers.xml"
    containers.write_text(containers.read_text().replace("registry.opensuse.org", docker_registry.host))
    for name in ("opensuse/tumbleweed:latest", "opensuse/busybox:latest", "opensuse/leap:15.6"):
        docker_registry.push(images.multi_platform(name.partition(":")[0].replace("/", "-")), name)
    assert main(["prefetch", "--layout", layout, str(tmp_path)]) == 0
    capsys.readouterr()
    assert check(tmp_path, capsys, "--strict") == (0, "no problems found\n")


def containers(inner: str, source: str = "registry.example.com") -> str:
    return f'<image>\n<containers source="{source}" backend="podman">\n{inner}\n</containers>\n</image>\n'


def with_type(inner: str, filesystem: str = "ext4") -> str:
    plain = '<type image="oem" filesystem="ext4"/>'
    return KIWI.replace(plain, f'<type image="oem" filesystem="{filesystem}">{inner}</type>')


def with_profiles(*names: str) -> str:
    declared = "".join(f"<profile name='{name}' description='d'/>" for name in names)
    return KIWI.replace("<preferences>", f"<profiles>{declared}</profiles><preferences>")


def with_store_of_docker(name: str) -> dict[str, str | None]:
    partition = f'<partitions><partition name="d" mountpoint="/var/lib/{name}" size="500M"/></partitions>'
    kiwi = with_type(f'{FIXED}<size unit="G">1</size>{partition}')
    return {"a.kiwi": kiwi.replace("podman", "docker"), "containers.xml": CONTAINERS.replace("podman", "docker")}


NAME = "registry.example.com_team_app_1.0.x86_64.ociarchive"
FIXED = "<oemconfig><oem-resize>false</oem-resize></oemconfig>"
LARGE = {"registry.example.com/team/app:1.0": 600 * MIB}
PODMAN, COREUTILS = '<package name="podman"/>', '<package name="coreutils"/>'

# The output for each case is in check.golden, in the same order.
CASES: dict[str, tuple[dict[str, str | None], Mapping[str, int]]] = {
    "visible": ({"a.kiwi": HEAD + CONTAINERS.partition("\n")[2], "containers.xml": None}, APP),
    "visible with a port": (
        {"a.kiwi": HEAD + containers('<container name="x"/>', "localhost:5000").partition("\n")[2]},
        {"localhost:5000/x:latest": 10},
    ),
    "visible with a transport": (
        {"a.kiwi": HEAD + containers('<container name="x"/>', "docker://localhost:5000/a").partition("\n")[2]},
        {"localhost:5000/a/x:latest": 10},
    ),
    "a scheme": ({"containers.xml": containers('<container name="x"/>', "https://a.example.com")}, {}),
    "a project of OBS": ({"containers.xml": containers('<container name="x"/>', "obs://home:ann/images")}, {}),
    "one reference from two places": (
        {
            "containers.xml": containers('<container name="x"/>', "oci:a").removesuffix("</image>\n")
            + containers('<container name="x"/>', "dir:b").removeprefix("<image>\n")
        },
        {"localhost/x:latest": 10},
    ),
    "a slash in the name": ({"containers.xml": containers('<container name="team/app" tag="1.0"/>')}, APP),
    "two of one name": (
        {
            "containers.xml": containers(
                '<container name="app" path="team" tag="1.0"/>\n<container name="app" tag="1.0"/>'
            )
        },
        {**APP, "registry.example.com/app:1.0": 10},
    ),
    "a transport": (
        {"containers.xml": containers('<container name="x"/>', "docker://a.example.com")},
        {"a.example.com/x:latest": 10},
    ),
    "a nested include": (
        {"containers.xml": '<image>\n<include from="more.xml"/>\n</image>', "more.xml": CONTAINERS},
        APP,
    ),
    "a profile that is not declared": (
        {"containers.xml": CONTAINERS.replace('"podman"', '"podman" profiles="Gone"')},
        APP,
    ),
    "no profile between commas": ({"containers.xml": CONTAINERS.replace('"podman"', '"podman" profiles=","')}, APP),
    "a profile called root": (
        {
            "a.kiwi": with_profiles("root"),
            "containers.xml": CONTAINERS.replace('"podman"', '"podman" profiles="root"'),
        },
        APP,
    ),
    "a name that no machine has": (
        {
            "a.kiwi": with_profiles("P").replace("name='P'", "name='P' arch='arm64'"),
            "containers.xml": CONTAINERS.replace("<container ", '<container arch="amd64" '),
        },
        {},
    ),
    "no service file": ({"_service": None}, APP),
    "other services only": ({"_service": "<services><service name='tar' mode='buildtime'/></services>"}, APP),
    "a broken service file": ({"_service": "<services>"}, APP),
    "modes that cannot work": (
        {
            "_service": """<services>
<service name="kiwi_containers"/>
<service name="kiwi_containers" mode="trylocal"/>
<service name="kiwi_containers" mode="buildtime"/>
<service name="kiwi_containers_inject" mode="manual"/>
</services>"""
        },
        APP,
    ),
    "parameters that will be refused": (
        {
            "_service": """<services>
<service name="kiwi_containers" mode="localonly">
<param name="arch">x86_64 pdp11</param>
<param name="description">gone.kiwi</param>
<param name="locked">true</param>
<param name="inject">0</param>
<param name="connections">65</param>
<param name="foo">bar</param>
</service>
<service name="kiwi_containers_inject" mode="buildtime"><param name="arch">x86_64</param></service>
</services>"""
        },
        APP,
    ),
    "a service for each of several descriptions": (
        {
            "b.kiwi": KIWI_B,
            "b.xml": CONTAINERS,
            "_service": SERVICE.replace(
                '"buildtime"/>', '"buildtime"><param name="description">a.kiwi</param></service>'
            ).replace("</services>", f"{INJECT_B}</services>"),
        },
        APP,
    ),
    "a service for a description that is not there": (
        {
            "b.kiwi": KIWI,
            "_service": SERVICE.replace(
                '"buildtime"/>', '"buildtime"><param name="description">c.kiwi</param></service>'
            ),
        },
        APP,
    ),
    "several descriptions": ({"b.kiwi": KIWI_B, "b.xml": CONTAINERS}, APP),
    "several descriptions that share their containers": ({"b.kiwi": KIWI}, APP),
    "no lock": ({"containers.lock": None}, {}),
    "no lock and no service": ({"containers.lock": None, "_service": None}, {}),
    "a broken lock": ({"containers.lock": "{}"}, {}),
    "a lock of yesterday": ({}, {"registry.example.com/team/old:1.0": 10}),
    "a lock for another architecture": ({"containers.lock": lockfile.dumps(make_lock(APP, "aarch64"))}, APP),
    "an archive that is not locked": ({"stray.ociarchive": "x"}, APP),
    "an archive of another size": ({NAME: "x"}, APP),
    "an archive that is too large for cpio": ({}, {"registry.example.com/team/app:1.0": 5 << 30}),
    "layers of zstd for docker": (
        {
            "a.kiwi": KIWI.replace("podman", "docker"),
            "containers.xml": CONTAINERS.replace("podman", "docker"),
            "containers.lock": lockfile.dumps(make_lock(APP, layers=("application/vnd.oci.image.layer.v1.tar+zstd",))),
        },
        APP,
    ),
    "no podman": ({"a.kiwi": KIWI.replace(PODMAN, "")}, APP),
    "no podman, but a pattern": ({"a.kiwi": KIWI.replace(PODMAN, '<namedCollection name="containers"/>')}, APP),
    "podman is deleted": (
        {"a.kiwi": KIWI.replace("</image>", f'<packages type="delete">{PODMAN}</packages>\n</image>')},
        APP,
    ),
    "no coreutils": ({"a.kiwi": KIWI.replace(COREUTILS, "")}, APP),
    "docker in one profile of two": (
        {
            "a.kiwi": with_profiles("A", "B")
            .replace("<image ", "<!-- OBS-Profiles: @BUILD_FLAVOR@ -->\n<image ")
            .replace("</image>", '<packages type="image" profiles="A"><package name="docker"/></packages>\n</image>'),
            "_multibuild": "<multibuild><flavor>A</flavor><package>B</package></multibuild>",
            "containers.xml": CONTAINERS.replace("podman", "docker"),
        },
        APP,
    ),
    "docker on one architecture of two": (
        {
            "a.kiwi": KIWI.replace(PODMAN, '<package name="docker" arch="aarch64"/>'),
            "containers.xml": CONTAINERS.replace("podman", "docker"),
            "_service": SERVICE.replace('"manual"/>', '"manual"><param name="arch">x86_64</param></service>'),
        },
        APP,
    ),
    "an architecture that is not prefetched": (
        {
            "a.kiwi": KIWI.replace("ExclusiveArch: x86_64", "ExclusiveArch: x86_64 amd64 aarch64 local"),
            "_service": SERVICE.replace('"manual"/>', '"manual"><param name="arch">x86_64</param></service>'),
        },
        APP,
    ),
    "a profile that is not prefetched": (
        {
            "a.kiwi": with_profiles("A", "B", "C").replace("<image ", "<!-- OBS-Profiles: A B -->\n<image "),
            "containers.xml": CONTAINERS.replace("<containers", '<containers profiles="B"').replace(
                "</image>", AND_APP
            ),
            "_service": SERVICE.replace('"manual"/>', '"manual"><param name="profile">A</param></service>'),
        },
        APP,
    ),
    "the profile of a build that is told none": (
        {
            "a.kiwi": with_profiles("A", "B").replace("name='B'", "name='B' import='true'"),
            "containers.xml": AND_APP.join(CONTAINERS.replace(" backend", ' profiles="B" backend').split("</image>\n")),
            "_service": SERVICE.replace('"manual"/>', '"manual"><param name="profile">A</param></service>'),
        },
        APP,
    ),
    "a profile of a description that is not built": (
        {
            "b.kiwi": with_profiles("A", "B").replace("<image ", "<!-- OBS-Profiles: A B -->\n<image "),
            "containers.xml": AND_APP.join(CONTAINERS.replace(" backend", ' profiles="B" backend').split("</image>\n")),
            "a.kiwi": with_profiles("A", "B"),
            "_service": SERVICE.replace('"manual"/>', '"manual"><param name="profile">A</param></service>').replace(
                '"buildtime"/>', '"buildtime"><param name="description">a.kiwi</param></service>'
            ),
        },
        APP,
    ),
    "a profile to prefetch that is not declared": (
        {"_service": SERVICE.replace('"manual"/>', '"manual"><param name="profile">A</param></service>')},
        APP,
    ),
    "a container that is only fetched needs no engine": (
        {
            "a.kiwi": KIWI.replace(PODMAN + COREUTILS, ""),
            "containers.xml": CONTAINERS.replace("tag=", 'fetch_only="true" tag='),
        },
        APP,
    ),
    "a size that is too small": ({"a.kiwi": with_type(f'{FIXED}<size unit="M">1000</size>')}, LARGE),
    "a size that is enough with memory": ({"a.kiwi": with_type(f'{FIXED}<size unit="M">1500</size>')}, LARGE),
    "a size that is enough": ({"a.kiwi": with_type(f'{FIXED}<size unit="G">4</size>')}, LARGE),
    "an unpartitioned size": ({"a.kiwi": with_type(f'{FIXED}<size unit="G" unpartitioned="3">4</size>')}, LARGE),
    "no size": ({"a.kiwi": with_type(FIXED)}, LARGE),
    "an addition that is too small": ({"a.kiwi": with_type(f'{FIXED}<size additive="true">200</size>')}, LARGE),
    "an addition that is enough": ({"a.kiwi": with_type(f'{FIXED}<size additive="true">1800</size>')}, LARGE),
    "a system size": ({"a.kiwi": with_type("<oemconfig><oem-systemsize>1000</oem-systemsize></oemconfig>")}, LARGE),
    "an image that grows to its disk": ({"a.kiwi": with_type('<size unit="M">100</size>')}, LARGE),
    "a volume for the store": (
        {"a.kiwi": with_type('<systemdisk><volume name="var/lib/containers" size="500M"/></systemdisk>')},
        LARGE,
    ),
    "volumes of btrfs share their room": (
        {"a.kiwi": with_type('<systemdisk><volume name="var" size="5M"/></systemdisk>', "btrfs")},
        LARGE,
    ),
    "a volume without a size": ({"a.kiwi": with_type('<systemdisk><volume name="var"/></systemdisk>')}, LARGE),
    "a volume that takes the rest": (
        {"a.kiwi": with_type('<systemdisk><volume name="var" size="all"/></systemdisk>')},
        LARGE,
    ),
    "a partition": (
        {"a.kiwi": with_type('<partitions><partition name="v" mountpoint="/var" size="1G"/></partitions>')},
        LARGE,
    ),
    **{f"a partition for docker's {name}": (with_store_of_docker(name), LARGE) for name in ("docker", "containerd")},
}


def golden() -> dict[str, str]:
    sections = GOLDEN.read_text().removeprefix("=== ").split("\n=== ")
    return {name: text for name, _, text in (section.partition("\n") for section in sections)}


@pytest.mark.parametrize("name", CASES)
def test_case_has_its_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    files, sizes = CASES[name]
    status, output = check(write(tmp_path, files, sizes), capsys)
    assert output.removesuffix("\n") == golden()[name].removesuffix("\n")
    assert status == (1 if ": error: " in output else 0)
    assert all(len(line) <= 100 for line in output.splitlines() if not line.startswith("    > "))


def test_golden_file_has_every_case() -> None:
    assert list(golden()) == list(CASES)


def test_findings_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"_service": None, "a.kiwi": KIWI.replace(COREUTILS, "")}, APP)
    status, output = check(tmp_path, capsys, "--format", "json")
    assert status == 1
    findings = json.loads(output)
    assert [(each["severity"], each["check"]) for each in findings] == [
        ("error", "service"),
        ("warning", "service"),
        ("info", "package"),
    ]
    assert findings[0] == {
        "severity": "error",
        "check": "service",
        "file": "_service",
        "line": None,
        "why": ("no service puts the containers into the image: kiwi would pull them in the build, without a network"),
        "fix": '<service name="kiwi_containers_inject" mode="buildtime"/>',
    }
    assert (findings[2]["file"], findings[2]["line"]) == ("containers.xml", 3)


def test_names_that_are_too_long_for_files_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "p" * 300
    parameter = f'<param name="description">{name}</param></service>'
    files = {
        "a.kiwi": with_profiles(name),
        "containers.xml": CONTAINERS.replace('backend="podman"', f'backend="podman" profiles="{name}"'),
        "_service": SERVICE.replace("/>", f">{parameter}"),
    }
    _, output = check(write(tmp_path, files, APP), capsys, "--format", "json")
    reasons = [each["why"] for each in json.loads(output)]
    assert f"kiwi_containers_inject: description {name[:160]!r}: no such file" in reasons
    assert any(why.startswith(f"profile {name[:80]!r}: got 300 bytes, expected at most 255") for why in reasons)


def test_number_of_images_that_are_checked_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"p{number}" for number in range(5)]
    files = {
        "a.kiwi": with_profiles(*names).replace(PODMAN, ""),
        "containers.xml": CONTAINERS.replace('backend="podman"', f'backend="podman" profiles="{",".join(names)}"'),
    }
    monkeypatch.setattr(context, "_IMAGE_LIMIT", 3)
    _, output = check(write(tmp_path, files, APP), capsys, "--format", "json")
    assert [each["why"] for each in json.loads(output) if each["why"].startswith("podman is not in")] == [
        "podman is not in the package list, but is needed to load this container (x86_64, profile p0; x86_64, profile "
        "p1)"
    ]


def test_old_server_that_ran_the_prefetch_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As OBS 2.9.4 answers, in the form in which osc keeps the answer."""
    (tmp_path / ".osc").mkdir()
    answer = (
        '<directory name="appliance"><serviceinfo code="failed"><error>service error: kiwi_containers: error: '
        "no network</error></serviceinfo></directory>"
    )
    (tmp_path / ".osc/_files").write_text(answer)
    line = "such as OBS 2.9, do not know the mode 'manual', and would run kiwi_containers without a network"
    status, found = check(write(tmp_path, {}, APP), capsys)
    assert status == 1
    assert line in " ".join(found.split())
    assert '<service name="kiwi_containers" mode="disabled"/>' in found
    (tmp_path / "_service").write_text(SERVICE.replace("manual", "disabled"))
    assert check(tmp_path, capsys)[0] == 0
    (tmp_path / "_service").write_text(SERVICE)
    for other in (answer.replace("failed", "succeeded"), answer.replace("kiwi_containers", "other"), "<", "<a>"):
        (tmp_path / ".osc/_files").write_text(other)
        assert check(tmp_path, capsys)[0] == 0


def test_unreadable_description_makes_no_reference_unused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"a.kiwi": "<image"}, APP)
    output = "a.kiwi:1: error: not XML; '<' begins no complete tag; write '&lt;' for the character itself\n"
    assert check(tmp_path, capsys) == (1, output)


def test_long_list_of_undeclared_profiles_is_shortened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = ",".join(f"p{number}" for number in range(9000))
    write(tmp_path, {"containers.xml": CONTAINERS.replace('"podman"', f'"podman" profiles="{many}"')}, APP)
    status, output = check(tmp_path, capsys)
    assert (status, len(output) < 4000) == (0, True)


def test_strict_turns_warnings_into_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"stray.ociarchive": "x"}, APP)
    assert check(tmp_path, capsys)[0] == 0
    assert check(tmp_path, capsys, "--strict")[0] == 1


def test_files_that_conflict_with_the_overlay_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, {}, APP) / "root/usr/lib/systemd/system/kiwi_containers.service"
    path.parent.mkdir(parents=True)
    path.symlink_to("mine")
    expected = "root/usr/lib/systemd/system/kiwi_containers.service: warning: the build creates a file"
    assert check(tmp_path, capsys)[1].startswith(expected)
    shutil.rmtree(tmp_path / "root")
    (tmp_path / "root").touch()
    status, output = check(tmp_path, capsys)
    assert status == 1
    assert output.startswith("root: error: got a file or symlink, expected an overlay directory or nothing; rename it")


def test_removal_command_fits_the_working_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --force, `osc rm` refuses files that it does not track."""
    write(tmp_path, {"stray.ociarchive": "x"}, APP)
    (tmp_path / ".osc").mkdir()
    assert "\n    > osc rm --force stray.ociarchive\n" in check(tmp_path, capsys)[1]


def test_bundle_needs_no_inject_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service = """<services><service name="kiwi_containers" mode="manual">
<param name="description">containers.xml</param><param name="arch">x86_64</param><param name="inject">source</param>
</service></services>"""
    files: dict[str, str | None] = {"a.kiwi": HEAD + "</image>", "_service": service, NAME: None}
    write(tmp_path, files, APP)
    (tmp_path / NAME).unlink()
    write_bundle(tmp_path)
    assert check(tmp_path, capsys, "--strict") == (0, "no problems found\n")
    (tmp_path / "containers.xml").write_text(CONTAINERS.replace("<containers", '<containers profiles="A"'))
    write_bundle(tmp_path)
    assert "no image: 'A'" in check(tmp_path, capsys, "--strict")[1]
    (tmp_path / "a.kiwi").write_text(with_profiles("A").replace('  <include from="this://./containers.xml"/>\n', ""))
    assert check(tmp_path, capsys, "--strict") == (0, "no problems found\n")
    (tmp_path / "kiwi_containers.obscpio").unlink()
    status, output = check(tmp_path, capsys)
    assert status == 1
    assert output.startswith("kiwi_containers.obscpio: error: missing, but containers.lock pins 1 image for it")


def write_bundle(directory: Path) -> None:
    """Write the bundle of the package; its layer is all zeros, and the lock gets the digest of that."""
    package, path = Package(directory), directory / "containers.lock"
    lock = package.require_lock()
    ((reference, arch, locked),) = lock.images()
    (layer,) = locked.image.layers
    zeros = layer._replace(digest=Digest.of(bytes(layer.size)))
    image = locked._replace(image=locked.image._replace(layers=(zeros,)))
    entry = lock.references[reference]._replace(images={arch: image})
    path.write_text(lockfile.dumps(lockfile.Lock(references={reference: entry})))
    packed = bundle.pack_for(selection.of_package(package))(package.require_lock())
    with (directory / "kiwi_containers.obscpio").open("w+b") as file:
        file.truncate(packed.size)
        for offset, part in packed.frame():
            FileSlice(file.fileno(), 0).write(part, offset)


def test_bundle_that_differs_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files: dict[str, str | None] = {"_service": ALONE.replace("</param>", '</param><param name="arch">x86_64</param>')}
    write(tmp_path, files, APP)
    (tmp_path / NAME).unlink()
    write_bundle(tmp_path)
    path = tmp_path / "kiwi_containers.obscpio"
    assert f"{path.name}: error" not in check(tmp_path, capsys)[1]
    good = path.read_bytes()
    for offset in (0, good.index(b"ExecStart"), len(good) // 2, len(good) - 1):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
        assert (
            f"{path.name}: error: differs from what the description and containers.lock make;"
            in (check(tmp_path, capsys)[1])
        )


def test_bundle_that_nothing_asks_for_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("kiwi_containers.obscpio", "_service:x:kiwi_containers.obscpio"):
        write(tmp_path, {name: "x"}, APP)
        status, output = check(tmp_path, capsys)
        assert status == 1
        assert output.replace("\n    ", " ").startswith(
            f"{name}: error: obs-build unpacks it over the sources, but _service does not have inject=source; remove it"
        )
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("path", "is_found"),
    [
        ("root/etc/cron.d/x", True),
        ("./root/x", True),
        ("big/x", True),
        ("/etc/x", True),
        ("x/../../y", True),
        ("config.sh", True),
        ("new.kiwi", True),
        ("containers.lock", True),
        ("tool-1.0/root/x", False),
        ("tool-1.0/config.sh", False),
        ("notes.txt", False),
    ],
)
def test_other_cpio_archives_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, is_found: bool
) -> None:
    containers = CONTAINERS.replace("</image>", SECTION_OF_BIG + "</image>")
    write(tmp_path, {"containers.xml": containers}, APP)
    before = check(tmp_path, capsys)[1]
    layout = cpio.lay_out([cpio.Entry(path=path, mode=stat.S_IFREG | 0o644, size=0, content="x")])
    (tmp_path / "other.obscpio").write_bytes(b"".join(part for _, part in layout.frame))
    output = check(tmp_path, capsys)[1]
    assert (output != before) == is_found
    assert not is_found or f"other.obscpio: warning: obs-build unpacks '{path}'" in output.replace("\n    ", " ")


@pytest.mark.parametrize("place", ["the same archive", "another archive", "the package"])
def test_members_of_cpio_archives_below_a_link_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """They end up where the link leads, as in the overlay of the image."""
    write(tmp_path, {}, APP)
    link = cpio.Entry(path="tool/lib", mode=stat.S_IFLNK | 0o777, size=7, content="link")
    file = cpio.Entry(path="./tool//lib/etc/x", mode=stat.S_IFREG | 0o644, size=0, content="file")
    archives = {"a": [link, file]} if place == "the same archive" else {"a": [file], "b": [link]}
    if place == "the package":
        (tmp_path / "tool").symlink_to("root")
        del archives["b"]
    for name, entries in archives.items():
        layout = cpio.lay_out(entries)
        content = bytearray(layout.size)
        for offset, part in layout.frame:
            content[offset : offset + len(part)] = part
        (tmp_path / f"{name}.obscpio").write_bytes(content)
    output = check(tmp_path, capsys)[1]
    assert "a.obscpio: warning: obs-build unpacks './tool//lib/etc/x'" in output.replace("\n    ", " ")
    assert "b.obscpio" not in output


def make_damaged(path: Path) -> None:
    path.write_bytes(b"070707")


def make_link(path: Path) -> None:
    path.symlink_to("a.kiwi")


def member_named(name: bytes) -> Callable[[Path], object]:
    """Return what makes a cpio archive with one member, whose name is exactly these bytes."""
    fields = (1, stat.S_IFREG | 0o755, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    trailer = cpio.lay_out([]).frame[-1][1]
    return lambda path: path.write_bytes(header + bytes(-len(header) % 4) + trailer)


def test_the_name_of_a_cpio_member_may_be_padded_with_nuls(tmp_path: Path) -> None:
    member_named(b"notes.txt\0\0\0")(tmp_path / "other.obscpio")
    with (tmp_path / "other.obscpio").open("rb") as file:
        assert list(cpio.paths(file)) == [("notes.txt", False)]


@pytest.mark.parametrize(
    "make",
    [
        make_damaged,
        make_link,
        os.mkfifo,
        member_named(b"config.sh\0.txt\0"),
        member_named(b"TRAILER!!!\0z\0"),
        member_named(b"notes.txt"),
        member_named(b"x" * 5000 + b"\0"),
    ],
)
def test_cpio_archives_that_cannot_be_listed_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object]
) -> None:
    write(tmp_path, {}, APP)
    make(tmp_path / "other.obscpio")
    status, output = check(tmp_path, capsys)
    assert status == 0
    assert output.startswith("other.obscpio: warning: obs-build unpacks it over the sources, but it cannot be listed:")


SOURCE = '"manual"><param name="inject">source</param></service>'
ALONE = SERVICE.replace('"manual"/>', SOURCE).replace(
    '  <service name="kiwi_containers_inject" mode="buildtime"/>\n', ""
)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"_service": SERVICE.replace('"manual"/>', SOURCE)},
            [
                ("_service", "kiwi_containers_inject finds no archives: with inject=source"),
                ("a.kiwi", "kiwi would pull these containers without a network"),
            ],
        ),
        ({"_service": ALONE}, [("a.kiwi", "kiwi would pull these containers without a network")]),
        (
            {"_service": ALONE, "a.kiwi": HEAD + AND_APP.replace("</image>\n", "") + "</image>"},
            [("a.kiwi", "kiwi would pull these containers without a network")],
        ),
    ],
)
def test_containers_in_bundle_and_description_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str | None], expected: list[tuple[str, str]]
) -> None:
    write(tmp_path, files | {"kiwi_containers.obscpio": "x"}, APP)
    (tmp_path / NAME).unlink()
    status, output = check(tmp_path, capsys, "--format", "json")
    findings = [each for each in json.loads(output) if each["file"] != "kiwi_containers.obscpio"]
    assert status == 1
    assert [
        (each["file"], each["why"][: len(why)]) for each, (_, why) in zip(findings, expected, strict=True)
    ] == expected


@pytest.mark.integration
def test_description_with_many_packages_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = "".join(f'<package name="p{number}"/>\n' for number in range(20_001))
    write(tmp_path, {"a.kiwi": KIWI.replace("<package ", f"{many}<package ", 1)}, APP)
    assert check(tmp_path, capsys) == (0, "no problems found\n")
    (tmp_path / "containers.xml").write_text(CONTAINERS.replace("</image>", f"<packages>{many}</packages></image>"))
    (tmp_path / "_service").unlink()
    assert main(["init", "--inject", "source", "--no-prefetch", str(tmp_path)]) == 1
    assert "a.kiwi:20009: containers.xml also has 'packages';" in capsys.readouterr().err


@pytest.mark.integration
def test_too_many_elements_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = "<x/>" * 100_000
    write(tmp_path, {"a.kiwi": KIWI.replace("<package ", f"{many}<package ", 1)}, APP)
    assert check(tmp_path, capsys) == (1, "a.kiwi:7: error: more than 100000 elements\n")
    (tmp_path / "a.kiwi").write_text(KIWI)
    (tmp_path / "containers.xml").write_text(CONTAINERS.replace("</image>", f"<packages>{many}</packages></image>"))
    (tmp_path / "_service").unlink()
    assert main(["init", "--inject", "source", "--no-prefetch", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "osc-containers: error: containers.xml:5: more than 100000 elements\n"


def test_an_archive_that_is_a_link_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As git-annex keeps large files. A build refuses it."""
    write(tmp_path, {}, APP)
    (archive,) = tmp_path.glob("*.ociarchive")
    archive.rename(tmp_path / "content")
    archive.symlink_to("content")
    status, output = check(tmp_path, capsys)
    assert status == 1
    assert f"{archive.name}: error: got a symbolic link, expected a file" in output


def test_references_are_not_compared_with_all_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted and not timed: the machine may be busy."""
    counts = [0]
    hash_of = Reference.__hash__

    def count(reference: Reference) -> int:
        counts[-1] += 1
        return hash_of(reference)

    monkeypatch.setattr(Reference, "__hash__", count)
    for number in (20, 160):
        names = [f"app{each}" for each in range(number)]
        containers = "".join(f'<container name="{name}" path="team" tag="1"/>' for name in names)
        xml = re.sub(r"<container .*/>", containers, CONTAINERS)
        directory = tmp_path / str(number)
        directory.mkdir()
        write(directory, {"containers.xml": xml}, {f"registry.example.com/team/{name}:1": 10 for name in names})
        counts.append(0)
        check(directory, capsys)
    assert counts[2] < 8 * counts[1]


def test_oversized_service_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"a.kiwi": KIWI.replace("<image", "<!-- OBS-Profiles: @BUILD_FLAVOR@ -->\n<image")}, APP)
    for name in ("_multibuild", "_service"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 1 << 40)
        status, output = check(tmp_path, capsys)
    assert (status, output) == (1, "_service: error: has more than 4194304 bytes, too many for such a file\n")
    for inject in ("buildtime", "source"):
        assert main(["init", "--inject", inject, "--no-prefetch", str(tmp_path)]) == 1
        assert capsys.readouterr().err.startswith("osc-containers: error: _service: has more than 4194304 bytes")


@pytest.mark.parametrize("command", ["check", "prefetch", "init --no-prefetch --inject source"])
def test_unknown_machine_architecture_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(platform, "of_this_machine", lambda: "loongarch64")
    write(tmp_path, {"_service": None, "a.kiwi": KIWI.replace("<!-- OBS-ExclusiveArch: x86_64 -->\n", "")}, APP)
    assert main([*command.split(), str(tmp_path)]) == 1
    output = "".join(capsys.readouterr()).replace("\n    ", " ")
    assert (
        len(re.findall(r"this machine has an unknown architecture 'loongarch64', .*; specify one with 'arch'", output))
        == 1
    )
    assert main(["check", "--arch", "x86_64", str(tmp_path)]) == 1
    assert "no service puts the containers into the image" in capsys.readouterr().out.replace("\n    ", " ")


MANY = """<image schemaversion="8.0" name="n">
  <containers source="registry.example.com" backend="podman">
    <container name="app" path="team" tag="1.0"/>
    <container name="web" path="team" tag="1.0"/>
  </containers>
</image>
"""


def write_shared(directory: Path, layers: int, size: int, *forms: str) -> None:
    """Write two images that share layers of `size` bytes in all, as sparse files of these forms."""
    lock = make_lock({f"registry.example.com/team/{name}:1.0": 0 for name in ("app", "web")})
    base = tuple(named_blob(f"layer {number}", size // layers) for number in range(layers))
    entries = {}
    for reference, entry in lock.references.items():
        (locked,) = entry.images.values()
        image = locked.image._replace(layers=(*base, *locked.image.layers))
        entries[reference] = entry._replace(images={"x86_64": locked._replace(image=image)})
    lock = lockfile.Lock(references=entries)
    write(directory, {"containers.xml": MANY, "containers.lock": lockfile.dumps(lock)}, {})
    if "archives" not in forms:
        for path in directory.glob("*.ociarchive"):
            path.unlink()
    for blob in {blob for _, _, locked in lock.images() for blob in locked.image.blobs if "blobs" in forms}:
        with (directory / archive_names.blob(blob.digest)).open("wb") as file:
            file.truncate(blob.size)


def test_savings_by_blobs_are_shown_with_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shared(tmp_path, 2, 100 * MIB, "archives")
    status, output = check(tmp_path, capsys)
    assert status == 0
    assert " ".join(output.split()) == (
        "containers.lock: info: the archives have 210 MB, but only 105 MB without repetitions: with layout=blobs, the "
        'package stores common layers once, and an update uploads only new ones > <param name="layout">blobs</param>'
    )
    (small := tmp_path / "small").mkdir()
    write_shared(small, 2, 10 * MIB, "archives")
    assert check(small, capsys) == (0, "no problems found\n")


def test_too_many_blobs_are_reported_with_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shared(tmp_path, 600, 60_000, "blobs")
    status, output = check(tmp_path, capsys)
    assert status == 0
    assert " ".join(output.split()).startswith(
        "containers.lock: warning: the package has 603 files of blobs, and more than 500 make osc and OBS slow; with "
        "layout=archives it would have 2, of "
    )


def test_a_package_of_blobs_has_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shared(tmp_path, 3, 100 * MIB, "blobs")
    assert check(tmp_path, capsys) == (0, "no problems found\n")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            Path.unlink,
            "sha256-{}.blob: error: missing, but containers.lock lists it for registry.example.com/team/app:1.0",
        ),
        (
            lambda path: os.truncate(path, 7),
            "sha256-{}.blob: error: got 7 bytes, expected 30000 for what containers.lock",
        ),
        (
            lambda path: path.rename(path.with_name(f"sha256-{'0' * 64}.blob")),
            f"sha256-{'0' * 64}.blob: warning: not listed",
        ),
    ],
)
def test_a_wrong_blob_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], object], expected: str
) -> None:
    write_shared(tmp_path, 1, 30_000, "blobs")
    digest = named_blob("layer 0", 0).digest
    change(tmp_path / archive_names.blob(digest))
    assert expected.format(digest.hex) in " ".join(check(tmp_path, capsys)[1].split())


def test_both_layouts_at_once_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shared(tmp_path, 1, 30_000, "archives", "blobs")
    status, output = check(tmp_path, capsys)
    assert status == 0
    assert "warning: there are 2 archives and 4 blobs of the same images, as after a merge" in " ".join(output.split())
