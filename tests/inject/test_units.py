"""The files that load containers at first boot, as text; `e2e/test_boot.py` boots them."""

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

# What names would have to get past the parser of references to do harm here.
WEAPONS = ("%n%%", "$HOME ${HOME}", '"', "'", "\\", "a\\", "a\nExecStart=/bin/true", " ;", "-rf", "é\u202e", "\x1b[31m")


# No argument of a program, and so no name of ours, can have a NUL.
ANY_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)


def texts(*loads: Load) -> dict[str, str]:
    """Render loads: the text of each file, and the target of each link, by path."""
    return {file.path: file.text if isinstance(file, TextFile) else file.target for file in units.render(loads)}


def named(text: str, backend: str = "podman") -> Load:
    """Return a load all of whose names are `text`, unparsed."""
    return LOAD._replace(backend=backend, reference=Reference(text, text, text), path=f"{ARCHIVES}/{text}")


def test_the_unit_of_a_container() -> None:
    assert texts(LOAD)[f"{UNITS}/kiwi_containers-podman-app_1.0.service"] == (
        "[Unit]\n"
        "Description=Container registry.example.com:5000/team/app:1.0 in podman\n"
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
def test_a_unit_is_ordered_after_what_its_engine_needs(backend: str, lines: set[str]) -> None:
    text = texts(LOAD._replace(backend=backend))[f"{UNITS}/kiwi_containers-{backend}-app_1.0.service"]
    assert set(text.partition("\n\n")[0].splitlines()[2:]) == lines | {"Before=kiwi_containers.service"}


def test_the_files_of_two_engines_and_their_modes() -> None:
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


def test_archives_that_are_only_fetched_need_protection_from_aging_alone() -> None:
    assert set(texts()) == {TMPFILES}


def test_order_and_repetition_of_loads_make_no_difference() -> None:
    expected = units.render([LOAD, DOCKER, OTHER])
    for loads in permutations([LOAD, DOCKER, OTHER]):
        assert units.render([*loads, loads[0]]) == expected


def test_the_files_of_combined_overlays_agree() -> None:
    assert texts(LOAD, DOCKER, OTHER) == texts(LOAD, DOCKER) | texts(DOCKER, OTHER)


def test_a_unit_has_one_container() -> None:
    with pytest.raises(ValueError, match=r"^kiwi_containers-podman-app_1.0.service: got two containers, "):
        units.render([LOAD, LOAD._replace(reference=OTHER.reference)])


def test_an_unknown_backend_is_refused() -> None:
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
def test_an_id_is_the_name_of_the_archive_made_fit(name: str, expected: str) -> None:
    assert units.load_id(f"{ARCHIVES}/{name}") == expected


@given(st.sampled_from(list(BACKENDS)), st.text() | st.text(min_size=200, max_size=400))
def test_names_of_units_are_fit_for_systemd_and_file_systems(backend: str, name: str) -> None:
    unit = LOAD._replace(backend=backend, path=f"{ARCHIVES}/{name}").unit
    assert set(unit) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert len(unit) <= 255


@given(st.text(), st.text())
def test_two_paths_have_two_ids(one: str, other: str) -> None:
    assert (units.load_id(one) == units.load_id(other)) == (one == other)


@given(st.text())
def test_no_name_is_the_id_of_another(name: str) -> None:
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
def test_an_argument_is_quoted(text: str, quoted: str) -> None:
    assert units.quote_argument(text) == quoted


def test_an_argument_has_no_nul() -> None:
    with pytest.raises(ValueError, match=r"^got 'a\\x00', expected no NUL in it$"):
        units.quote_argument("a\0")


@given(st.text())
def test_a_description_stays_on_its_line_and_sends_nothing_to_a_terminal(text: str) -> None:
    quoted = units.quote_description(text)
    assert quoted.isascii()
    assert quoted.isprintable()
    assert not quoted.endswith("\\")
    assert "%" not in quoted.replace("%%", "")


@given(st.sampled_from(list(BACKENDS)), ANY_TEXT | st.sampled_from(WEAPONS))
def test_no_name_adds_a_line_to_a_unit(backend: str, name: str) -> None:
    harmless, hostile = (texts(load)[f"{UNITS}/{load.unit}"] for load in (named("x", backend), named(name, backend)))
    assert [line.partition("=")[0] for line in hostile.split("\n")] == [
        line.partition("=")[0] for line in harmless.split("\n")
    ]


def write(root: Path, *loads: Load) -> list[str]:
    """Write the files of loads into a root with as many of systemd's own units as they refer to; return the units."""
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
    """Have systemd read the units: it says nothing where nothing is wrong."""
    command = ["systemd-analyze", f"--root={root}", "verify", *write(root, *loads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.integration
def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    verify(tmp_path / "root", *(LOAD._replace(backend=backend) for backend in BACKENDS), OTHER)


@pytest.mark.integration
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY_TEXT | st.sampled_from(WEAPONS), min_size=1, max_size=8, unique=True))
def test_systemd_has_nothing_to_say_about_units_with_hostile_names(tmp_path: Path, names: list[str]) -> None:
    verify(tmp_path / "root", *(named(name) for name in names))


@pytest.mark.integration
def test_aging_leaves_the_archives_alone(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "usr/lib/tmpfiles.d/tmp.conf").write_text("q /var/tmp 1777 root root 1s\n")
    for name in ("other", "kiwi_containers/app_1.0", "kiwi_containers/deep/app_1.0"):
        (tmp_path / "var/tmp" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "var/tmp" / name).touch()
    time.sleep(1.1)
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--clean"], check=True)
    left = {str(path.relative_to(tmp_path / "var/tmp")) for path in (tmp_path / "var/tmp").rglob("*_1.0")}
    assert left == {"kiwi_containers/app_1.0", "kiwi_containers/deep/app_1.0"}
    assert not (tmp_path / "var/tmp/other").exists()


@pytest.mark.parametrize("is_kept", [True, False])
def test_an_archive_that_is_loaded_and_fetch_only_too_stays(tmp_path: Path, is_kept: bool) -> None:
    """Of what is loaded already nothing is left to do but to remove the archive."""
    text = texts(LOAD)[LOADER]
    for name, place in (("state", "/var/lib/kiwi_containers"), ("keep", units.KEEP), ("units", UNITS)):
        text = text.replace(f"{name}={place}\n", f"{name}={tmp_path}/{name}\n")
        (tmp_path / name).mkdir()
    archive = tmp_path / "archive"
    archive.touch()
    (tmp_path / "state/podman-app_1.0").write_text(f"{LOAD.sha256}\n")
    if is_kept:
        marker = units.keep(LOAD.path)
        (tmp_path / "keep" / Path(marker.path).name).write_text(marker.text)
    arguments = ["podman", "app_1.0", "name", str(archive), "4096", LOAD.sha256, "c", "b", "0"]
    subprocess.run(["sh", "-c", text, "load", *arguments], check=True)
    assert archive.exists() == is_kept


@pytest.mark.integration
def test_the_loader_is_portable(tmp_path: Path) -> None:
    loader = tmp_path / "load"
    loader.write_text(texts(LOAD)[LOADER])
    subprocess.run(["shellcheck", "--shell=sh", loader], check=True)
    for shell in ("dash", "bash"):
        subprocess.run([shell, "-n", os.fspath(loader)], check=True)


@pytest.fixture(params=["dash", "bash"])
def start_loader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Give a function that starts loaders in directories of their own, without an archive; podman hangs once."""
    text = texts(LOAD)[LOADER]
    for directory in ("/run/kiwi_containers", "/var/lib/kiwi_containers", ARCHIVES):
        assert f"={directory}\n" in text
        text = text.replace(f"={directory}\n", f"={tmp_path}{directory}\n")
        (tmp_path / directory[1:]).mkdir(parents=True)
    (tmp_path / "podman").write_text(f"#!/bin/sh\nmkdir {tmp_path}/hangs && exec sleep 300\nexit 1\n")
    (tmp_path / "podman").chmod(0o755)
    command = [request.param, "-c", text, "load", "podman", "app_1.0", "app", f"{tmp_path}/gone", "1", "a", "b", "c"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with ExitStack() as started:

        def start() -> subprocess.Popen[str]:
            run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
            started.enter_context(run)
            started.callback(end, run)
            return run

        yield start


def end(run: subprocess.Popen[str]) -> None:
    """Kill a loader and what it runs."""
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()


@pytest.mark.integration
@pytest.mark.parametrize("holder", ["at work", "killed", "killed, and its PID is another's"])
def test_a_loader_waits_for_no_other_but_one_that_is_at_work(
    start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path, holder: str
) -> None:
    lock = tmp_path / "run/kiwi_containers/podman.lock"
    first = start_loader()
    while not (tmp_path / "hangs").exists():
        time.sleep(0.01)
    if holder != "at work":
        end(first)
    if holder == "killed, and its PID is another's":
        owner = str(lock.readlink())
        lock.unlink()
        lock.symlink_to(owner.replace(str(first.pid), str(os.getpid()), 1))
    second = start_loader()
    if holder == "at work":
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=3)
        end(first)
    output, _ = second.communicate(timeout=30)
    assert output.startswith(f"app: not loaded into podman: {tmp_path}/gone is missing: ")
    assert not lock.is_symlink()


@pytest.mark.integration
def test_a_loader_that_is_stopped_while_it_waits_takes_nothing_from_the_one_at_work(
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
def test_an_engine_that_hangs_is_not_waited_for_without_end(
    start_loader: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    for name, command in {"podman": "sleep 300", "timeout": f'{shutil.which("timeout")} 0.2 "$4"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (tmp_path / name).chmod(0o755)
    output, _ = start_loader().communicate(timeout=30)
    assert output.startswith(f"app: not loaded into podman: {tmp_path}/gone is missing: ")
