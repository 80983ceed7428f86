"""`check` finds units of the packager that would not find their containers at the first boot."""

import bz2
import io
import json
import os
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from osc_containers.checks import overlay_files, units
from osc_containers.cli.main import main
from osc_containers.formats import unit_file
from osc_containers.lock import lockfile
from osc_containers.oci.digest import Digest
from tests.checks.test_check import APP, KIWI, write

NAME = "registry.example.com/team/app"
LOAD = "kiwi_containers-podman-app_1.0.service"
ORDERED = f"[Unit]\nAfter={LOAD}\nRequires={LOAD}\n"
QUADLET = "root/etc/containers/systemd/app.container"
AFTER_ALL = f"[Unit]\nAfter=a.service \\\n# comment\n  kiwi_containers.service\nBindsTo={LOAD}\n"
SERVICE = "root/etc/systemd/system/app.service"
OTHER_DIGEST = f"sha256:{'0' * 64}"


def find(directory: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> list[tuple[str, ...]]:
    """Return severity, location and reason of each finding about units in a package with these files."""
    write(directory, {}, APP)
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    main(["check", str(directory), "--format", "json"])
    findings = json.loads(capsys.readouterr().out)
    return [
        (each["severity"], f"{each['file']}:{each['line']}", each["why"], each["fix"])
        for each in findings
        if each["check"] == "unit"
    ]


def container(image: str, more: str = "", unit: str = ORDERED) -> str:
    return f"{unit}[Container]\nImage={image}\n{more}\n[Install]\nWantedBy=multi-user.target\n"


def service(command: str, unit: str = ORDERED) -> str:
    return f"{unit}[Service]\nExecStart={command}\n"


@pytest.mark.parametrize(
    "files",
    [
        {QUADLET: container(f"{NAME}:1.0")},
        {
            QUADLET: container(
                f"{NAME}:1.0", unit=f"[Unit]\nAfter=a.service \\\n# c\n  kiwi_containers.service\nBindsTo={LOAD}\n"
            )
        },
        {QUADLET: container(f"{NAME}:1.0", unit=""), f"{QUADLET}.d/order.conf": ORDERED},
        {SERVICE: service(f"/usr/bin/podman run --rm {NAME}:1.0")},
        {
            SERVICE: service(f"podman run {NAME}:1.0", "[Unit]\nAfter=setup.service\nRequires=setup.service\n"),
            "root/etc/systemd/system/setup.service": service("true"),
        },
        {QUADLET: container("registry.example.com/other:1.0", unit="")},
        {QUADLET: container("app.image", unit="")},
        {SERVICE: service(f"echo {NAME}:1.0", "")},
        {SERVICE: service(f"-podman pull {NAME}:1.0") + f"ExecStart=podman run --pull=newer {NAME}:1.0\n"},
        {"root/etc/app.container": container(f"{NAME}:1.0", unit="")},
        {"unused/etc/containers/systemd/app.container": container(f"{NAME}:1.0", unit="")},
        {QUADLET: "\x00\xff[[[\n=\n[Unit\nImage"},
    ],
)
def test_units_that_work_and_other_files_have_no_finding(
    tmp_path: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert find(tmp_path, files, capsys) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (QUADLET, container(f"{NAME}:1.0", unit="")),
        (QUADLET, container(f"{NAME}:1.0", unit=f"[Unit]\nRequires={LOAD}\n")),
        ("root/usr/share/containers/systemd/deep/app.container", container(f"{NAME}:1.0", unit="")),
        ("root/etc/containers/systemd/app.volume", f"[Volume]\nDriver=image\nImage={NAME}:1.0\n"),
        (QUADLET, f"[Container]\nImage=other\nMount=type=image,source={NAME}:1.0,destination=/data\n"),
        (SERVICE, service(f"/usr/bin/podman run --rm {NAME}:1.0", "")),
        ("root/usr/lib/systemd/system/app@.service", service(f"-podman create --name=x {NAME}:1.0 %i", "")),
        (SERVICE, service(f'sh -c "exec podman run {NAME}:1.0"', "")),
    ],
)
def test_unit_without_ordering_is_found(
    tmp_path: Path, path: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    why = f"it may start before {NAME}:1.0 is loaded, and then stays failed at the first boot"
    ((severity, location, reason, fix),) = find(tmp_path, {path: text}, capsys)
    assert (severity, reason, fix) == ("warning", why, f"[Unit] After={LOAD} Requires={LOAD}")
    line = next(number for number, each in enumerate(text.splitlines(), start=1) if NAME in each)
    assert location == f"{path}:{line}"


def test_kube_unit_is_checked_by_its_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "root/etc/containers/systemd/app.kube": "[Kube]\nYaml=app.yaml\n",
        "root/etc/containers/systemd/app.yaml": f"spec:\n  containers:\n  - image: '{NAME}:1.0'\n",
    }
    ((_, location, why, _),) = find(tmp_path, files, capsys)
    assert location == "root/etc/containers/systemd/app.kube:2"
    assert why.startswith(f"it may start before {NAME}:1.0 is loaded")


