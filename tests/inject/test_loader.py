"""`load.sh` with stubs of the engines; `e2e/test_boot.py` boots machines with real ones."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from osc_containers.archive.layout import path_of, top
from osc_containers.inject import layout_directory, units
from osc_containers.inject.image_file import TextFile
from osc_containers.inject.layout_directory import LAYOUTS
from osc_containers.inject.units import LOADER, UNITS
from tests.support import engines, images
from tests.support.e2e.packed import Packed, pack
from tests.support.process import SHARED_MEMORY, kill_session

TIMEOUT, SLEEP = map(shutil.which, ("timeout", "sleep"))
STATE = "/var/lib/kiwi_containers"
RUNTIME = "/run/kiwi_containers"
SMALL = pack("registry.example.com:5000/team/app:1.0", images.small("app"))
LARGE = pack("registry.example.com/large:1.0", images.image(images.random_layer("large", 3 << 20)))


def loader_below(root: Path) -> str:
    """Return the loader with all its directories below `root`."""
    (text,) = (file.text for file in units.render([SMALL.load]) if isinstance(file, TextFile) and file.path == LOADER)
    for directory in (STATE, RUNTIME, UNITS, SHARED_MEMORY):
        assert f"={directory}\n" in text
        text = text.replace(f"={directory}\n", f"={root}{directory}\n")
    Path(f"{root}{SHARED_MEMORY}").mkdir(parents=True, exist_ok=True)
    return text


@pytest.mark.parametrize("others", [(), ("docker",), ("containerd:moby",)])
def test_recorded_load_only_removes_the_layout(tmp_path: Path, others: tuple[str, ...]) -> None:
    text = loader_below(tmp_path)
    layout, state, installed = tmp_path / LAYOUTS[1:] / SMALL.load.id, tmp_path / STATE[1:], tmp_path / UNITS[1:]
    for directory in (layout, installed):
        directory.mkdir(parents=True)
    (layout / "index.json").touch()
    # The last one is of a container "other-app".
    for backend in ("podman", *others, "docker-other"):
        (installed / units.unit_name(backend, SMALL.load.id)).touch()
    (state / "podman-app_1.0").write_text("c b\nblob\n")
    command = ["sh", "-c", text, "load", "podman", "app_1.0", "name", "4096", "c", "b", "a"]
    subprocess.run(command, check=True)
    assert layout.exists() == bool(others)
    assert [path.name for path in layout.parent.iterdir()] == (["app_1.0"] if others else [])


@pytest.mark.integration
def test_loader_runs_in_any_posix_shell(tmp_path: Path) -> None:
    loader = tmp_path / "load"
    loader.write_text(loader_below(tmp_path))
    subprocess.run(["shellcheck", "--shell=sh", loader], check=True)
    for shell in ("dash", "bash"):
        subprocess.run([shell, "-n", os.fspath(loader)], check=True)


@pytest.fixture(params=["dash", "bash"])
def start_loader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return a function that starts a loader in its own directories, without a layout; podman hangs once."""
    text = loader_below(tmp_path)
    for directory in (RUNTIME, LAYOUTS):
        (tmp_path / directory[1:]).mkdir(parents=True)
    (tmp_path / "podman").write_text(f"#!/bin/sh\nmkdir {tmp_path}/hangs && exec sleep 300\nexit 1\n")
    (tmp_path / "podman").chmod(0o755)
    command = [request.param, "-c", text, "load", "podman", "app_1.0", "app", "1", "a", "b", "c"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
            stack.enter_context(run)
            stack.callback(end, run)
            return run

        yield start


def end(run: subprocess.Popen[str]) -> None:
    """Kill a loader and its children, also if they have outlived it."""
    kill_session(run.pid)
    run.wait()


@pytest.mark.integration
@pytest.mark.parametrize("holder", ["running", "killed", "killed alone", "killed, PID reused"])
def test_loader_waits_only_for_a_running_loader(
    start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path, holder: str
) -> None:
    lock = tmp_path / "run/kiwi_containers/podman.lock"
    first = start_loader()
    while not (tmp_path / "hangs").exists():
        time.sleep(0.01)
    if holder == "killed alone":
        first.kill()
        first.wait()
    elif holder != "running":
        end(first)
    if holder == "killed, PID reused":
        _, _, start_time = str(lock.readlink()).partition("-")
        lock.unlink()
        lock.symlink_to(f"{os.getpid()}-{start_time}")
    second = start_loader()
    if holder == "running":
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=3)
        end(first)
    output, _ = second.communicate(timeout=30)
    assert output.startswith(f"app: not loaded into podman: {tmp_path}{LAYOUTS}/app_1.0 is missing: ")
    assert not lock.is_symlink()


