"""The inject service as obs-build runs it: as root and without a network, in a root that has only python3."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from osc_containers.obs import service_editor, service_file
from osc_containers.obs.parameters import INJECT, PREFETCH
from tests.support import images, packages, service_program
from tests.support.build_root import BuildRoot
from tests.support.docker_registry import DockerRegistry
from tests.support.kiwi_peer import Oracle, Selection
from tests.support.service_program import contents, last_line, snapshot

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
PROFILES: list[tuple[str, ...]] = [(), ("small",), ("big",), ("small", "big")]
ARCHIVES = "var/tmp/kiwi_containers"
LAYOUTS = "var/lib/kiwi_containers/layouts"
UNITS = "usr/lib/systemd/system"


@pytest.fixture(scope="module")
def prefetched(installed: Path, docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package with containers for every image, for one profile and for two, and one that is not loaded."""
    host = docker_registry.host
    for name in ("app", "both", "list", "data"):
        docker_registry.push(images.multi_platform(name, docker=name == "list"), f"build/{name}:1.0")
    container = 'name="{}" path="build" tag="1.0"'.format
    package = packages.write(
        tmp_path_factory.mktemp("any") / "package",
        packages.section(host, container("app"), f'{container("data")} fetch_only="true"'),
        packages.section(host, container("list"), backend="docker", profiles="big"),
        packages.section(host, container("both"), profiles="small,big"),
    )
    done = service_program.run(
        installed / "lib/obs/service/kiwi_containers",
        package,
        "--arch=x86_64,aarch64",
        environment={"HOME": str(package.parent)},
    )
    assert done.returncode == 0, done.stderr
    return package


@pytest.fixture
def build(installed_for_debian: Path, package: Path, tmp_path: Path) -> BuildRoot:
    """Return a build whose sources are the package itself."""
    return BuildRoot(prefix=installed_for_debian, sources=package, scratch=tmp_path / "scratch")


def run(build: BuildRoot, arch: str = "x86_64") -> None:
    done = build.run_services(arch)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def archive(sources: Path, name: str, arch: str = "x86_64") -> Path:
    return next(sources.glob(f"*_build_{name}_1.0.{arch}.ociarchive"))


@pytest.mark.parametrize("arch", ["x86_64", "x86_64:i686:i586", "aarch64"])
def test_blobs_are_stored_once_and_containers_are_removed(build: BuildRoot, package: Path, arch: str) -> None:
    before = snapshot(package)
    run(build, arch)
    layouts = {str(path.relative_to(package)) for path in package.glob(f"*/{LAYOUTS}/*")}
    assert layouts == {
        f"{name}_1.0"
        for name in (
            f"root/{LAYOUTS}/app",
            *(f"{each}/{LAYOUTS}/both" for each in ("big", "small")),
            f"big/{LAYOUTS}/list",
        )
    }
    files: dict[str, set[int]] = {}
    for path in package.glob(f"*/{LAYOUTS}/*/blobs/sha256/*"):
        files.setdefault(path.name, set()).add(path.stat().st_ino)
    assert {len(inodes) for inodes in files.values()} == {1}
    assert [path.name for path in package.glob(f"*/{ARCHIVES}/*")] == ["data_1.0"]
    source = archive(package, "data", arch.partition(":")[0])
    assert (package / f"root/{ARCHIVES}/data_1.0").samefile(source)
    assert source.stat().st_nlink == 2
    after = snapshot(package)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"containers.xml"}
    assert {name.partition("/")[0] for name in set(after) - set(before)} == {"root", "big", "small"}


_ALL = {"app", "data", "both", "list"}


