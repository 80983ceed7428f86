"""The text of the files that load containers at the first boot; `e2e/test_boot.py` boots images with them."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osc_containers.fs.rooted_tree import Tree
from osc_containers.inject import units
from osc_containers.inject.units import ARCHIVES, LOADER, TMPFILES, UNITS, Load, Symlink, TextFile
from osc_containers.kiwi.backend import BACKENDS
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference

HOST_UNITS = Path("/usr/lib/systemd/system")

LOAD = Load(
    backend="podman",
    reference=Reference.parse("registry.example.com:5000/team/app:1.0"),
    path=f"{ARCHIVES}/app_1.0",
    size=4096,
    sha256="a" * 64,
    manifest=Digest("sha256", "b" * 64),
    image_id=Digest("sha256", "c" * 64),
)
DOCKER = LOAD._replace(backend="docker")
OTHER = LOAD._replace(reference=Reference.parse("docker.io/library/other"), path=f"{ARCHIVES}/other_latest")

# Strings that would be harmful in a unit if the reference parser let them through.
HOSTILE = ("%n%%", "$HOME ${HOME}", '"', "'", "\\", "a\\", "a\nExecStart=/bin/true", " ;", "-rf", "é\u202e", "\x1b[31m")

# A program argument, and therefore a name, cannot contain a NUL.
ANY_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)


def texts(*loads: Load) -> dict[str, str]:
    """Render loads; return the text of each file and the target of each link, by path."""
    return {file.path: file.text if isinstance(file, TextFile) else file.target for file in units.render(loads)}


def named(text: str, backend: str = "podman") -> Load:
    """Return a load with `text` as its reference and path, bypassing the parser."""
    return LOAD._replace(backend=backend, reference=Reference(text, text, text), path=f"{ARCHIVES}/{text}")


def test_load_unit_text() -> None:
    assert texts(LOAD)[f"{UNITS}/kiwi_containers-podman-app_1.0.service"] == (
        "[Unit]\n"
        "Description=Load container registry.example.com:5000/team/app:1.0 into podman\n"
        "RequiresMountsFor=/var/tmp/kiwi_containers /var/lib/containers\n"
        "Before=kiwi_containers.service\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        "RemainAfterExit=yes\n"
        "StateDirectory=kiwi_containers\n"
        "SyslogIdentifier=kiwi_containers\n"
        'ExecStart=/usr/libexec/kiwi_containers/load "podman" "app_1.0" "registry.example.com:5000/team/app:1.0"'
        f' "/var/tmp/kiwi_containers/app_1.0" "4096" "{"a" * 64}" "{"c" * 64}" "{"b" * 64}"\n'
    )


@pytest.mark.parametrize(
    ("backend", "lines"),
    [
        ("podman", {"RequiresMountsFor=/var/tmp/kiwi_containers /var/lib/containers"}),
        (
            "docker",
            {
                "RequiresMountsFor=/var/tmp/kiwi_containers /var/lib/docker /var/lib/containerd",
                "Wants=docker.service",
                "After=docker.service",
            },
        ),
        ("container-snap", {"RequiresMountsFor=/var/tmp/kiwi_containers /var/lib/container-snap"}),
    ],
)
def test_load_unit_is_ordered_after_its_stores_and_engine(backend: str, lines: set[str]) -> None:
    text = texts(LOAD._replace(backend=backend))[f"{UNITS}/kiwi_containers-{backend}-app_1.0.service"]
    assert set(text.partition("\n\n")[0].splitlines()[2:]) == lines | {"Before=kiwi_containers.service"}


def test_files_and_modes_for_two_engines() -> None:
    files = units.render([LOAD, DOCKER])
    assert {file.path: file.mode if isinstance(file, TextFile) else file.target for file in files} == {
        LOADER: 0o755,
        TMPFILES: 0o644,
        f"{UNITS}/kiwi_containers.service": 0o644,
        f"{UNITS}/kiwi_containers-docker-app_1.0.service": 0o644,
        f"{UNITS}/kiwi_containers-podman-app_1.0.service": 0o644,
        f"{UNITS}/kiwi_containers.service.wants/kiwi_containers-docker-app_1.0.service": (
            "../kiwi_containers-docker-app_1.0.service"
        ),
        f"{UNITS}/kiwi_containers.service.wants/kiwi_containers-podman-app_1.0.service": (
            "../kiwi_containers-podman-app_1.0.service"
        ),
        f"{UNITS}/multi-user.target.wants/kiwi_containers.service": "../kiwi_containers.service",
    }
    assert [file.path for file in files] == sorted(file.path for file in files)


def test_fetch_only_archives_need_only_the_tmpfiles_entry() -> None:
    assert set(texts()) == {TMPFILES}


def test_order_and_duplicates_of_loads_do_not_matter() -> None:
    expected = units.render([LOAD, DOCKER, OTHER])
    for loads in permutations([LOAD, DOCKER, OTHER]):
        assert units.render([*loads, loads[0]]) == expected


def test_files_of_combined_overlays_are_identical() -> None:
    assert texts(LOAD, DOCKER, OTHER) == texts(LOAD, DOCKER) | texts(DOCKER, OTHER)


def test_two_containers_in_one_unit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^kiwi_containers-podman-app_1.0.service: got two different loads, of "):
        units.render([LOAD, LOAD._replace(reference=OTHER.reference)])


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^got backend 'crio', expected one of podman, docker, container-snap$"):
        units.render([LOAD._replace(backend="crio")])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app_1.0", "app_1.0"),
        ("App-x.y_1.0-rc1", "App-x.y_1.0-rc1"),
        ("team/app_1.0", "team_app_1.0-1b3c9cd95685"),
        ("app@sha256:12_latest", "app_sha256_12_latest-beda835f50c9"),
        ("%i", "_i-65a12a609137"),
        ("", "-5ba1168ef5c5"),
        ("app_1-0123456789ab", "app_1-0123456789ab-8c94a4d70360"),
        ("app_1-0123456789abc", "app_1-0123456789abc"),
        ("app_1-0123456789aB", "app_1-0123456789aB"),
    ],
)
def test_id_is_the_sanitized_archive_name(name: str, expected: str) -> None:
    assert units.load_id(f"{ARCHIVES}/{name}") == expected


@given(st.sampled_from(list(BACKENDS)), st.text() | st.text(min_size=200, max_size=400))
def test_unit_names_are_valid_file_names(backend: str, name: str) -> None:
    unit = LOAD._replace(backend=backend, path=f"{ARCHIVES}/{name}").unit
    assert set(unit) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert len(unit) <= 255


@given(st.text(), st.text())
def test_different_paths_have_different_ids(one: str, other: str) -> None:
    assert (units.load_id(one) == units.load_id(other)) == (one == other)


@given(st.text())
def test_no_archive_name_equals_the_id_of_another(name: str) -> None:
    path = f"{ARCHIVES}/{name}"
    imitation = f"{ARCHIVES}/{units.load_id(path)}"
    assert units.load_id(imitation) != units.load_id(path) or imitation == path


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("plain", '"plain"'),
        ("a b;c", '"a b;c"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('say "x"', r'"say \"x\""'),
        ("it's", '"it\'s"'),
        ("a\\", r'"a\\"'),
        ("a\nb\t\x1b", r'"a\x0ab\x09\x1b"'),
        ("é", r'"\xc3\xa9"'),
    ],
)
def test_argument_is_quoted(text: str, quoted: str) -> None:
    assert units.quote_argument(text) == quoted


def test_argument_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^got 'a\\x00', expected text without NUL$"):
        units.quote_argument("a\0")


@given(st.text())
def test_unit_description_is_one_printable_line(text: str) -> None:
    quoted = units.quote_description(text)
    assert quoted.isascii()
    assert quoted.isprintable()
    assert not quoted.endswith("\\")
    assert "%" not in quoted.replace("%%", "")


@given(st.sampled_from(list(BACKENDS)), ANY_TEXT | st.sampled_from(HOSTILE))
def test_hostile_names_add_no_line_to_a_unit(backend: str, name: str) -> None:
    harmless, hostile = (texts(load)[f"{UNITS}/{load.unit}"] for load in (named("x", backend), named(name, backend)))
    assert [line.partition("=")[0] for line in hostile.split("\n")] == [
        line.partition("=")[0] for line in harmless.split("\n")
    ]


def write(root: Path, *loads: Load) -> list[str]:
    """Write the files of loads, and the systemd units that they refer to, into a root; return the unit names."""
    shutil.rmtree(root, ignore_errors=True)
    for name in ("basic", "local-fs", "multi-user", "shutdown", "sysinit"):
        (root / "usr/lib/systemd/system").mkdir(parents=True, exist_ok=True)
        shutil.copy(HOST_UNITS / f"{name}.target", root / "usr/lib/systemd/system")
    tree = Tree(root)
    for file in units.render(loads):
        if isinstance(file, Symlink):
            tree.symlink(file.path, file.target)
        else:
            tree.write(file.path, file.text.encode(), file.mode)
    return ["kiwi_containers.service", *(load.unit for load in loads)]


def verify(root: Path, *loads: Load) -> None:
    """Let systemd verify the units; it prints nothing if they are valid."""
    command = ["systemd-analyze", f"--root={root}", "verify", *write(root, *loads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.integration
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    verify(tmp_path / "root", *(LOAD._replace(backend=backend) for backend in BACKENDS), OTHER)


@pytest.mark.integration
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY_TEXT | st.sampled_from(HOSTILE), min_size=1, max_size=8, unique=True))
def test_systemd_accepts_units_with_hostile_names(tmp_path: Path, names: list[str]) -> None:
    verify(tmp_path / "root", *(named(name) for name in names))


@pytest.mark.integration
def test_tmpfiles_aging_keeps_the_archives(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "usr/lib/tmpfiles.d/tmp.conf").write_text("q /var/tmp 1777 root root 1s\n")
    for name in ("other", "kiwi_containers/app_1.0", "kiwi_containers/deep/app_1.0"):
        (tmp_path / "var/tmp" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "var/tmp" / name).touch()
    time.sleep(1.1)
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--clean"], check=True)
    archives = {str(path.relative_to(tmp_path / "var/tmp")) for path in (tmp_path / "var/tmp").rglob("*_1.0")}
    assert archives == {"kiwi_containers/app_1.0", "kiwi_containers/deep/app_1.0"}
    assert not (tmp_path / "var/tmp/other").exists()


@pytest.mark.parametrize("is_fetch_only", [True, False])
def test_loaded_archive_is_fetch_only_if_also_fetch_only(tmp_path: Path, is_fetch_only: bool) -> None:
    """A load that is already recorded only removes the archive."""
    text = texts(LOAD)[LOADER]
    for name, path in (
        ("archives", ARCHIVES),
        ("state", "/var/lib/kiwi_containers"),
        ("keep", units.KEEP),
        ("units", UNITS),
    ):
        text = text.replace(f"{name}={path}\n", f"{name}={tmp_path}/{name}\n")
        (tmp_path / name).mkdir()
    archive = tmp_path / "archives/app_1.0"
    archive.touch()
    (tmp_path / "state/podman-app_1.0").write_text(f"{LOAD.sha256}\n")
    if is_fetch_only:
        marker = units.keep_marker(LOAD.path)
        (tmp_path / "keep" / Path(marker.path).name).write_text(marker.text)
    arguments = ["podman", "app_1.0", "name", str(archive), "4096", LOAD.sha256, "c", "b", "0"]
    subprocess.run(["sh", "-c", text, "load", *arguments], check=True)
    assert archive.exists() == is_fetch_only


@pytest.mark.integration
def test_loader_runs_in_any_posix_shell(tmp_path: Path) -> None:
    loader = tmp_path / "load"
    loader.write_text(texts(LOAD)[LOADER])
    subprocess.run(["shellcheck", "--shell=sh", loader], check=True)
    for shell in ("dash", "bash"):
        subprocess.run([shell, "-n", os.fspath(loader)], check=True)


@pytest.fixture(params=["dash", "bash"])
def start_loader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return a function that starts a loader in its own directories, without an archive; podman hangs once."""
    text = texts(LOAD)[LOADER]
    for directory in ("/run/kiwi_containers", "/var/lib/kiwi_containers", ARCHIVES):
        assert f"={directory}\n" in text
        text = text.replace(f"={directory}\n", f"={tmp_path}{directory}\n")
        (tmp_path / directory[1:]).mkdir(parents=True)
    (tmp_path / "podman").write_text(f"#!/bin/sh\nmkdir {tmp_path}/hangs && exec sleep 300\nexit 1\n")
    (tmp_path / "podman").chmod(0o755)
    command = [request.param, "-c", text, "load", "podman", "app_1.0", "app", f"{tmp_path}/gone", "1", "a", "b", "c"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
            stack.enter_context(run)
            stack.callback(end, run)
            return run

        yield start


def end(run: subprocess.Popen[str]) -> None:
    """Kill a loader and its children."""
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()


@pytest.mark.integration
@pytest.mark.parametrize("holder", ["running", "killed", "killed, PID reused"])
def test_loader_waits_only_for_a_running_loader(
    start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path, holder: str
) -> None:
    lock = tmp_path / "run/kiwi_containers/podman.lock"
    first = start_loader()
    while not (tmp_path / "hangs").exists():
        time.sleep(0.01)
    if holder != "running":
        end(first)
    if holder == "killed, PID reused":
        owner = str(lock.readlink())
        lock.unlink()
        lock.symlink_to(owner.replace(str(first.pid), str(os.getpid()), 1))
    second = start_loader()
    if holder == "running":
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=3)
        end(first)
    output, _ = second.communicate(timeout=30)
    assert output.startswith(f"app: not loaded into podman: {tmp_path}/gone is missing: ")
    assert not lock.is_symlink()