@pytest.mark.integration
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_an_image_gets_its_name_while_the_next_one_is_loaded(tmp_path: Path, shell: str) -> None:
    SMALL.write(tmp_path)
    LARGE.write(tmp_path)
    pulls = tmp_path / "pulls"
    # The first image has no name before the second one is pulled.
    wait = f"for _ in $(seq 500); do [ $(wc -l < {pulls}) -lt 2 ] || exit 1; {SLEEP} 0.02; done; : > {tmp_path}/late"
    install(tmp_path, "podman", f'case "$1" in pull) echo "$*" >> {pulls} ;; tag) {wait} ;; *) exit 1 ;; esac')
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda packed: run_loader(tmp_path, packed, shell=shell), (SMALL, LARGE)))
    assert all("podman has not got" in output for output in outputs)
    assert not (tmp_path / "late").exists()
    assert not (tmp_path / RUNTIME[1:] / "podman.lock").is_symlink()
    draft = tmp_path / STATE[1:] / f".podman-{LARGE.load.id}"
    assert LARGE.load.image.layers[0].digest.hex in draft.read_text(), "other loads need no space for its layers"


@pytest.mark.integration
def test_stopping_a_waiting_loader_leaves_the_lock_alone(
    start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    start_loader()
    while not (tmp_path / "hangs").exists():
        time.sleep(0.01)
    copies = tmp_path / STATE[1:] / ".copies-podman-app_1.0"
    copies.mkdir()
    second = start_loader()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1)
    second.terminate()
    assert second.wait(timeout=30) == 143
    assert copies.exists()
    assert (tmp_path / "run/kiwi_containers/podman.lock").is_symlink()


@pytest.mark.integration
@pytest.mark.parametrize("where", [RUNTIME, STATE, LAYOUTS])
@pytest.mark.parametrize("kind", ["writable", "writable for its group", "link"])
def test_loader_refuses_directories_of_others(
    start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path, where: str, kind: str
) -> None:
    directory, other = tmp_path / where[1:], tmp_path / "other"
    if kind == "link":
        directory.rename(other)
        directory.symlink_to(other)
    else:
        directory.chmod(0o757 if kind == "writable" else 0o775)
    output, _ = start_loader().communicate(timeout=30)
    assert f": {directory}: got " in output
    assert "expected a directory that only root can write to; remove it" in output
    assert not other.exists() or [path.name for path in other.iterdir() if path.name != "layouts"] == []


@pytest.mark.integration
def test_loader_creates_missing_directories(start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path) -> None:
    for directory in (LAYOUTS, STATE, RUNTIME):
        (tmp_path / directory[1:]).rmdir()
    (tmp_path / "hangs").mkdir()
    output, _ = start_loader().communicate(timeout=30)
    assert output.startswith(f"app: not loaded into podman: {tmp_path}{LAYOUTS}/app_1.0 is missing: ")
    assert {(tmp_path / directory[1:]).stat().st_mode & 0o777 for directory in (RUNTIME, STATE)} == {0o755}