@pytest.mark.parametrize(
    ("comment", "flavor", "expected"),
    [
        ("", "", {"": {"app", "data"}}),
        ("OBS-Profiles: small", "", {"-small": {"app", "data", "both"}}),
        ("OBS-Profiles: @BUILD_FLAVOR@", "", {"-small": {"app", "data", "both"}, "-big": _ALL}),
        ("OBS-Profiles: @BUILD_FLAVOR@", "appliance:big", {"-big": _ALL}),
        ("OBS-Profiles: small big", "appliance:x", {"-x-small": {"app", "data", "both"}, "-x-big": _ALL}),
    ],
)
def test_every_image_has_its_own_sbom(
    build: BuildRoot, package: Path, comment: str, flavor: str, expected: dict[str, set[str]]
) -> None:
    service = (package / "_service").read_text()
    parameters = "".join(f'<param name="sbom">{name}</param>' for name in ("spdx", "cyclonedx"))
    line = '<service name="kiwi_containers_inject" mode="buildtime"/>'
    assert line in service
    parameters += '<param name="engine">containerd=*/build/data:*</param>'
    (package / "_service").write_text(service.replace(line, f"{line[:-2]}>{parameters}</service>"))
    description = (package / "appliance.kiwi").read_text()
    if comment:
        description = description.replace("<image ", f"<!-- {comment} -->\n<image ", 1)
    (package / "appliance.kiwi").write_text(description)
    (package / "_multibuild").write_text("<multibuild><flavor>small</flavor><flavor>big</flavor></multibuild>")
    done = build.run_services(package=flavor)
    assert done.returncode == 0, done.stderr
    assert ("if the project configuration chooses one (kiwiprofile)" in done.stderr) == (not comment)
    assert len(done.stdout.splitlines()) == len(list(build.results.iterdir())), done.stdout
    assert (package / f"root/{UNITS}/kiwi_containers-containerd-data_1.0.service").exists()
    written = {path.name: set(re.findall(r'/build/([a-z]+)"', path.read_text())) for path in build.results.iterdir()}
    assert written == {
        f"appliance.x86_64-1.0.0{suffix}.containers.{each}.json": names
        for suffix, names in expected.items()
        for each in ("cdx", "spdx")
    }
    documents = list(package.glob("*/usr/share/kiwi_containers/*.cdx.json"))
    assert {path.name for path in documents} >= {"containers.cdx.json", "containers-big.cdx.json"}


def test_a_policy_in_the_build_root_can_fail_the_build(build: BuildRoot, package: Path, tmp_path: Path) -> None:
    prefix = shutil.copytree(build.prefix, tmp_path / "prefix", symlinks=True)
    policy = prefix / "share/osc-containers/policy.json"
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text(json.dumps({"default": [{"type": "reject"}]}))
    before = snapshot(package)
    done = BuildRoot(prefix=prefix, sources=package, scratch=build.scratch).run_services()
    assert done.returncode == 1
    assert "build/app:1.0 (x86_64): /usr/share/osc-containers/policy.json rejects it (scope default)" in done.stderr
    assert snapshot(package) == before


def test_each_overlay_has_the_units_of_its_containers(build: BuildRoot, package: Path) -> None:
    run(build)
    podman = "kiwi_containers-podman-{}_1.0.service".format
    units = {
        directory: {path.name for path in (package / directory / UNITS).glob("*.service")} - {"kiwi_containers.service"}
        for directory in ("root", "small", "big")
    }
    assert units == {
        "root": {podman("app")},
        "small": {podman("both")},
        "big": {podman("both"), "kiwi_containers-docker-list_1.0.service"},
    }


def test_all_files_belong_to_root_and_only_root_can_write(build: BuildRoot, package: Path) -> None:
    run(build)
    for directory in ("root", "small", "big"):
        for name, entry in snapshot(package / directory).items():
            assert entry.owner == (0, 0), name
            mode = entry.mode & 0o7777
            special = {"var/tmp": {0o1777}, "usr/libexec/kiwi_containers/load": {0o755}}
            expected = special.get(name, {0o777, 0o755, 0o644})
            assert mode in expected, name
            assert mode != 0o777 or (package / directory / name).is_symlink(), name


def test_kiwi_accepts_the_description_remove_containers(build: BuildRoot, package: Path, oracle: Oracle) -> None:
    selections = [Selection("x86_64", profiles) for profiles in PROFILES]
    answers = oracle.ask(package / "appliance.kiwi", selections)["answers"]
    assert [len(answer["containers"]) for answer in answers] == [2, 3, 4, 4]
    run(build)
    answers = oracle.ask(package / "appliance.kiwi", selections)["answers"]
    assert answers == [{"containers": []}] * len(selections)


