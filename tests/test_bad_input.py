"""What can go wrong in `kiwi_containers`: a message, exit status 1, and nothing that is left behind."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import images
import pytest
from docker_registry import DockerRegistry
from images import AMD64, ARM64

from osc_containers.digest import Digest

pytestmark = pytest.mark.integration

_DESCRIPTION = """\
<image schemaversion="8.0" name="appliance">
    <containers source="HOST" backend="podman">
        <container name="app" path="bad" tag="1.0"/>
    </containers>
</image>
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A package, with its registry and the arguments of the service."""

    package: Path
    registry: DockerRegistry
    arguments: list[str]

    def edit(self, old: str, new: str) -> None:
        path = self.package / "appliance.kiwi"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def name(self, image: str) -> None:
        self.edit('name="app"', f'name="{image}"')


@pytest.fixture
def case(docker_registry: DockerRegistry, tmp_path: Path) -> Case:
    docker_registry.push(images.small("app"), "bad/app:1.0")
    package = tmp_path / "package"
    package.mkdir()
    (package / "appliance.kiwi").write_text(_DESCRIPTION.replace("HOST", docker_registry.host))
    return Case(package, docker_registry, ["--arch", "x86_64"])


def _no_description(case: Case) -> None:
    (case.package / "appliance.kiwi").unlink()


def _a_description_that_is_not_there(case: Case) -> None:
    case.arguments.extend(["--description", "other.kiwi"])


def _broken_xml(case: Case) -> None:
    case.edit("</containers>", "")


def _no_source(case: Case) -> None:
    case.edit("source=", "sauce=")


def _unknown_backend(case: Case) -> None:
    case.edit("podman", "lxc")


def _unknown_architecture(case: Case) -> None:
    case.arguments.extend(["--arch", "pdp11"])


def _no_such_tag(case: Case) -> None:
    case.edit('tag="1.0"', 'tag="2.0"')


def _no_such_image(case: Case) -> None:
    case.name("nothing")


def _no_registry(case: Case) -> None:
    case.edit(case.registry.host, "connection refused")


def _no_such_platform(case: Case) -> None:
    case.registry.push(images.index(images.small("x"), images.small("x", platform=ARM64)), "bad/index:1.0")
    case.name("index")
    case.arguments.extend(["--arch", "s390x"])


def _one_manifest_of_another_platform(case: Case) -> None:
    case.arguments[:] = ["--arch", "aarch64"]


def _helm_chart(case: Case) -> None:
    case.registry.push(images.helm_chart(), "bad/chart:1.0")
    case.name("chart")


def _artifact(case: Case) -> None:
    case.registry.push(images.artifact(), "bad/artifact:1.0")
    case.name("artifact")


def _wrong_byte(case: Case) -> None:
    layer = images.random_layer("wrong byte", 100_000)
    made = images.image(layer, platform=AMD64)
    case.registry.push(made, "bad/wrong:1.0")
    path = case.registry.blob_file(Digest.of(layer.content))
    path.write_bytes(path.read_bytes()[:50_000] + b"X" + path.read_bytes()[50_001:])
    case.name("wrong")


def _locked_without_a_lock(case: Case) -> None:
    case.arguments.extend(["--locked", "yes"])


def _broken_lock(case: Case) -> None:
    (case.package / "containers.lock").write_text("<<<<<<< HEAD\n")


_CASES: list[tuple[Callable[[Case], None], str]] = [
    (_no_description, "no kiwi description"),
    (_a_description_that_is_not_there, "other.kiwi: No such file"),
    (_broken_xml, "appliance.kiwi:5: not XML"),
    (_no_source, "appliance.kiwi:2: containers: without attribute"),
    (_unknown_backend, "expected one of podman, docker, container-snap"),
    (_unknown_architecture, "'pdp11'"),
    (_no_such_tag, "no tag '2.0'"),
    (_no_such_image, "bad/nothing:1.0"),
    (_no_registry, "connection refused"),
    (_no_such_platform, "no image for linux/s390x; there are: linux/amd64, linux/arm64/v8"),
    (_one_manifest_of_another_platform, "it is for linux/amd64 only"),
    (_helm_chart, "not an image but an artifact of type 'application/vnd.cncf.helm.config.v1+json'"),
    (_artifact, "not an image but an artifact of type 'application/vnd.example.thing'"),
    (_wrong_byte, "the registry or something before it damages it"),
    (_locked_without_a_lock, "containers.lock: not there"),
    (_broken_lock, "merge-conflict markers"),
]


def contents(*directories: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for directory in directories for path in directory.rglob("*") if path.is_file()}


def run(case: Case, installed: Path, outdir: Path, mount: str = "true") -> str:
    """Run the service where `mount` was done first, and return its only line of output."""
    service = [str(installed / "lib/obs/service/kiwi_containers"), *case.arguments, "--outdir", str(outdir)]
    command = ["unshare", "--mount", "sh", "-ec", f'{mount} "$1"; shift; exec "$@"', "sh", str(outdir), *service]
    done = subprocess.run(command, cwd=case.package, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("spoil", "message"), _CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_the_last_line_says_what_is_wrong_and_nothing_is_left(
    case: Case, installed: Path, tmp_path: Path, spoil: Callable[[Case], None], message: str
) -> None:
    spoil(case)
    (tmp_path / "outdir").mkdir()
    before = contents(case.package)
    last = run(case, installed, tmp_path / "outdir")
    assert last.startswith("kiwi_containers: ")
    assert message in last
    assert contents(case.package, tmp_path / "outdir") == before


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("mount -t tmpfs -o size=64k small", "the archives need 211456 bytes, 65536 are free"),
        ("mount -t tmpfs -o ro read-only", "Read-only file system"),
        ("rmdir", "No such file or directory"),
    ],
)
def test_an_outdir_that_does_not_take_it(case: Case, installed: Path, tmp_path: Path, mount: str, message: str) -> None:
    case.registry.push(images.image(images.random_layer("large", 200_000)), "bad/large:1.0")
    case.name("large")
    (tmp_path / "outdir").mkdir()
    before = contents(case.package)
    assert message in run(case, installed, tmp_path / "outdir", mount)
    assert contents(case.package) == before
