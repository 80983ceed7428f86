"""The services run by osc from PyPI, in a working copy, against a real registry."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import images, obs_stub, osc_program, packages, service_program
from tests.support.docker_registry import DockerRegistry, Request
from tests.support.service_program import contents, snapshot

pytestmark = pytest.mark.integration

_IMAGES = {
    "index": images.multi_platform("index"),
    "list": images.multi_platform("list", docker=True),
    "single": images.small("single"),
}
_ARCHIVES = [f"{name}_1.0.{arch}" for name in ("index", "list") for arch in ("x86_64", "aarch64")] + [
    "single_1.0.x86_64"
]


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """Return the URL of a stub of the OBS API."""
    with obs_stub.serve() as url:
        yield url


@pytest.fixture(scope="module")
def registry(docker_registry: DockerRegistry) -> DockerRegistry:
    """Return a registry that serves an index with an attestation, a Docker manifest list and a single manifest."""
    for name, image in _IMAGES.items():
        docker_registry.push(image, f"osc/{name}:1.0")
    return docker_registry


def make(directory: Path, registry: DockerRegistry, api: str, *, mode: str = "manual") -> Path:
    """Make a working copy of a package whose description names the three images."""
    containers = ('name="index" path="osc" tag="1.0"', 'name="list" path="osc" tag="1.0"')
    single = 'name="single" path="osc" tag="1.0" arch="x86_64"'
    package = packages.write(directory, packages.section(registry.host, *containers, single), mode=mode)
    obs_stub.check_out(package, api)
    return package


@pytest.fixture
def working_copy(api: str, registry: DockerRegistry, tmp_path: Path) -> Path:
    """Return a working copy; osc's login is in the home directory."""
    osc_program.log_in(api)
    return make(tmp_path / "package", registry, api)