def test_containers_of_other_profiles_are_left_to_kiwi(build: BuildRoot, package: Path, oracle: Oracle) -> None:
    service = package / "_service"
    service.write_text(service.read_text().replace("</param>", '</param><param name="profile">small</param>', 1))
    for path in package.glob("*_list_*.ociarchive"):
        path.unlink()
    lock = json.loads((package / "containers.lock").read_text())
    lock["containers"] = {name: locked for name, locked in lock["containers"].items() if "/list:" not in name}
    (package / "containers.lock").write_text(json.dumps(lock))
    done = build.run_services()
    assert (done.returncode, done.stdout) == (0, "")
    assert last_line(done).endswith("not injected, because _service prefetches other profiles only")
    layouts = {str(path.relative_to(package)) for path in package.glob(f"*/{LAYOUTS}/*")}
    assert layouts == {f"root/{LAYOUTS}/app_1.0", f"small/{LAYOUTS}/both_1.0", f"big/{LAYOUTS}/both_1.0"}
    answers = oracle.ask(package / "appliance.kiwi", [Selection("x86_64", profiles) for profiles in PROFILES])[
        "answers"
    ]
    assert [[each["container_file"] for each in answer["containers"]] for answer in answers] == [
        [],
        [],
        ["/var/tmp/kiwi_containers/list_1.0"],
        ["/var/tmp/kiwi_containers/list_1.0"],
    ]


def test_entry_without_arch_uses_the_locked_architectures(build: BuildRoot, package: Path) -> None:
    """In the build root, only the lock tells for which machine the packager prefetched."""
    every = service_file.Entry(name=PREFETCH, mode="manual")
    some = every._replace(parameters=(("arch", "aarch64"), ("profile", "small")))
    inject = service_file.Entry(name=INJECT, mode="buildtime")
    (package / "_service").write_bytes(service_editor.create([every, some, inject]))
    path = package / "containers.lock"
    lock = json.loads(path.read_text())
    for name, locked in lock["containers"].items():
        if "/list:" in name:
            del locked["architectures"]["aarch64"]
    path.write_text(json.dumps(lock))
    done = build.run_services("aarch64")
    assert done.returncode == 0, done.stderr
    assert last_line(done).endswith("not injected, because _service prefetches other profiles only")


def test_description_name_with_xml_escapes(build: BuildRoot, package: Path) -> None:
    """`init` escapes the name in `_service`, and obs-build passes it on without unescaping it."""
    name = "größe & maß.kiwi"
    (package / "appliance.kiwi").rename(package / name)
    (package / "_service").write_bytes(service_editor.add_our_services(None, [("description", name)]))
    run(build)
    assert "<containers" not in (package / "containers.xml").read_text()


def test_only_containers_elements_are_removed(build: BuildRoot, package: Path) -> None:
    text = (package / "containers.xml").read_text()
    run(build)
    edited = (package / "containers.xml").read_text()
    assert "<!-- kept: ä -->" in edited
    assert edited.split() == re.sub("<containers.*</containers>", "", text, flags=re.DOTALL).split()


def test_containers_in_the_description_itself_are_removed(build: BuildRoot, package: Path) -> None:
    """An old OBS accepts <containers> in the description itself."""
    sections = re.findall("<containers.*?</containers>", (package / "containers.xml").read_text(), re.DOTALL)
    description = package / "appliance.kiwi"
    include = '<include from="this://./containers.xml"/>'
    description.write_text(description.read_text().replace(include, "\n".join(sections)))
    run(build)
    assert not list(etree.parse(description).iter("containers"))
    assert (package / "root" / LAYOUTS / "app_1.0").is_dir()


def test_image_has_the_documented_files(build: BuildRoot, package: Path) -> None:
    section = (ROOT / "docs/image.md").read_text().partition("## Files\n")[2].partition("\n#")[0]
    listed = [re.escape(path) for path in re.findall(r"^\| `(/[^`]+)`", section, re.MULTILINE)]
    patterns = [re.sub(r"NAME_TAG|BACKEND\\-ID|\\\*", "[^/]*", path) for path in listed]
    patterns = [path.replace("ID/", "[^/]*/.*") for path in patterns]
    run(build)
    found = [f"/{path.relative_to(package / 'root')}" for path in (package / "root").rglob("*") if not path.is_dir()]
    for path in found:
        assert any(re.fullmatch(pattern, path) for pattern in patterns), path
    for pattern in patterns:
        assert any(re.fullmatch(pattern, path) for path in found), pattern