@pytest.mark.parametrize(
    ("path", "text", "cause"),
    [
        (QUADLET, container(f"{NAME}:1.0", "Pull=always"), "Pull=always"),
        (QUADLET, container(f"{NAME}:1.0", "PodmanArgs=--log-level=info --pull=always"), "--pull=always"),
        (SERVICE, service(f"podman run --pull=always {NAME}:1.0"), "--pull=always"),
        (SERVICE, service(f"podman pull {NAME}:1.0"), "podman pull"),
        (QUADLET.replace(".container", ".image"), container(f"{NAME}:1.0"), "an .image unit"),
    ],
)
def test_unit_that_asks_a_registry_is_found(
    tmp_path: Path, path: str, text: str, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ((severity, _, why, _),) = find(tmp_path, {path: text}, capsys)
    assert severity == "warning"
    assert why == f"{cause} asks a registry for {NAME}:1.0 at every start, and fails without a network"


def test_digests_that_resolve_are_accepted_and_others_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    find(tmp_path, {}, capsys)
    ((_, _, locked),) = lockfile.loads((tmp_path / "containers.lock").read_text()).images()
    good = {QUADLET: container(f"{NAME}@{locked.image.manifest.digest}")}
    assert find(tmp_path, good, capsys) == []
    ((severity, _, why, fix),) = find(tmp_path, {QUADLET: container(f"{NAME}@{OTHER_DIGEST}")}, capsys)
    assert severity == "warning"
    assert why.startswith(f"podman will not find {NAME}@{OTHER_DIGEST}: ")
    assert Digest.parse(fix.partition("@")[2]) == locked.image.manifest.digest


def test_other_tags_and_engines_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ((severity, _, why, _),) = find(tmp_path, {QUADLET: container(f"{NAME}:2.0")}, capsys)
    assert (severity, why) == (
        "info",
        f"{NAME}:2.0 is not in the image, and needs a registry; the image has {NAME} as 1.0",
    )
    (tmp_path / QUADLET).unlink()
    ((severity, _, why, _),) = find(tmp_path, {SERVICE: service(f"docker run {NAME}:1.0")}, capsys)
    assert (severity, why) == ("warning", f"{NAME}:1.0 is in the image, but docker does not load it")


def test_requiring_all_containers_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_all = "[Unit]\nAfter=kiwi_containers.service\nRequires=kiwi_containers.service\n"
    ((severity, _, why, fix),) = find(tmp_path, {QUADLET: container(f"{NAME}:1.0", unit=needs_all)}, capsys)
    assert (severity, fix) == ("info", f"Requires={LOAD}")
    assert why.startswith("it does not start if any other container of the image cannot be loaded")


def test_ordering_without_a_requirement_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only_after = f"[Unit]\nAfter={LOAD}\n"
    ((severity, _, why, fix),) = find(tmp_path, {QUADLET: container(f"{NAME}:1.0", unit=only_after)}, capsys)
    assert (severity, fix) == ("info", f"Requires={LOAD}")
    assert why == f"it starts even if {NAME}:1.0 could not be loaded, and then needs a registry"


def test_quadlet_of_users_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = "root/etc/containers/systemd/users/1000/app.container"
    ((_, _, why, _),) = find(tmp_path, {path: container(f"{NAME}:1.0")}, capsys)
    assert why == f"it runs for users, but {NAME}:1.0 is loaded for root, and other users do not see it"


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_units_in_archives_of_the_overlay_are_found(
    tmp_path: Path, compression: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / f"root.tar.{compression}".rstrip("."), f"w:{compression}") as tar:  # type: ignore[call-overload]
        text = container(f"{NAME}:1.0", unit="").encode()
        member = tarfile.TarInfo("./etc/containers/systemd/app.container")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    ((_, location, _, _),) = find(tmp_path, {}, capsys)
    assert location.startswith("root.tar")
    assert location.endswith(":etc/containers/systemd/app.container:2")


def test_damaged_archive_and_links_out_of_the_package_are_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.write_text(container(f"{NAME}:1.0", unit=""))
    package = tmp_path / "package"
    (package / QUADLET).parent.mkdir(parents=True)
    (package / QUADLET).symlink_to(outside)
    (package / "root.tar.gz").write_bytes(b"\x1f\x8bdamaged")
    assert find(package, {}, capsys) == []


@pytest.mark.parametrize("link", ["root", "root/etc", "root/etc/systemd", QUADLET.rpartition("/")[0], QUADLET])
def test_units_behind_links_are_not_read(tmp_path: Path, link: str, capsys: pytest.CaptureFixture[str]) -> None:
    package, outside = tmp_path / "package", tmp_path / "outside"
    for path in (QUADLET, SERVICE):
        (outside / path).parent.mkdir(parents=True)
        (outside / path).write_text(container(f"{NAME}:1.0", unit=""))
    (package / link).parent.mkdir(parents=True)
    (package / link).symlink_to(outside / link)
    assert find(package, {}, capsys) == []


@pytest.mark.parametrize("name", ["../outside", "..", "{tmp_path}/outside"])
def test_overlays_of_profiles_outside_the_package_are_not_read(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for directory in ("outside", "."):
        path = tmp_path / directory / SERVICE.removeprefix("root/")
        path.parent.mkdir(parents=True)
        path.write_text(service(f"podman run {NAME}:1.0", ""))
    profile = f'<profiles><profile name="{name.format(tmp_path=tmp_path)}" description="d"/></profiles>'
    files = {"a.kiwi": KIWI.replace("<preferences>", f"{profile}<preferences>")}
    assert find(package, files, capsys) == []


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_archives_that_are_no_files_are_ignored(
    tmp_path: Path, make: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "root.tar.gz")
    assert find(tmp_path, {}, capsys) == []


def test_archive_is_unpacked_only_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "root.tar.bz2", "w:bz2") as tar:
        for name, size in (("etc/systemd/system/a.service", 10), ("large", 8 << 20)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    total = 0

    class Counting:
        def __init__(self) -> None:
            self.decompressor = decompressor()

        def __getattr__(self, name: str) -> object:
            return getattr(self.decompressor, name)

        def decompress(self, data: bytes, max_length: int = -1) -> bytes:
            nonlocal total
            content = self.decompressor.decompress(data, max_length)
            total += len(content)
            return content

    decompressor = bz2.BZ2Decompressor
    monkeypatch.setattr(bz2, "BZ2Decompressor", Counting)
    monkeypatch.setattr(overlay_files, "_ARCHIVE_LIMIT", 1 << 20)
    assert len(list(units._files_in(tmp_path / "root.tar.bz2"))) == 1
    assert total <= (1 << 20) + io.DEFAULT_BUFFER_SIZE


def test_header_of_an_archive_is_not_read_into_memory(tmp_path: Path) -> None:
    size = 100 << 20
    with tarfile.open(tmp_path / "root.tar.gz", "w:gz", compresslevel=1) as tar:
        header = tarfile.TarInfo("x")
        header.type, header.size = tarfile.XHDTYPE, size
        assert tar.fileobj
        tar.fileobj.write(header.tobuf())
        for _ in range(size >> 20):
            tar.fileobj.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        assert list(units._files_in(tmp_path / "root.tar.gz")) == []
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_long_chain_of_units_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = "root/etc/systemd/system"
    files = {f"{directory}/{i}.service": f"[Unit]\nAfter={i + 1}.service\n" for i in range(1500)}
    files[f"{directory}/0.service"] += f"[Service]\nExecStart=podman run {NAME}:1.0\n"
    files[f"{directory}/1500.service"] = ORDERED
    ((severity, _, why, _),) = find(tmp_path, files, capsys)
    assert severity == "info"
    assert why.startswith("it starts even if")


def test_blank_lines_of_yaml_take_little_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = "root/etc/containers/systemd/a"
    start = time.process_time()
    assert find(tmp_path, {f"{path}.kube": "[Kube]\nYaml=a.yaml\n", f"{path}.yaml": "\n" * 50_000}, capsys) == []
    assert time.process_time() - start < 5


def test_drop_ins_that_many_units_have_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_TEXT_LIMIT", 10_000)
    for number in range(50):
        for path, text in ((f"{number}/a.container", "[Container]\n"), (f"a.container.d/{number}.conf", "x=y\n" * 10)):
            (tmp_path / "etc/containers/systemd" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "etc/containers/systemd" / path).write_text(text)
    read = list(units._units(units._files_below(tmp_path, "root")))
    assert 4 * sum(len(each.assignments) for each in read) <= 10_000


def test_assignments_of_a_unit() -> None:
    text = "; comment\n[A]\nx = 1 \\\n# comment\n 2\nnone\n[B]\ny=\nz=a=b \\"
    assert list(unit_file.assignments(text)) == [
        ("A", "x", "1   2", 3),
        ("B", "y", "", 8),
        ("B", "z", "a=b", 9),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=1\\\ny=2", ["1 y=2"]),
        ("x=1\\\r\ny=2\r\n", ["1 y=2"]),
        ("x=1\\\\\ny=2", ["1\\\\", "2"]),
        ("x=1\\\\\\\ny=2", ["1\\\\ y=2"]),
        ("x=1\\ \ny=2", ["1\\", "2"]),
        ("x=1\\\n\ny=2", ["1", "2"]),
        ("# x\x0cy=1", []),
        ("; x\u2028y=1\x0by=1\x85y=1\x1cy=1", []),
        ("x=1\x0cy=2\n", ["1\x0cy=2"]),
        ("x=1\ry=2\0z=3", ["1", "2", "3"]),
    ],
)
def test_lines_of_a_unit_end_where_systemd_ends_them(text: str, expected: list[str]) -> None:
    assert [each.value for each in unit_file.assignments(text)] == expected
