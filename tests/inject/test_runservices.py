"""The inject service as obs-build runs it: in a root with python3 alone, as root, without a network."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from osc_containers.obs import service_file
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
UNITS = "usr/lib/systemd/system"


@pytest.fixture(scope="module")
def prefetched(installed: Path, docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a package with a container for every image, one for a profile, one for two, and one that is not loaded."""
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
    """Give a build of the package, whose sources are the package itself."""
    return BuildRoot(prefix=installed_for_debian, sources=package, scratch=tmp_path / "scratch")


def run(build: BuildRoot, arch: str = "x86_64") -> None:
    done = build.run_services(arch)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def archive(sources: Path, name: str, arch: str = "x86_64") -> Path:
    return next(sources.glob(f"*_build_{name}_1.0.{arch}.ociarchive"))


@pytest.mark.parametrize("arch", ["x86_64", "x86_64:i686:i586", "aarch64"])
def test_it_makes_overlays_by_hard_link_and_hides_the_containers(build: BuildRoot, package: Path, arch: str) -> None:
    before = snapshot(package)
    run(build, arch)
    places = {
        f"root/{ARCHIVES}/app_1.0": "app",
        f"root/{ARCHIVES}/data_1.0": "data",
        f"big/{ARCHIVES}/list_1.0": "list",
        f"big/{ARCHIVES}/both_1.0": "both",
        f"small/{ARCHIVES}/both_1.0": "both",
    }
    found = {str(path.relative_to(package)) for path in package.glob(f"*/{ARCHIVES}/*")}
    assert found == set(places)
    for place, name in places.items():
        linked = archive(package, name, arch.partition(":")[0])
        assert (package / place).samefile(linked)
        assert linked.stat().st_nlink == 1 + list(places.values()).count(name)
    after = snapshot(package)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"containers.xml"}
    assert {name.partition("/")[0] for name in set(after) - set(before)} == {"root", "big", "small"}


def test_the_units_are_those_of_what_is_loaded(build: BuildRoot, package: Path) -> None:
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


def test_everything_is_roots_and_nobody_else_can_write_it(build: BuildRoot, package: Path) -> None:
    run(build)
    for directory in ("root", "small", "big"):
        for name, entry in snapshot(package / directory).items():
            assert entry.owner == (0, 0), name
            mode = entry.mode & 0o7777
            special = {"var/tmp": {0o1777}, "usr/libexec/kiwi_containers/load": {0o755}}
            expected = special.get(name, {0o777, 0o755, 0o644})
            assert mode in expected, name
            assert mode != 0o777 or (package / directory / name).is_symlink(), name


def test_kiwi_takes_the_description_and_sees_no_containers_any_more(
    build: BuildRoot, package: Path, oracle: Oracle
) -> None:
    selections = [Selection("x86_64", profiles) for profiles in PROFILES]
    asked = oracle.ask(package / "appliance.kiwi", selections)["answers"]
    assert [len(answer["containers"]) for answer in asked] == [2, 3, 4, 4]
    run(build)
    asked = oracle.ask(package / "appliance.kiwi", selections)["answers"]
    assert asked == [{"containers": []}] * len(selections)


def test_what_is_for_profiles_that_are_not_prefetched_is_left_for_kiwi(
    build: BuildRoot, package: Path, oracle: Oracle
) -> None:
    service = package / "_service"
    service.write_text(service.read_text().replace("</param>", '</param><param name="profile">small</param>', 1))
    for path in package.glob("*_list_*.ociarchive"):
        path.unlink()
    lock = json.loads((package / "containers.lock").read_text())
    lock["containers"] = {name: locked for name, locked in lock["containers"].items() if "/list:" not in name}
    (package / "containers.lock").write_text(json.dumps(lock))
    done = build.run_services()
    assert (done.returncode, done.stdout) == (0, "")
    assert last_line(done).endswith("left for kiwi, since _service has only other profiles prefetched")
    assert {path.parts[-5] for path in package.glob(f"*/{ARCHIVES}/*")} == {"root", "small", "big"}
    answers = oracle.ask(package / "appliance.kiwi", [Selection("x86_64", profiles) for profiles in PROFILES])[
        "answers"
    ]
    assert [[each["container_file"] for each in answer["containers"]] for answer in answers] == [
        [],
        [],
        ["/var/tmp/kiwi_containers/list_1.0"],
        ["/var/tmp/kiwi_containers/list_1.0"],
    ]