@pytest.mark.integration
def test_stopping_a_waiting_loader_leaves_the_lock_alone(
    start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    start_loader()
    while not (tmp_path / "hangs").exists():
        time.sleep(0.01)
    copies = tmp_path / ARCHIVES[1:] / ".podman-app_1.0"
    copies.mkdir()
    second = start_loader()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1)
    second.terminate()
    assert second.wait(timeout=30) == 143
    assert copies.exists()
    assert (tmp_path / "run/kiwi_containers/podman.lock").is_symlink()


@pytest.mark.integration
@pytest.mark.parametrize("where", ["/run/kiwi_containers", "/var/lib/kiwi_containers", ARCHIVES])
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
    assert not other.exists() or not list(other.iterdir())


@pytest.mark.integration
def test_loader_creates_missing_directories(start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path) -> None:
    for directory in ("/run/kiwi_containers", "/var/lib/kiwi_containers", ARCHIVES):
        (tmp_path / directory[1:]).rmdir()
    (tmp_path / "hangs").mkdir()
    output, _ = start_loader().communicate(timeout=30)
    assert output.startswith(f"app: not loaded into podman: {tmp_path}/gone is missing: ")
    assert {(tmp_path / directory[1:]).stat().st_mode & 0o777 for directory in ("/run/kiwi_containers", ARCHIVES)} == {
        0o755
    }


@pytest.mark.integration
def test_hanging_engine_query_times_out(start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path) -> None:
    for name, command in {"podman": "sleep 300", "timeout": f'{shutil.which("timeout")} 0.2 "$4"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (tmp_path / name).chmod(0o755)
    output, _ = start_loader().communicate(timeout=30)
    assert output.startswith(f"app: not loaded into podman: {tmp_path}/gone is missing: ")