def test_second_inject_changes_nothing(build: BuildRoot, package: Path) -> None:
    run(build)
    before = snapshot(package)
    run(build)
    assert snapshot(package) == before


def test_hard_linked_sources_are_not_modified(build: BuildRoot, tmp_path: Path) -> None:
    """`build --linksources` hard-links the sources of a local build."""
    own = build.sources.rename(tmp_path / "own")
    shutil.copytree(own, build.sources, copy_function=os.link)
    before = snapshot(own)
    run(build)
    assert snapshot(own) == before
    assert (build.sources / "root" / ARCHIVES / "data_1.0").samefile(archive(own, "data"))


def test_existing_overlay_is_kept(build: BuildRoot, package: Path) -> None:
    for name, mode in (("root/etc/motd", 0o640), (f"root/{UNITS}/own.service", 0o644), ("small/etc/motd", 0o600)):
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        path.chmod(mode)
    before = snapshot(package)
    run(build)
    after = snapshot(package)
    assert {name: entry for name, entry in after.items() if name in before and name != "containers.xml"} == {
        name: entry for name, entry in before.items() if name != "containers.xml"
    }
    assert f"root/{LAYOUTS}/app_1.0/index.json" in after


@pytest.mark.parametrize("name", [f"root/{UNITS}/kiwi_containers.service", f"small/{LAYOUTS}/both_1.0/index.json"])
@pytest.mark.parametrize("is_link", [False, True])
def test_existing_file_is_not_replaced(build: BuildRoot, package: Path, name: str, is_link: bool) -> None:
    path = package / name
    path.parent.mkdir(parents=True)
    if is_link:
        path.symlink_to("mine")
    else:
        path.write_text("mine")
    before = contents(package)[name]
    done = build.run_services()
    assert done.returncode != 0
    message = f"kiwi_containers_inject: error: {name}: already exists with different content; rename or remove it\n"
    assert message in done.stderr
    assert contents(package)[name] == before


def test_existing_identical_file_is_accepted(build: BuildRoot, package: Path) -> None:
    path = package / "root" / ARCHIVES / "data_1.0"
    path.parent.mkdir(parents=True)
    shutil.copy(archive(package, "data"), path)
    run(build)
    assert path.samefile(archive(package, "data"))


@pytest.mark.parametrize(("name", "option"), [("root.tar.gz", "-z"), ("root.tar", "--format=gnu")])
def test_overlay_in_a_root_tar_is_kept(build: BuildRoot, package: Path, tmp_path: Path, name: str, option: str) -> None:
    """If there is a root/, which inject creates, kiwi ignores root.tar.gz."""
    (tmp_path / "etc/secret").mkdir(mode=0o700, parents=True)
    (tmp_path / "etc/secret/own").write_text("mine")
    (tmp_path / "etc/link").symlink_to("secret")
    command = ["tar", "-C", str(tmp_path), "--owner=12", "--group=34", option, "-cf", str(package / name), "etc"]
    subprocess.run(command, check=True)
    run(build)
    entries = snapshot(package / "root")
    assert entries["etc/secret/own"].owner == (12, 34)
    assert entries["etc/secret"].mode & 0o7777 == 0o700
    assert entries["etc/link"].content == "secret"
    assert f"{LAYOUTS}/app_1.0/index.json" in entries


def _link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def test_file_in_a_root_tar_is_not_replaced(build: BuildRoot, package: Path, tmp_path: Path) -> None:
    """obs-build unpacks every root.tar* after the service has run."""
    name = f"{UNITS}/kiwi_containers.service"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("mine")
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(package / "root.tar"), "usr"], check=True)
    before = snapshot(package)
    done = build.run_services()
    assert done.returncode != 0
    assert f"kiwi_containers_inject: error: root/{name}: already exists with different content" in done.stderr
    assert snapshot(package) == before