def test_an_entry_without_architecture_is_for_what_it_has_locked(build: BuildRoot, package: Path) -> None:
    """Nobody says in the build root what the packager's machine was, but the lock."""
    every = service_file.Entry(name=PREFETCH, mode="manual")
    some = every._replace(parameters=(("arch", "aarch64"), ("profile", "small")))
    inject = service_file.Entry(name=INJECT, mode="buildtime")
    (package / "_service").write_bytes(service_file.created([every, some, inject]))
    path = package / "containers.lock"
    lock = json.loads(path.read_text())
    for name, locked in lock["containers"].items():
        if "/list:" in name:
            del locked["architectures"]["aarch64"]
    path.write_text(json.dumps(lock))
    done = build.run_services("aarch64")
    assert done.returncode == 0, done.stderr
    assert last_line(done).endswith("left for kiwi, since _service has only other profiles prefetched")


def test_a_description_with_a_name_that_xml_writes_otherwise(build: BuildRoot, package: Path) -> None:
    """Written by `init` and read by obs-build, which hands it on as it is written."""
    name = "größe & maß.kiwi"
    (package / "appliance.kiwi").rename(package / name)
    (package / "_service").write_bytes(service_file.completed(None, [("description", name)]))
    run(build)
    assert "<containers" not in (package / "containers.xml").read_text()


def test_only_the_elements_are_taken_out_of_the_description(build: BuildRoot, package: Path) -> None:
    text = (package / "containers.xml").read_text()
    run(build)
    left = (package / "containers.xml").read_text()
    assert "<!-- kept: ä -->" in left
    assert left.split() == re.sub("<containers.*</containers>", "", text, flags=re.DOTALL).split()


def test_containers_that_obs_build_can_see_go_too(build: BuildRoot, package: Path) -> None:
    """An old OBS does not mind them; then they are in the description itself."""
    sections = re.findall("<containers.*?</containers>", (package / "containers.xml").read_text(), re.DOTALL)
    description = package / "appliance.kiwi"
    include = '<include from="this://./containers.xml"/>'
    description.write_text(description.read_text().replace(include, "\n".join(sections)))
    run(build)
    assert not list(etree.parse(description).iter("containers"))
    assert (package / "root" / ARCHIVES / "app_1.0").is_file()


def test_the_image_has_the_files_that_the_docs_list(build: BuildRoot, package: Path) -> None:
    section = (ROOT / "docs/image.md").read_text().partition("## Files\n")[2].partition("\n#")[0]
    listed = [re.escape(path) for path in re.findall(r"^\| `(/[^`]+)`", section, re.MULTILINE)]
    patterns = [re.sub(r"NAME_TAG|BACKEND\\-NAME|\\\*", "[^/]*", path) for path in listed]
    run(build)
    found = [f"/{path.relative_to(package / 'root')}" for path in (package / "root").rglob("*") if not path.is_dir()]
    for path in found:
        assert any(re.fullmatch(pattern, path) for pattern in patterns), path
    for pattern in patterns:
        assert any(re.fullmatch(pattern, path) for path in found), pattern


def test_a_second_run_finds_nothing_to_do(build: BuildRoot, package: Path) -> None:
    run(build)
    before = snapshot(package)
    run(build)
    assert snapshot(package) == before


def test_sources_that_are_links_to_the_packagers_files_are_not_written_to(build: BuildRoot, tmp_path: Path) -> None:
    """`build --linksources` makes the sources of a local build that way."""
    own = build.sources.rename(tmp_path / "own")
    shutil.copytree(own, build.sources, copy_function=os.link)
    before = snapshot(own)
    run(build)
    assert snapshot(own) == before
    assert (build.sources / "root" / ARCHIVES / "app_1.0").samefile(archive(own, "app"))


def test_a_packagers_own_overlay_stays(build: BuildRoot, package: Path) -> None:
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
    assert f"root/{ARCHIVES}/app_1.0" in after


@pytest.mark.parametrize("name", [f"root/{UNITS}/kiwi_containers.service", f"small/{ARCHIVES}/both_1.0"])
@pytest.mark.parametrize("is_link", [False, True])
def test_a_packagers_own_file_is_not_replaced(build: BuildRoot, package: Path, name: str, is_link: bool) -> None:
    path = package / name
    path.parent.mkdir(parents=True)
    if is_link:
        path.symlink_to("mine")
    else:
        path.write_text("mine")
    before = contents(package)[name]
    done = build.run_services()
    assert done.returncode != 0
    message = f"kiwi_containers_inject: {name}: already exists with different content; rename or remove it\n"
    assert message in done.stderr
    assert contents(package)[name] == before


def test_a_packagers_own_file_may_be_the_same(build: BuildRoot, package: Path) -> None:
    path = package / "root" / ARCHIVES / "app_1.0"
    path.parent.mkdir(parents=True)
    shutil.copy(archive(package, "app"), path)
    run(build)
    assert path.samefile(archive(package, "app"))


@pytest.mark.parametrize(("name", "option"), [("root.tar.gz", "-z"), ("root.tar", "--format=gnu")])
def test_a_packagers_own_overlay_in_a_tar_stays(
    build: BuildRoot, package: Path, tmp_path: Path, name: str, option: str
) -> None:
    """Where there is a root/, as there will be now, kiwi ignores it."""
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
    assert f"{ARCHIVES}/app_1.0" in entries