@pytest.mark.integration
def test_hanging_engine_query_times_out(start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path) -> None:
    for name, command in {"podman": "sleep 300", "timeout": f'{shutil.which("timeout")} 0.2 "$4"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (tmp_path / name).chmod(0o755)
    output, _ = start_loader().communicate(timeout=30)
    assert output.startswith(f"app: not loaded into podman: {tmp_path}{LAYOUTS}/app_1.0 is missing: ")


def install(directory: Path, name: str, script: str) -> None:
    """Write a program that the loader finds before those of the system."""
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def run_loader(
    directory: Path, packed: Packed, engine: str = "podman", shell: str = "dash", pause: str = "exit 0"
) -> str:
    """Run the loader of an image, with a command instead of each pause, and return what it prints."""
    install(directory, "sleep", pause)
    for name in (STATE, "/run"):
        (directory / name[1:]).mkdir(parents=True, exist_ok=True)
    load = packed.load
    document = top(load.image, load.arch)
    command = [shell, "-c", loader_below(directory), "load", engine, load.id, packed.name, str(packed.size)]
    command += map(str, (load.image.config.digest, load.image.manifest.digest, document.digest))
    command += [layout_directory.stream_sum(load.reference, load.image, load.arch)] if engine != "podman" else []
    environment = {"PATH": f"{directory}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


@pytest.mark.integration
def test_the_end_of_what_an_engine_says_is_reported(tmp_path: Path) -> None:
    SMALL.write(tmp_path)
    install(tmp_path, "podman", '[ "$1" = pull ] && { yes warning | head -n 500; echo the cause; }; exit 9')
    (first, *_) = run_loader(tmp_path, SMALL).splitlines()
    assert "not loaded into podman yet: podman failed with status 9: " in first
    assert "warning the cause; next try in 2 s" in first
    assert len(first) < 800


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        ("map[]", 0, ["rm", "check", "rm"]),
        ("map[overlay.imagestore:/srv]", 0, ["rm", "create one", "create two", "check", "rm"]),
        ("map[overlay.additionalImageStores:[/srv]]", 0, ["rm", "create one", "create two", "check", "rm"]),
        ("map[overlay.additionalImageStores:[/srv]]", 1, ["rm", "create one", "rm"]),
    ],
)
def test_repair_keeps_all_images_if_there_is_an_image_store(
    tmp_path: Path, options: str, status: int, expected: list[str]
) -> None:
    """With a store, `podman system check --repair` would remove sound images, but none that a container uses."""
    SMALL.write(tmp_path)
    calls = tmp_path / "calls"
    install(
        tmp_path,
        "podman",
        f"""case "$*" in
            *GraphOptions*) echo "{options}" ;;
            info*) echo /tmp ;;
            "images --all"*) echo one two ;;
            *--help) ;;
            create*) set -- $*; shift $(($# - 2)); echo "create $1" >> {calls}; exit {status} ;;
            "system check --repair") echo check >> {calls} ;;
            "rm --force --filter label=kiwi_containers=keep") echo rm >> {calls} ;;
            *) exit 1 ;;
        esac""",
    )
    (tmp_path / STATE[1:] / ".podman-loading").touch()
    run_loader(tmp_path, SMALL)
    assert calls.read_text().splitlines() == expected * 4, "a load is tried so often"


@pytest.mark.integration
def test_podman_without_a_check_repairs_nothing(tmp_path: Path) -> None:
    SMALL.write(tmp_path)
    answers = "*GraphOptions*) echo imagestore ;; info*) echo /tmp ;; *) exit 125 ;;"
    install(tmp_path, "podman", f'echo "$*" >> {tmp_path}/calls\ncase "$*" in {answers} esac')
    (tmp_path / STATE[1:] / ".podman-loading").touch()
    run_loader(tmp_path, SMALL)
    calls = (tmp_path / "calls").read_text()
    assert "system check --help" in calls
    assert "create" not in calls
    assert "--repair" not in calls


@pytest.mark.integration
def test_image_with_containers_is_not_removed_after_a_power_cut(tmp_path: Path) -> None:
    image = SMALL.load.image
    known = f"{image.config.digest.hex} {SMALL.name} x@{image.manifest.digest} "
    install(
        tmp_path,
        "podman",
        f'echo "$*" >> {tmp_path}/calls\n'
        f'case "$*" in "image inspect"*) echo "{known}" ;; info*) echo /tmp ;; ps*) echo 1234 ;; *) exit 1 ;; esac',
    )
    SMALL.write(tmp_path)
    (tmp_path / STATE[1:] / ".podman-loading").touch()
    output = run_loader(tmp_path, SMALL)
    assert "this one is damaged; containers use it: remove them and the image" in output
    assert "rmi" not in (tmp_path / "calls").read_text()


DOCUMENTS: Mapping[str, Callable[[Packed], str]] = {
    "manifest": lambda packed: path_of(packed.load.image.manifest.digest),
    "config": lambda packed: path_of(packed.load.image.config.digest),
}


