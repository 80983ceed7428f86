"""What can go wrong in `kiwi_containers`: a message, exit status 1, and nothing that is changed or left behind."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from osc_containers.oci.digest import Digest
from tests.support import images, packages, service_program
from tests.support.docker_registry import DockerRegistry
from tests.support.images import ARM64, Image
from tests.support.service_program import last_line, snapshot

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Case:
    """A package, with its registry and the arguments of the service."""

    package: Path
    registry: DockerRegistry
    arguments: list[str] = field(default_factory=lambda: ["--arch", "x86_64"])

    def edit(self, old: str, new: str, name: str = "containers.xml") -> None:
        path = self.package / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def use(self, image: Image, name: str) -> None:
        """Let the description name this image."""
        self.registry.push(image, f"bad/{name}:1.0")
        self.edit('name="app"', f'name="{name}"')

    def lock(self, text: str) -> None:
        (self.package / "containers.lock").write_text(text)


@pytest.fixture
def case(docker_registry: DockerRegistry, tmp_path: Path) -> Case:
    docker_registry.push(images.small("app"), "bad/app:1.0")
    section = packages.section(docker_registry.host, 'name="app" path="bad" tag="1.0"')
    return Case(packages.write(tmp_path / "package", section), docker_registry)


def _no_description(case: Case) -> None:
    (case.package / "appliance.kiwi").unlink()


def _a_description_that_is_not_there(case: Case) -> None:
    case.arguments.extend(["--description", "other.kiwi"])


def _a_description_of_another_package(case: Case) -> None:
    case.arguments.extend(["--description", "../package/appliance.kiwi"])


def _broken_xml(case: Case) -> None:
    case.edit("</repository>", "", "appliance.kiwi")


def _broken_included_xml(case: Case) -> None:
    case.edit("</containers>", "")


def _no_included_file(case: Case) -> None:
    (case.package / "containers.xml").unlink()


def _no_source(case: Case) -> None:
    case.edit("source=", "sauce=")


def _an_empty_source(case: Case) -> None:
    case.edit(f'source="{case.registry.host}"', 'source=""')


def _unknown_backend(case: Case) -> None:
    case.edit("podman", "lxc")


def _unknown_architecture(case: Case) -> None:
    case.arguments.extend(["--arch", "pdp11"])


def _unknown_profile(case: Case) -> None:
    case.arguments.extend(["--profile", "huge"])


def _no_such_tag(case: Case) -> None:
    case.edit('tag="1.0"', 'tag="2.0"')


def _no_such_image(case: Case) -> None:
    case.edit('name="app"', 'name="nothing"')


def _no_registry(case: Case) -> None:
    case.edit(case.registry.host, "127.0.0.1:1")


def _no_such_host(case: Case) -> None:
    case.edit(case.registry.host, "registry.invalid")


def _no_such_platform(case: Case) -> None:
    case.use(images.index(images.small("x"), images.small("x", platform=ARM64)), "index")
    case.arguments.extend(["--arch", "s390x"])


def _one_manifest_of_another_platform(case: Case) -> None:
    case.arguments[:] = ["--arch", "aarch64"]


def _helm_chart(case: Case) -> None:
    case.use(images.helm_chart(), "chart")


def _artifact(case: Case) -> None:
    case.use(images.artifact(), "artifact")


def _wrong_byte(case: Case) -> None:
    layer = images.random_layer("wrong byte", 100_000)
    case.use(images.image(layer), "wrong")
    path = case.registry.blob_file(Digest.of(layer.content))
    path.write_bytes(path.read_bytes()[:50_000] + b"X" + path.read_bytes()[50_001:])


def _wrong_byte_in_a_config(case: Case) -> None:
    made = images.small("wrong config")
    case.use(made, "config")
    path = case.registry.blob_file(Digest.of(made.blobs[0]))
    path.write_bytes(path.read_bytes().replace(b"/bin/sh", b"/bin/sy"))


def _truncated_blob(case: Case) -> None:
    layer = images.random_layer("truncated", 100_000)
    case.use(images.image(layer), "truncated")
    path = case.registry.blob_file(Digest.of(layer.content))
    path.write_bytes(path.read_bytes()[:-600])


def _missing_blob(case: Case) -> None:
    layer = images.random_layer("missing", 100_000)
    case.use(images.image(layer), "missing")
    shutil.rmtree(case.registry.blob_file(Digest.of(layer.content)).parent)


def _locked_without_a_lock(case: Case) -> None:
    case.arguments.extend(["--locked", "yes"])


def _locked_with_a_lock_of_something_else(case: Case) -> None:
    case.lock('{"containers": {}, "version": 1}')
    case.arguments.extend(["--locked", "yes"])


def _broken_lock(case: Case) -> None:
    case.lock('{"containers": ')


def _lock_in_conflict(case: Case) -> None:
    case.lock("<<<<<<< .mine\n{}\n=======\n{}\n>>>>>>> .r7\n")


def _lock_of_the_future(case: Case) -> None:
    case.lock('{"containers": {}, "version": 2}')


_CASES: list[tuple[Callable[[Case], None], str]] = [
    (_no_description, r"\.: no kiwi description, expected a file '\*\.kiwi' or 'config\.xml'"),
    (_a_description_that_is_not_there, r"other\.kiwi: No such file or directory"),
    (_a_description_of_another_package, r"'\.\./package/appliance\.kiwi': expected the name of a file in the package"),
    (_broken_xml, r"appliance\.kiwi:24: not XML; .*"),
    (_broken_included_xml, r"containers\.xml:7: not XML; .*"),
    (_no_included_file, r"appliance\.kiwi:20: include 'containers\.xml': there is no such file in the package"),
    (_no_source, r"containers\.xml:4: .*source.*"),
    (_an_empty_source, r"containers\.xml:4: .*source.*"),
    (_unknown_backend, r"containers\.xml:4: .*'lxc': expected one of podman, docker, container-snap"),
    (_unknown_architecture, r"unknown architecture 'pdp11', expected one of x86_64, .*"),
    (_unknown_profile, r"appliance\.kiwi: profile 'huge' is not declared for x86_64, expected one of 'small', 'big'"),
    (_no_such_tag, r"containers\.xml:5: HOST/bad/app:2\.0: no tag '2\.0' at HOST: HTTP 404 .*"),
    (_no_such_image, r"containers\.xml:5: HOST/bad/nothing:1\.0: no tag '1\.0' at HOST: HTTP 404 .*"),
    (_no_registry, r"containers\.xml:5: 127\.0\.0\.1:1/bad/app:1\.0: .*connection refused.*"),
    (_no_such_host, r"containers\.xml:5: registry\.invalid/bad/app:1\.0: .*cannot resolve 'registry\.invalid'.*"),
    (
        _no_such_platform,
        r"containers\.xml:5: .*no image for linux/s390x .*; available: linux/amd64, linux/arm64/v8; .*",
    ),
    (_one_manifest_of_another_platform, r"containers\.xml:5: .*\(aarch64\); it is for linux/amd64 only"),
    (_helm_chart, r".*not an image but an artifact of type 'application/vnd\.cncf\.helm\.config\.v1\+json'.*"),
    (_artifact, r".*not an image but an artifact of type 'application/vnd\.example\.thing'.*"),
    (_wrong_byte, r"HOST/bad/wrong:1\.0: blob sha256:\w{64}: got .*, 3 times; the registry .* damages it"),
    (_wrong_byte_in_a_config, r"containers\.xml:5: HOST/bad/config:1\.0: .*damages it"),
    (_truncated_blob, r"HOST/bad/truncated:1\.0: blob sha256:\w{64}: .*got .* bytes, expected \d+; .*"),
    (_missing_blob, r"HOST/bad/missing:1\.0: blob sha256:\w{64}: .*HTTP 404.*"),
    (_locked_without_a_lock, r"containers\.lock: not there, but this run is locked; .*"),
    (_locked_with_a_lock_of_something_else, r"containers\.xml:5: HOST/bad/app:1\.0 for x86_64 is not in the lock; .*"),
    (_broken_lock, r"containers\.lock: not valid JSON; .*remove the lock and run the prefetch again"),
    (_lock_in_conflict, r"containers\.lock: has merge conflict markers; .*"),
    (
        _lock_of_the_future,
        r"containers\.lock: got version 2, expected 1, .*; another release wrote it: update .*",
    ),
]


@pytest.fixture
def service(installed: Path) -> Path:
    return installed / "lib/obs/service/kiwi_containers"


def check(case: Case, done: service_program.Done, message: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "Traceback" not in done.stderr
    pattern = message.replace("HOST", re.escape(case.registry.host))
    assert re.fullmatch(f"kiwi_containers: error: {pattern}", last_line(done)), last_line(done)


@pytest.mark.parametrize(("spoil", "message"), _CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_the_last_line_says_what_is_wrong_and_nothing_is_left(
    case: Case, service: Path, spoil: Callable[[Case], None], message: str
) -> None:
    spoil(case)
    before = snapshot(case.package)
    check(case, service_program.run(service, case.package, *case.arguments), message)
    assert snapshot(case.package) == before


# The command that is run in a mount namespace of its own, with the outdir as "$1"
_SMALL = 'mount -t tmpfs -o size=64k small "$1"'
_FEW_FILES = 'mount -t tmpfs -o nr_inodes=2 few "$1"'
_FULL_AT_THE_LOCK = 'mount -t tmpfs -o size=208k full "$1"'
_READ_ONLY = 'mount -t tmpfs -o ro read-only "$1"'
_NOT_OURS = 'chmod 555 "$1"'
_GONE = 'rmdir "$1"'
_A_FILE = 'rmdir "$1"; touch "$1"'
_THERE = """
outdir=$1; shift
setpriv --bounding-set=-all --inh-caps=-all "$@" || status=$?
[ ! -d "$outdir" ] || find "$outdir" -mindepth 1
exit $status
"""


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (_SMALL, r"OUT: no space left; the archives need 212480 bytes, 65536 are free"),
        (_FEW_FILES, r"OUT/containers\.lock: No space left on device"),
        (_FULL_AT_THE_LOCK, r"OUT/containers\.lock: No space left on device"),
        (_READ_ONLY, r"OUT: Read-only file system"),
        (_NOT_OURS, r"OUT: no files can be created there"),
        (_GONE, r"OUT: No such file or directory"),
        (_A_FILE, r"OUT: Not a directory"),
    ],
)
def test_an_outdir_that_does_not_take_it(case: Case, service: Path, tmp_path: Path, state: str, message: str) -> None:
    case.use(images.image(images.random_layer("large", 200_000)), "large")
    outdir = tmp_path / "out"
    outdir.mkdir()
    before = snapshot(case.package)
    within = ["unshare", "--mount", "sh", "-ec", state + _THERE, "sh", str(outdir)]
    done = service_program.run(service, case.package, *case.arguments, outdir=outdir, within=within)
    check(case, done, message.replace("OUT", re.escape(str(outdir))))
    assert snapshot(case.package) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--locked", "perhaps"], "argument --locked: invalid choice: 'perhaps'"),
        (["--tag", "1.0"], "unrecognized arguments: --tag 1.0"),
        (["--arch"], "argument --arch: expected one argument"),
        (["appliance.kiwi"], "unrecognized arguments: appliance.kiwi"),
    ],
)
def test_wrong_usage_is_another_status(case: Case, service: Path, arguments: list[str], message: str) -> None:
    before = snapshot(case.package)
    done = service_program.run(service, case.package, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert last_line(done).startswith(f"kiwi_containers: error: {message}")
    assert snapshot(case.package) == before