def _link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def test_a_packagers_own_file_in_a_tar_is_not_replaced(build: BuildRoot, package: Path, tmp_path: Path) -> None:
    """obs-build unpacks every root.tar* after us."""
    name = f"{UNITS}/kiwi_containers.service"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("mine")
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(package / "root.tar"), "usr"], check=True)
    before = snapshot(package)
    done = build.run_services()
    assert done.returncode != 0
    assert f"kiwi_containers_inject: root/{name}: already exists with different content" in done.stderr
    assert snapshot(package) == before


@pytest.mark.parametrize("name", ["root", "small"])
@pytest.mark.parametrize("make", [_link_to("/etc"), _link_to("nowhere"), Path.touch], ids=["link", "dangling", "file"])
def test_a_root_that_is_no_directory_is_refused(
    build: BuildRoot, package: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(package / name)
    before = snapshot(package)
    done = build.run_services()
    assert done.returncode != 0
    assert done.stdout == ""
    assert f"kiwi_containers_inject: {name}: got a file or a link, expected an overlay directory" in done.stderr
    assert snapshot(package) == before


@pytest.mark.parametrize("target", ["/etc", "../../../../../../..", "/usr/src/packages/SOURCES"])
def test_links_in_an_overlay_lead_nowhere_outside(build: BuildRoot, package: Path, target: str) -> None:
    (package / "root/usr").mkdir(parents=True)
    for name in ("var", "usr/lib"):
        (package / "root" / name).symlink_to(target)
    before = contents(package)
    run(build)
    outside = {name for name in contents(package) if not name.startswith(("root/", "small/", "big/"))}
    assert outside == {name for name in before if not name.startswith("root/")}
    assert next((package / "root").rglob("app_1.0")).samefile(archive(package, "app"))


def test_without_a_build_it_verifies_and_changes_nothing(build: BuildRoot, package: Path) -> None:
    before = snapshot(package)
    done = build.run_services(arch="")
    assert (done.returncode, done.stdout) == (0, "")
    assert last_line(done) == "kiwi_containers_inject: not in a build root: 8 archives verified, nothing changed"
    assert snapshot(package) == before


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("s390x", r"containers\.xml:5: \S+/build/app:1\.0 for s390x is not in the lock; .*"),
        ("x86_64_v9", r".*'x86_64_v9'.*"),
    ],
)
def test_a_build_of_what_was_not_fetched_fails(build: BuildRoot, package: Path, arch: str, message: str) -> None:
    before = snapshot(package)
    done = build.run_services(arch)
    assert done.returncode != 0
    assert re.search(f"^kiwi_containers_inject: {message}$", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(package) == before


def test_a_damaged_archive_fails_the_build(build: BuildRoot, package: Path) -> None:
    archive(package, "app").write_bytes(b"")
    before = snapshot(package)
    done = build.run_services()
    assert done.returncode != 0
    assert last_line(done) == "service run failed for service 'kiwi_containers_inject'"
    assert snapshot(package) == before


def test_descriptions_may_share_their_containers(build: BuildRoot, package: Path) -> None:
    """As a copy of the sources has two where there was a link; OBS builds one of them, nobody says which."""
    shutil.copy(package / "appliance.kiwi", package / "config.xml")
    run(build)
    assert (package / f"root/{ARCHIVES}/app_1.0").is_file()
    assert "<containers" not in (package / "containers.xml").read_text()


def test_the_description_can_be_chosen(build: BuildRoot, package: Path) -> None:
    kiwi = (package / "appliance.kiwi").read_text()
    (package / "other.kiwi").write_text(kiwi.replace("containers.xml", "other.xml"))
    shutil.copy(package / "containers.xml", package / "other.xml")
    assert "name the image's with 'description'" in build.run_services().stderr
    service = package / "_service"
    chosen = '<param name="description">appliance.kiwi</param><param name="description"></param>'
    service.write_text(service.read_text().replace('mode="buildtime"/>', f'mode="buildtime">{chosen}</service>'))
    run(build)
    assert (package / "root" / ARCHIVES / "app_1.0").is_file()


def test_outside_of_a_build_root_it_changes_nothing_whatever_the_environment(installed: Path, package: Path) -> None:
    """Neither in a plain copy of a package nor in a directory of a repository, and not as root either."""
    (package.parent / ".git").mkdir()
    before = snapshot(package)
    service = installed / "lib/obs/service/kiwi_containers_inject"
    done = service_program.run(service, package, environment={"BUILD_ARCH": "x86_64", "BUILD_ROOT": "/"})
    assert last_line(done) == "kiwi_containers_inject: not in a build root: 8 archives verified, nothing changed"
    assert snapshot(package) == before