@pytest.mark.integration
@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_documents_are_checked_before_an_engine_reads_them(tmp_path: Path, kind: str, damage: str) -> None:
    SMALL.write(tmp_path)
    path = SMALL.directory(tmp_path) / DOCUMENTS[kind](SMALL)
    content = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(content.replace(b"1", b"2"))
    install(tmp_path, "podman", f"case $1 in info) echo /tmp ;; pull) touch {tmp_path}/pulled ;; esac; exit 1")
    output = run_loader(tmp_path, SMALL)
    assert f"{path} is {'damaged: got sha256:' if damage == 'changed' else 'missing or cannot be read'}" in output
    assert not (tmp_path / "pulled").exists()


@pytest.mark.integration
@pytest.mark.parametrize("name", ["frame", "stream", "layer"])
def test_archives_are_checked_before_an_engine_reads_them(tmp_path: Path, name: str) -> None:
    SMALL.write(tmp_path, has_stream=True)
    path = SMALL.directory(tmp_path) / (name if name != "layer" else path_of(SMALL.load.image.layers[0].digest))
    path.write_bytes(path.read_bytes() + b"\n")
    install(tmp_path, "docker", f"case $1 in info) echo /tmp ;; load) touch {tmp_path}/loaded ;; esac; exit 1")
    output = run_loader(tmp_path, SMALL, "docker")
    assert "is damaged" in output
    assert not (tmp_path / "loaded").exists()


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["blob", "directory", "index.json", "link"])
def test_layouts_that_others_can_change_are_refused(tmp_path: Path, kind: str) -> None:
    SMALL.write(tmp_path)
    directory = SMALL.directory(tmp_path)
    path = directory / {"blob": path_of(SMALL.load.image.layers[1].digest), "directory": "blobs/sha256"}.get(kind, kind)
    if kind == "link":
        path = directory
        directory.rename(tmp_path / "mine")
        directory.symlink_to(tmp_path / "mine")
    else:
        path.chmod(0o777 if path.is_dir() else 0o666)
    install(tmp_path, "podman", f"case $1 in info) echo /tmp ;; pull) touch {tmp_path}/pulled ;; esac; exit 1")
    assert f"{path}: got 0/" in run_loader(tmp_path, SMALL)
    assert not (tmp_path / "pulled").exists()


@pytest.mark.integration
@pytest.mark.parametrize("engine", ["docker", "container-snap"])
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_engines_without_layouts_get_the_archive(tmp_path: Path, shell: str, engine: str) -> None:
    LARGE.write(tmp_path, has_stream=True)
    source = "-" if engine == "docker" else '"$3"'
    install(tmp_path, engine, f'[ "$1" = load ] && cat -- {source} > {tmp_path}/loaded')
    assert "has not got sha256:" in run_loader(tmp_path, LARGE, engine, shell)
    assert (tmp_path / "loaded").read_bytes() == LARGE.archive


@pytest.mark.integration
@pytest.mark.parametrize("record", ["podman-other", ".podman-other"])
def test_space_is_needed_only_for_layers_that_are_new(tmp_path: Path, record: str) -> None:
    """The layer of the image is in another record, or in a draft of one, so a full disk does not matter."""
    LARGE.write(tmp_path)
    install(tmp_path, "podman", f"case $1 in info) echo /tmp ;; pull) touch {tmp_path}/pulled ;; esac; exit 1")
    install(tmp_path, "stat", f'case "$*" in *%S*) echo 700 4096 ;; *) exec {shutil.which("stat")} "$@" ;; esac')
    assert (
        "has 3 MiB free, and 7 MiB are needed for new layers (4 MiB, or more) and copies (4 MiB)"
        in run_loader(tmp_path, LARGE).splitlines()[0]
    )
    assert not (tmp_path / "pulled").exists()
    (tmp_path / STATE[1:] / record).write_text(f"c m\n{LARGE.load.image.layers[0].digest.hex}\n")
    run_loader(tmp_path, LARGE)
    assert (tmp_path / "pulled").exists()


