"""The installed command: its output, its exit status, and how it handles interrupts and limits."""

import hashlib
import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from osc_containers.archive.layout import lay_out
from osc_containers.lock import lockfile
from osc_containers.lock.lockfile import Lock, LockedImage, LockedReference
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Manifest, parse_document
from osc_containers.oci.reference import Reference
from osc_containers.registry.retry import Policy
from tests.support import fault_registry, faults, images, packages
from tests.support.docker_registry import DockerRegistry
from tests.support.fault_registry import Request
from tests.support.service_program import Done, snapshot

pytestmark = pytest.mark.integration

_KIWI_DOCUMENTATION = """\
<image schemaversion="8.0" name="documentation">
    <containers source="registry.opensuse.org" backend="podman">
        <container name="some"/>
    </containers>
    <containers source="registry.opensuse.org" backend="container-snap">
        <container name="opensuse/bootable" tag="slowroll"/>
    </containers>
</image>
"""


@pytest.fixture(scope="module")
def package(installed: Path, docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package with lock and archives; tests only read it."""
    docker_registry.push(images.multi_platform("cli"), "cli/app:1.0")
    docker_registry.push(images.small("cli"), "cli/tool:latest")
    package = packages.write(
        tmp_path_factory.mktemp("any") / "package",
        packages.section(docker_registry.host, 'name="app" path="cli" tag="1.0"'),
        packages.section(
            docker_registry.host,
            'name="tool" path="cli" fetch_only="true" arch="x86_64"',
            backend="docker",
            profiles="big",
        ),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(package.parent))
        done = run(installed, "prefetch", "--arch=x86_64,aarch64", package=package)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return package


def run(installed: Path, *arguments: str, package: Path | None = None) -> Done:
    return subprocess.run([installed / "bin/osc-containers", *arguments], cwd=package, capture_output=True, text=True)


def test_installed_list_prints_a_table(installed: Path, package: Path) -> None:
    done = run(installed, "list", "--arch=x86_64", "--profile=big", package=package)
    assert (done.returncode, done.stderr) == (0, "")
    head, app, tool = (re.split(r" {2,}", line) for line in done.stdout.splitlines())
    assert head[:4] == ["REFERENCE", "BACKEND", "ARCH", "PROFILES"]
    assert app[0].endswith("/cli/app:1.0")
    assert tool[1:5] == ["docker", "x86_64", "big", "yes"]
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_installed_list_prints_json(installed: Path, package: Path, docker_registry: DockerRegistry) -> None:
    done = run(installed, "list", "--format=json", "--arch=x86_64", "--profile=big", package=package)
    assert (done.returncode, done.stderr) == (0, "")
    app, tool = json.loads(done.stdout)
    host = docker_registry.host
    assert (
        app.items()
        >= {
            "endpoint": f"{host}/cli/app:1.0",
            "reference": f"{host}/cli/app:1.0",
            "backend": "podman",
            "fetch_only": False,
            "path": "/var/tmp/kiwi_containers/app_1.0",
            "arch": None,
            "profiles": None,
            "file": "containers.xml",
            "line": 5,
        }.items()
    )
    assert tool.items() >= {"fetch_only": True, "arch": "x86_64", "profiles": "big", "backend": "docker"}.items()


def test_list_without_a_profile_shows_what_kiwi_uses(installed: Path, package: Path) -> None:
    assert len(json.loads(run(installed, "list", "--format=json", package=package).stdout)) == 1
    assert len(json.loads(run(installed, "list", "--format=json", "--profile=big", package=package).stdout)) == 2


def test_list_accepts_the_example_of_kiwis_documentation(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "documentation.kiwi").write_text(_KIWI_DOCUMENTATION)
    done = run(installed, "list", "--format=json", str(tmp_path / "documentation.kiwi"))
    assert (done.returncode, done.stderr) == (0, "")
    assert [(item["endpoint"], item["backend"], item["line"]) for item in json.loads(done.stdout)] == [
        ("registry.opensuse.org/some:latest", "podman", 3),
        ("registry.opensuse.org/opensuse/bootable:slowroll", "container-snap", 6),
    ]
    done = run(installed, "list", package=tmp_path)
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_second_prefetch_reports_unchanged_and_writes_nothing(installed: Path, package: Path) -> None:
    before = snapshot(package)
    loud = run(installed, "prefetch", "--arch=x86_64,aarch64", package=package)
    assert (loud.returncode, loud.stdout) == (0, "")
    assert len(re.findall(r"^osc-containers: \S+ \(\w+\): unchanged, sha256:\w{12}$", loud.stderr, re.MULTILINE)) == 3
    quiet = run(installed, "prefetch", "-q", "--locked", "--arch=x86_64,aarch64", package=package)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    talkative = run(installed, "prefetch", "-v", "--arch=x86_64,aarch64", package=package)
    assert len(talkative.stderr.splitlines()) >= len(loud.stderr.splitlines())
    assert snapshot(package) == before


def test_verify_needs_no_arguments(installed: Path, package: Path) -> None:
    done = run(installed, "verify", package=package)
    assert (done.returncode, done.stdout) == (
        0,
        "3 images verified: all match containers.lock and the description\n",
    )
    assert run(installed, "verify", str(package), package=package.parent).stdout == done.stdout


def test_inject_writes_units_that_systemd_accepts(installed: Path, package: Path, tmp_path: Path) -> None:
    """Verification by systemd also requires that every program that a unit names is in the tree."""
    for program in ("/bin/podman", "/bin/docker"):
        (tmp_path / program[1:]).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / program[1:]).touch(0o755)
    done = run(installed, "inject", f"--root={tmp_path}", "--arch=x86_64", "--profile=big", package=package)
    assert (done.returncode, done.stdout) == (0, "")
    units = sorted(path.name for path in (tmp_path / "usr/lib/systemd/system").glob("*.service"))
    assert units == ["kiwi_containers-podman-app_1.0.service", "kiwi_containers.service"]
    verified = subprocess.run(
        ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    links = {path.readlink(): path.resolve() for path in tmp_path.rglob("*.wants/*")}
    assert all(target.is_file() and target.is_relative_to(tmp_path) for target in links.values())
    assert [path.name for path in (tmp_path / "var/tmp/kiwi_containers").iterdir()] == ["tool_latest"]
    assert [path.name for path in (tmp_path / "var/lib/kiwi_containers/layouts").iterdir()] == ["app_1.0"]
    before = snapshot(tmp_path)
    assert (
        run(installed, "inject", f"--root={tmp_path}", "--arch=x86_64", "--profile=big", package=package).returncode
        == 0
    )
    assert {name: entry.content for name, entry in snapshot(tmp_path).items()} == {
        name: entry.content for name, entry in before.items()
    }


def test_inject_without_containers_warns(installed: Path, tmp_path: Path) -> None:
    """Without a profile, containers that are for profiles are not selected."""
    (tmp_path / "root").mkdir()
    section = packages.section("registry.example.com", 'name="app"', profiles="big")
    package = packages.write(tmp_path / "package", section)
    done = run(installed, "inject", f"--root={tmp_path / 'root'}", "--arch=x86_64", package=package)
    message = "osc-containers: warning: nothing to do: no <containers> for this architecture and these profiles\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", message)
    assert not list((tmp_path / "root").iterdir())


def test_unwritable_output_is_an_error(installed: Path, package: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [installed / "bin/osc-containers", "list"], cwd=package, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (1, "osc-containers: error: standard output: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "the following arguments are required: COMMAND"),
        (["pull"], 2, "argument COMMAND: invalid choice: 'pull'"),
        (["list", "--format=xml"], 2, "argument --format: invalid choice: 'xml'"),
        (["inject", "--arch=x86_64"], 2, "the following arguments are required: --root"),
        (["prefetch", "-q", "-v"], 2, "not allowed with argument"),
        (["prefetch", "--connections=0"], 2, "argument --connections: got '0', expected a number from 1 to 64"),
        (["prefetch", "--connections=²"], 2, "argument --connections: got '²', expected a number from 1 to 64"),
        (["list", "--foo"], 2, "osc-containers list: error: unrecognized arguments: --foo"),
        (["diff", "containers.xml"], 3, "column 1 (char 0); expected a lock file"),
        (["list", "nothing.kiwi"], 1, "nothing.kiwi: No such file or directory"),
        (["list", "--arch=pdp11"], 1, "unknown architecture 'pdp11'"),
        (["list", "--profile=huge"], 1, "profile 'huge' is not declared"),
        (["verify", "/nowhere"], 3, "/nowhere"),
        (["inject", "--root=/nowhere", "--arch=x86_64"], 1, "/nowhere: No such file or directory"),
        (["inject", "--root=/dev/null", "--arch=x86_64"], 1, "/dev/null: Not a directory"),
        (["prefetch", "--outdir=/nowhere"], 1, "/nowhere: No such file or directory"),
        (["prefetch", "--outdir=/dev/null"], 1, "/dev/null: Not a directory"),
        (["inject", "--root=.", "--arch=s390x"], 1, "for s390x is not in the lock"),
    ],
)
def test_exit_status_and_last_line(
    installed: Path, package: Path, arguments: list[str], status: int, message: str
) -> None:
    done = run(installed, *arguments, package=package)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("work", "message"),
    [
        ("bytearray(1 << 60)", "p: error: out of memory; raise the limit"),
        ("resource.setrlimit(resource.RLIMIT_AS, (1, -1)), Thread().start()", "p: error: cannot start a thread; raise"),
    ],
)
def test_low_resource_limit_is_an_error(work: str, message: str) -> None:
    """The process must end although another thread waits forever."""
    script = (
        "import resource, sys; from threading import Event, Thread; from osc_containers.cli import process\n"
        "Thread(target=Event().wait, daemon='Thread' not in sys.argv[1]).start()\n"
        "sys.exit(process.run('p', lambda: eval(sys.argv[1])))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, work], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "command", ["list", "list --format=json", "verify", "--help", "list --help", "inject --help", "--version"]
)
@pytest.mark.parametrize(("output", "message"), [("/dev/full", "No space left on device"), ("| exec true", "")])
def test_closed_pipe_or_full_device_gives_no_traceback(
    installed: Path, package: Path, command: str, output: str, message: str
) -> None:
    """The pipe is closed before anything is written; the device is always full."""
    redirect = f"> {output}" if output.startswith("/") else f"| {{ {output[2:]}; }}"
    line = f"exec 3>&1; {{ sleep 0.3; {installed}/bin/osc-containers {command}; }} {redirect}"
    done = subprocess.run(["bash", "-c", line], cwd=package, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def _is_blob(request: Request) -> bool:
    return request.is_blob


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "matches", [lambda request: True, _is_blob, lambda request: request.number > 5], ids=["first", "blobs", "later"]
)
def test_interrupt_ends_prefetch_at_once(
    installed: Path, tmp_path: Path, number: signal.Signals, matches: Callable[[Request], bool]
) -> None:
    """The registry sends half a response and then nothing, at several points of a prefetch."""
    with fault_registry.serve() as registry:
        registry.script = faults.on(faults.stall_in_body, matches)
        registry.push(images.image(*(images.random_layer(f"interrupt {n}", 5000) for n in range(9))), "cli/app:latest")
        package = packages.write(tmp_path / "package", packages.section(registry.host, 'name="app" path="cli"'))
        before = snapshot(package)
        # A shell makes its background jobs ignore SIGINT, and the tests may run in one.
        program = ["env", f"--default-signal={number.name[3:]}", str(installed / "bin/osc-containers")]
        command = [*program, "prefetch", "--arch=x86_64", "--connections=2"]
        with subprocess.Popen(command, cwd=package, stderr=subprocess.PIPE, text=True) as process:
            while not any(map(matches, registry.requests)):
                assert process.poll() is None
                time.sleep(0.05)
            time.sleep(0.2)
            process.send_signal(number)
            _, output = process.communicate(timeout=Policy().read_timeout / 2)
    assert process.returncode == 128 + number
    assert re.fullmatch("osc-containers: interrupted(; the next run resumes the downloads)?\n", output)
    assert snapshot(package) == before


@pytest.fixture
def large_package(tmp_path: Path) -> Path:
    """Return a package whose archive has a sparse layer of 16 GiB, and documents that agree with that size."""
    reference, arch = Reference.parse("registry.example.com/large:latest"), "x86_64"
    small = images.image(images.random_layer("large", 100_000))
    config, layer = small.blobs
    raw = small.raw.replace(f'"size": {len(layer)}'.encode(), f'"size": {16 << 30}'.encode())
    assert raw != small.raw
    manifest = parse_document(raw, small.media_type, "")
    assert isinstance(manifest, Manifest)
    image = Image.from_documents(manifest)
    entry = LockedReference(
        digest=manifest.digest,
        media_type=small.media_type,
        images={arch: LockedImage(image=image, created="1970-01-01T00:00:00Z")},
    )
    lock = Lock(references={reference: entry})
    package = packages.write(tmp_path / "large", packages.section("registry.example.com", 'name="large"'))
    (package / "_service").unlink()
    (package / "containers.lock").write_text(lockfile.dumps(lock))
    contents = {Digest.of(content): content for content in (raw, config)}
    layout = lay_out(image, reference, arch)
    with (package / lock.archive_names()[reference, arch]).open("wb") as file:
        file.truncate(layout.size)
        parts = [*layout.frame(), *((each.offset, contents.get(each.digest, b"")) for each in layout.blobs())]
        for offset, content in parts:
            file.seek(offset)
            file.write(content)
    return package


def opened_by(process: "subprocess.Popen[str]") -> Iterator[str]:
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            yield descriptor.readlink().name


@pytest.mark.parametrize("command", ["verify", "prefetch --locked"])
def test_interrupt_does_not_wait_for_a_large_archive(installed: Path, large_package: Path, command: str) -> None:
    program = ["env", "--default-signal=INT", str(installed / "bin/osc-containers"), *command.split()]
    (archive,) = large_package.glob("*.ociarchive")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with subprocess.Popen(program, cwd=large_package, stderr=subprocess.PIPE, text=True) as process:
        while archive.name not in opened_by(process):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=15)  # A run that does not end by itself is killed after 20 seconds.
    assert (process.returncode, output) == (130, "osc-containers: interrupted\n")
    duration = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    began = time.process_time()
    block, hasher = bytes(1 << 20), hashlib.sha256()
    for _ in range(512):
        hasher.update(block)
    whole = (time.process_time() - began) * 32
    assert duration < whole / 2, "seconds of processor time, and half of what hashing the 16 GiB takes"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inject", "--root=/nowhere", "--arch=x86_64"], "/nowhere: No such file or directory"),
        (["inject", "--root=/dev/null", "--arch=x86_64"], "/dev/null: Not a directory"),
        (["prefetch", "--locked", "--outdir=/nowhere"], "/nowhere: No such file or directory"),
        (["verify", "--profile=huge"], "profile 'huge' is not declared"),
        (["prefetch", "--locked", "--arch=pdp11"], "unknown architecture 'pdp11'"),
    ],
)
def test_cheap_checks_come_before_large_archives_are_read(
    installed: Path, large_package: Path, arguments: list[str], message: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = run(installed, *arguments, package=large_package)
    duration = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert done.returncode != 0
    assert message in done.stderr
    assert duration < 4, "seconds of processor time; to hash the archive takes longer"


def test_nohup_keeps_prefetch_running(installed: Path, tmp_path: Path) -> None:
    with fault_registry.serve() as registry:
        registry.script = faults.on(faults.stall_in_body, lambda request: True)
        package = packages.write(tmp_path / "package", packages.section(registry.host, 'name="app" path="cli"'))
        command = ["env", "--ignore-signal=HUP", str(installed / "bin/osc-containers"), "prefetch"]
        with subprocess.Popen(command, cwd=package, stderr=subprocess.PIPE) as process:
            while not registry.requests:
                time.sleep(0.05)
            process.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            process.terminate()