@pytest.mark.parametrize("name", ["root", "small"])
@pytest.mark.parametrize("make", [_link_to("/etc"), _link_to("nowhere"), Path.touch], ids=["link", "dangling", "file"])
def test_overlay_that_is_not_a_directory_is_refused(
    build: BuildRoot, package: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(package / name)
    before = snapshot(package)
    done = build.run_services()
    assert done.returncode != 0
    assert done.stdout == ""
    assert f"kiwi_containers_inject: error: {name}: got a file or symlink, expected an overlay directory" in done.stderr
    assert snapshot(package) == before


@pytest.mark.parametrize("target", ["/etc", "../../../../../../..", "/usr/src/packages/SOURCES"])
def test_symlinks_in_an_overlay_do_not_leave_it(build: BuildRoot, package: Path, target: str) -> None:
    (package / "root/usr").mkdir(parents=True)
    for name in ("var", "usr/lib"):
        (package / "root" / name).symlink_to(target)
    before = contents(package)
    run(build)
    outside = {name for name in contents(package) if not name.startswith(("root/", "small/", "big/"))}
    assert outside == {name for name in before if not name.startswith("root/")}
    assert next((package / "root").rglob("data_1.0")).samefile(archive(package, "data"))
    assert next((package / "root").rglob("app_1.0/index.json")).is_file()


def test_outside_a_build_it_only_verifies(build: BuildRoot, package: Path) -> None:
    before = snapshot(package)
    done = build.run_services(arch="")
    assert (done.returncode, done.stdout) == (0, "")
    assert last_line(done) == "kiwi_containers_inject: not in a build root: 8 images verified, nothing changed"
    assert snapshot(package) == before


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("s390x", r"containers\.xml:5: \S+/build/app:1\.0 for s390x is not in the lock; .*"),
        ("x86_64_v9", r".*'x86_64_v9'.*"),
    ],
)
def test_build_fails_for_an_arch_that_is_not_prefetched(
    build: BuildRoot, package: Path, arch: str, message: str
) -> None:
    before = snapshot(package)
    done = build.run_services(arch)
    assert done.returncode != 0
    assert re.search(f"^kiwi_containers_inject: error: {message}$", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(package) == before


def test_damaged_archive_fails_the_build(build: BuildRoot, package: Path) -> None:
    archive(package, "app").write_bytes(b"")
    before = snapshot(package)
    done = build.run_services()
    assert done.returncode != 0
    assert last_line(done) == "service run failed for service 'kiwi_containers_inject'"
    assert snapshot(package) == before


def test_descriptions_may_share_containers(build: BuildRoot, package: Path) -> None:
    """A copy of the sources turns a symlinked description into a second one; OBS does not tell which it builds."""
    shutil.copy(package / "appliance.kiwi", package / "config.xml")
    run(build)
    assert (package / f"root/{LAYOUTS}/app_1.0").is_dir()
    assert "<containers" not in (package / "containers.xml").read_text()


def test_description_can_be_selected(build: BuildRoot, package: Path) -> None:
    kiwi = (package / "appliance.kiwi").read_text()
    (package / "other.kiwi").write_text(kiwi.replace("containers.xml", "other.xml"))
    shutil.copy(package / "containers.xml", package / "other.xml")
    assert "select one with 'description'" in build.run_services().stderr
    service = package / "_service"
    parameters = '<param name="description">appliance.kiwi</param><param name="description"></param>'
    service.write_text(service.read_text().replace('mode="buildtime"/>', f'mode="buildtime">{parameters}</service>'))
    run(build)
    assert (package / "root" / LAYOUTS / "app_1.0").is_dir()


def test_build_environment_alone_is_not_a_build_root(installed: Path, package: Path) -> None:
    """BUILD_ARCH may be set in any shell, even by root in a git checkout."""
    (package.parent / ".git").mkdir()
    before = snapshot(package)
    service = installed / "lib/obs/service/kiwi_containers_inject"
    done = service_program.run(service, package, environment={"BUILD_ARCH": "x86_64", "BUILD_ROOT": "/"})
    assert last_line(done) == "kiwi_containers_inject: not in a build root: 8 images verified, nothing changed"
    assert snapshot(package) == before