@pytest.mark.integration
def test_docker_loads_the_image_that_is_pinned(tmp_path: Path) -> None:
    """The ID and the tag resolve; an image that is pinned by its digest alone gets a tag as well."""
    image = images.multi_platform("app")
    tagged = pack("registry.example.com:5000/team/app:1.0", image)
    pinned = pack(f"registry.example.com:5000/team/pinned@{image.digest}", images.index(*image.children))
    with engines.docker() as docker:
        install(tmp_path, "docker", f'exec {shutil.which("docker")} {" ".join(map(str, docker[1:]))} "$@"')
        for packed, tag in ((tagged, "app:1.0"), (pinned, f"pinned:sha256-{image.digest.hex[:12]}")):
            packed.write(tmp_path, has_stream=True)
            assert run_loader(tmp_path, packed, "docker").startswith(f"{packed.name}: ")
            name = f"registry.example.com:5000/team/{tag}"
            found = engines.output(*docker, "image", "inspect", "--format", "{{.Id}}", name).strip()
            assert found == str(packed.load.image.config.digest)
            assert not packed.directory(tmp_path).exists()


@pytest.mark.integration
def test_layers_of_an_interrupted_load_are_unpacked_again_by_containerd(tmp_path: Path) -> None:
    """What was there before the load stays as it is."""
    base, content = images.layer({"etc/base": b"base"}), b"whole\n"
    old = pack("registry.example.com/old:1.0", images.image(base))
    new = pack("registry.example.com/new:1.0", images.image(base, images.layer({"etc/new": content})))
    with engines.containerd() as ctr:
        install(tmp_path, "ctr", f'exec {shutil.which("ctr")} {" ".join(map(str, ctr[1:]))} "$@"')
        snapshots = Path(ctr[2]).parent / "root/io.containerd.snapshotter.v1.overlayfs/snapshots"
        old.write(tmp_path, has_stream=True)
        assert run_loader(tmp_path, old, "containerd") == f"{old.name}: loaded into containerd\n"
        (kept,) = snapshots.glob("*/fs/etc/base")
        kept.write_bytes(b"")
        before = engines.output(*ctr, "--namespace", "k8s.io", "snapshots", "list")
        # The power goes when everything is unpacked, and nothing of it is on the disk.
        (tmp_path / "archive").write_bytes(new.archive)
        engines.output(*ctr, "--namespace", "k8s.io", "images", "import", tmp_path / "archive")
        (damaged,) = snapshots.glob("*/fs/etc/new")
        damaged.write_bytes(b"")
        loading = tmp_path / STATE[1:] / ".containerd-loading"
        loading.write_text(before)
        new.write(tmp_path, has_stream=True)
        assert run_loader(tmp_path, new, "containerd") == f"{new.name}: loaded into containerd\n"
        (unpacked,) = snapshots.glob("*/fs/etc/new")
        assert unpacked.read_bytes() == content
        assert kept.read_bytes() == b""
        assert not loading.exists()


@pytest.mark.integration
@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("step", ["list", "rm"])
def test_images_are_refused_until_containerd_forgets_layers(tmp_path: Path, step: str, shell: str) -> None:
    """The damaged layers make the image look complete."""
    SMALL.write(tmp_path, has_stream=True)
    before = "KEY PARENT KIND\nsha256:old  Committed\n"
    loading = tmp_path / STATE[1:] / ".containerd-loading"
    loading.write_text(before)
    down = tmp_path / "down"
    snapshots = tmp_path / "snapshots"
    snapshots.write_text(f"{before}sha256:new sha256:old Committed\n")
    digest = top(SMALL.load.image, "x86_64").digest
    install(
        tmp_path,
        "ctr",
        f"""[ "$4" != {step} ] || touch {down}
case "$3 $4" in
    "images check") echo "{SMALL.name} type {digest} complete (3/3) 1 KiB true" ;;
    "snapshots list") [ ! -e {down} ] && cat {snapshots} ;;
    "snapshots rm") [ ! -e {down} ] && sed -i "/^$5 /d" {snapshots} ;;
esac""",
    )
    output = run_loader(tmp_path, SMALL, "containerd", shell)
    assert output.count("containerd does not list its snapshots; see: systemctl status containerd") == 4
    assert loading.read_text() == before
    script = (tmp_path / "ctr").read_text().replace(f"touch {down}", "true")
    (tmp_path / "ctr").write_text(script)
    output = run_loader(tmp_path, SMALL, "containerd", shell, pause=f"rm -f {down}")
    assert output.splitlines()[-1] == f"{SMALL.name}: containerd has it already"
    assert snapshots.read_text() == before