def run_osc(package: Path, installed: Path, *arguments: str, umask: int = 0o022, **environment: str) -> str:
    done = osc_program.run(*arguments, prefix=installed, directory=package, umask=umask, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def results(registry: DockerRegistry, prefix: str = "") -> set[str]:
    """Return the names of the files that the service writes."""
    host = registry.host.replace(":", "_")
    return {f"{prefix}containers.lock", *(f"{prefix}{host}_osc_{name}.ociarchive" for name in _ARCHIVES)}


def requests_since(registry: DockerRegistry, count: int) -> Sequence[Request]:
    """Return the requests after the first `count`, after asserting that none was for a blob."""
    requests = registry.requests()[count:]
    assert not [request for request in requests if request.is_blob]
    return requests


@pytest.mark.parametrize("command", ["runall", "manualrun"])
def test_service_fetches_every_kind_of_image_once(
    working_copy: Path, installed: Path, registry: DockerRegistry, command: str
) -> None:
    own = snapshot(working_copy)
    output = run_osc(working_copy, installed, "service", command)
    first = snapshot(working_copy)
    assert {name: entry for name, entry in first.items() if name in own} == own
    assert set(first) - set(own) == results(registry)
    assert ("not in a build root: 5 images verified, nothing changed" in output) == (command == "runall")
    assert {entry.mode & 0o7777 for name, entry in first.items() if name in results(registry)} == {0o644}

    count = len(registry.requests())
    run_osc(working_copy, installed, "service", command)
    assert snapshot(working_copy) == first
    assert len(requests_since(registry, count)) <= len(_IMAGES)


def test_only_a_moved_tag_is_fetched(working_copy: Path, installed: Path, registry: DockerRegistry) -> None:
    run_osc(working_copy, installed, "service", "manualrun")
    first = contents(working_copy)
    registry.push(images.multi_platform("moved"), "osc/index:1.0")
    try:
        output = run_osc(working_copy, installed, "service", "manualrun")
    finally:
        registry.push(_IMAGES["index"], "osc/index:1.0")
    second = contents(working_copy)
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {name for name in results(registry) if "_index_" in name or name == "containers.lock"}
    assert output.count(": moved from sha256:") == 2
    assert output.count(": unchanged, sha256:") == 3


def test_locked_run_ignores_a_moved_tag(working_copy: Path, installed: Path, registry: DockerRegistry) -> None:
    run_osc(working_copy, installed, "service", "manualrun")
    first = contents(working_copy)
    service = working_copy / "_service"
    service.write_text(service.read_text().replace("</param>", '</param> <param name="locked">yes</param>', 1))
    registry.push(images.multi_platform("moved"), "osc/index:1.0")
    try:
        for archive in working_copy.glob("*_index_*.ociarchive"):
            archive.unlink()
        run_osc(working_copy, installed, "service", "manualrun")
    finally:
        registry.push(_IMAGES["index"], "osc/index:1.0")
    assert {**contents(working_copy), "_service": first["_service"]} == first


def test_multiline_parameters_and_one_entry_per_description(
    working_copy: Path, installed: Path, registry: DockerRegistry
) -> None:
    kiwi = (working_copy / "appliance.kiwi").read_text()
    (working_copy / "b.kiwi").write_text(kiwi.replace("containers.xml", "b.xml").replace("small", "tiny"))
    section = packages.section(registry.host, 'name="single" path="osc" tag="1.0"', profiles="tiny")
    (working_copy / "b.xml").write_text(packages.CONTAINERS.format(sections=section))
    entry = '<service name="kiwi_containers" mode="manual">%s</service>'
    param = '\n<param name="%s">\n  %s\n</param>'
    for_a = [("description", "appliance.kiwi"), ("arch", "aarch64"), ("profile", "small"), ("locked", "no")]
    for_b = [("description", "b.kiwi"), ("arch", "x86_64"), ("profile", "tiny")]
    entries = [entry % "".join(param % each for each in parameters) for parameters in (for_a, for_b)]
    entries.append(
        '<service name="kiwi_containers_inject" mode="buildtime"><param name="description">b.kiwi</param></service>'
    )
    (working_copy / "_service").write_text(f"<services>{''.join(entries)}</services>")
    assert "not in a build root: 3 images verified" in run_osc(working_copy, installed, "service", "runall")


def test_automatic_runs_reuse_results_in_old(working_copy: Path, installed: Path, registry: DockerRegistry) -> None:
    """`osc service run NAME` adds a prefix to results, and moves those of the previous run to .old meanwhile."""
    own = snapshot(working_copy)
    run_osc(working_copy, installed, "service", "run", "kiwi_containers")
    first = snapshot(working_copy)
    assert set(first) - set(own) == results(registry, "_service:kiwi_containers:")

    count = len(registry.requests())
    run_osc(working_copy, installed, "service", "run", "kiwi_containers")
    assert unlocked(snapshot(working_copy)) == unlocked(first)
    assert contents(working_copy) == {name: entry.content for name, entry in first.items() if entry.content}
    assert "5 images verified" in run_osc(working_copy, installed, "containers", "verify")

    run_osc(working_copy, installed, "service", "runall")
    assert set(contents(working_copy)) - {name for name, entry in own.items() if entry.content} == results(registry)
    requests_since(registry, count)


def unlocked(entries: dict[str, service_program.Entry]) -> dict[str, service_program.Entry]:
    """Return all entries except locks, which are rewritten if their name had a prefix before."""
    return {name: entry for name, entry in entries.items() if not name.endswith(".lock")}


@pytest.mark.parametrize("mode", ["trylocal", "localonly", ""])
def test_service_runs_in_every_osc_mode(
    api: str, registry: DockerRegistry, installed: Path, tmp_path: Path, mode: str
) -> None:
    osc_program.log_in(api)
    package = make(tmp_path / "package", registry, api, mode=mode)
    if not mode:
        (package / "_service").write_text((package / "_service").read_text().replace(' mode=""', ""))
    own = contents(package)
    run_osc(package, installed, "service", "run")
    first = contents(package)
    assert set(first) - set(own) == results(registry, "" if mode else "_service:kiwi_containers:")
    count = len(registry.requests())
    run_osc(package, installed, "service", "run")
    assert contents(package) == first
    requests_since(registry, count)


def test_service_runs_with_debians_python(working_copy: Path, installed_for_debian: Path) -> None:
    run_osc(working_copy, installed_for_debian, "service", "runall")
    assert "5 images verified" in run_osc(working_copy, installed_for_debian, "containers", "verify")


def test_two_clones_get_identical_files(working_copy: Path, installed: Path, tmp_path: Path) -> None:
    clones = [shutil.copytree(working_copy, tmp_path / name) for name in ("a", "b/another one/ä")]
    elsewhere = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "LANG": "de_DE.UTF-8", "PYTHONHASHSEED": "1", "COLUMNS": "20"}
    run_osc(clones[0], installed, "service", "manualrun", TZ="UTC", LC_ALL="C.UTF-8", PYTHONHASHSEED="0")
    run_osc(clones[1], installed, "service", "manualrun", umask=0o077, **elsewhere)
    assert fingerprint(clones[1]) == fingerprint(clones[0])


def fingerprint(package: Path) -> dict[str, service_program.Entry]:
    """Return content and mode of a package's files, without inode, modification time and owner."""
    entries = snapshot(package).items()
    return {
        name: replace(entry, inode=0, modified=0, owner=(0, 0))
        for name, entry in entries
        if entry.content and not name.startswith(".osc/")
    }


_AS_ANOTHER_USER = """
chown -R 65534:65534 "$1"
mount --bind "$2/lib" /mnt
cd "$1"
exec setpriv --reuid=65534 --regid=65534 --clear-groups \
    /mnt/obs/service/kiwi_containers --arch x86_64,aarch64 --outdir "$1"
"""


def test_another_user_gets_identical_files(working_copy: Path, installed: Path, installed_for_debian: Path) -> None:
    run_osc(working_copy, installed, "service", "manualrun")
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o755)
        clone = Path(home, "clone")
        clone.mkdir()
        for name in ("appliance.kiwi", "containers.xml", "_service"):
            shutil.copy(working_copy / name, clone)
        command = ["unshare", "--mount", "sh", "-ec", _AS_ANOTHER_USER, "sh", str(clone), str(installed_for_debian)]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(clone / "nowhere"), "LC_ALL": "C"}
        done = subprocess.run(command, env=environment, umask=0o027, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert fingerprint(clone) == fingerprint(working_copy)