@pytest.mark.integration
@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("cause", ["timeout", "memory"])
def test_an_engine_that_ignores_the_timeout_is_not_tried_again(tmp_path: Path, cause: str, shell: str) -> None:
    """The kernel also kills an engine if there is no memory; then another try may succeed."""
    SMALL.write(tmp_path)
    hang = f'trap "" TERM; {shutil.which("sleep")} 60' if cause == "timeout" else "kill -KILL $$"
    pull = f"echo pull >> {tmp_path}/pulled; {hang}"
    install(tmp_path, "podman", f"case $1 in info) echo /tmp ;; pull) {pull} ;; *) exit 1 ;; esac")
    install(tmp_path, "timeout", f'[ "$1" != -v ] || {{ shift 4; set -- -v -k 0.2 0.2 "$@"; }}\nexec {TIMEOUT} "$@"')
    output = run_loader(tmp_path, SMALL, shell=shell)
    tries = (tmp_path / "pulled").read_text().count("pull")
    if cause == "timeout":
        assert "not loaded into podman: podman did not finish within 600 s; tried again at the next boot" in output
        assert tries == 1
    else:
        assert "podman failed with status 137" in output
        assert tries == 4


@pytest.mark.integration
@pytest.mark.parametrize(
    ("target", "namespace"), [("containerd", "k8s.io"), ("containerd:other", "other")], ids=["k8s.io", "another"]
)
def test_containerd_has_pinned_images(tmp_path: Path, target: str, namespace: str) -> None:
    """By name and by the digest of the index; they are unpacked, and each run after the first changes nothing."""
    image = images.multi_platform("app")
    tagged = pack("registry.example.com:5000/team/app:1.0", image)
    pinned = pack(f"registry.example.com:5000/team/pinned@{image.digest}", images.index(*image.children))
    single = pack("registry.example.com/single:1.0", images.small("single"))
    with engines.containerd() as ctr:
        install(tmp_path, "ctr", f'exec {shutil.which("ctr")} {" ".join(map(str, ctr[1:]))} "$@"')
        expected = set()
        for packed in (tagged, pinned, single):
            packed.write(tmp_path, has_stream=True)
            assert run_loader(tmp_path, packed, target) == f"{packed.name}: loaded into {target}\n"
            assert not packed.directory(tmp_path).exists()
            digest = top(packed.load.image, "x86_64").digest
            name = packed.load.reference.name
            tag = packed.load.reference.tag or f"sha256-{digest.hex[:12]}"
            expected |= {(packed.name, digest), (f"{name}:{tag}", digest), (f"{name}@{digest}", digest)}
            assert run_loader(tmp_path, packed, target) == ""
        output = engines.output(*ctr, "--namespace", namespace, "images", "check")
        # Kubernetes' part of containerd adds a record for the ID of each image.
        checked = [line.split() for line in output.splitlines()[1:] if not line.startswith("sha256:")]
        assert {(line[0], line[2]) for line in checked} == {(name, str(digest)) for name, digest in expected}
        assert {(line[3], line[-1]) for line in checked} == {("complete", "true")}
        listed = engines.output(*ctr, "--namespace", namespace, "images", "list").splitlines()[1:]
        assert all("io.cri-containerd.pinned=pinned" in line for line in listed if not line.startswith("sha256:"))
        # An image that is there is only pinned.
        for record in (tmp_path / STATE[1:]).glob(f"{target}-*"):
            record.unlink()
        engines.output(*ctr, "--namespace", namespace, "images", "label", single.name, "io.cri-containerd.pinned=")
        single.write(tmp_path, has_stream=True)
        assert run_loader(tmp_path, single, target) == f"{single.name}: {target} has it already\n"
        output = engines.output(*ctr, "--namespace", namespace, "images", "list", f'name=="{single.name}"')
        assert "io.cri-containerd.pinned=pinned" in output
