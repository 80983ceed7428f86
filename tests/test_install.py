"""`make install`, `make uninstall`, `scripts/setup` and package builds on an unprepared machine."""

import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest

from osc_containers import __version__

ROOT = Path(__file__).resolve().parent.parent
CLEAN = {"PATH": "/usr/bin:/bin"}


def make_install(*variables: str, umask: int = 0o022) -> "subprocess.CompletedProcess[str]":
    return make("install", *variables, umask=umask)


def make(target: str, *variables: str, umask: int = 0o022) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--silent", target, *variables]
    return subprocess.run(command, cwd=ROOT, env=environment, umask=umask, capture_output=True, text=True)


@pytest.mark.integration
def test_staged_tree_runs_in_place(tmp_path: Path) -> None:
    stage = tmp_path / "a stage"
    assert make_install(f"DESTDIR={stage}", "PREFIX=/opt/x", f"PYTHON={sys.executable}").returncode == 0
    command = stage / "opt/x/bin/osc-containers"
    done = subprocess.run([command, "--version"], env=CLEAN, cwd="/", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"osc-containers {__version__}\n", "")
    compiled = next(stage.rglob("main.*.pyc")).read_bytes()
    assert marshal.loads(compiled[16:]).co_filename == "/opt/x/lib/osc-containers/osc_containers/cli/main.py"


@pytest.mark.integration
def test_link_to_the_program_runs_it(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(installed / "bin/osc-containers")
    assert subprocess.run([tmp_path / "link", "--version"], env=CLEAN, capture_output=True).returncode == 0


@pytest.mark.integration
def test_installed_files_are_world_readable(tmp_path: Path) -> None:
    assert make_install(f"DESTDIR={tmp_path}", f"PYTHON={sys.executable}", umask=0o077).returncode == 0
    modes = {path.relative_to(tmp_path): path.stat().st_mode & 0o7777 for path in (tmp_path / "usr").rglob("*")}
    programs = {Path("usr/bin/osc-containers"), *(Path("usr/lib/obs/service", name) for name in _SERVICES)}
    scripts = {*programs, *(path for path in modes if path.suffix == ".sh")}
    expected = {path: 0o755 if path in scripts or (tmp_path / path).is_dir() else 0o644 for path in modes}
    assert modes == expected
    assert programs <= set(modes)


_SERVICES = ("kiwi_containers", "kiwi_containers_inject")


@pytest.mark.parametrize("program", ["scripts/osc-containers", *(f"service/{name}" for name in _SERVICES)])
def test_old_python_is_reported(program: str) -> None:
    path = str(ROOT / program)
    as_old = f"import sys, runpy; sys.version_info = (3, 10, 13); runpy.run_path({path!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-c", as_old], env=CLEAN, capture_output=True, text=True)
    message = f"{Path(program).name}: {sys.executable} is Python {sys.version.split()[0]}, expected 3.11 or newer\n"
    assert (done.returncode, done.stderr) == (1, message)


@pytest.mark.integration
def test_install_removes_files_of_an_older_version(tmp_path: Path) -> None:
    stale = tmp_path / "usr/lib/osc-containers/osc_containers/stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert make_install(f"DESTDIR={tmp_path}", f"PYTHON={sys.executable}").returncode == 0
    assert not stale.exists()


@pytest.mark.integration
def test_uninstall_removes_exactly_what_install_added(tmp_path: Path) -> None:
    existing = {tmp_path / "usr/lib/obs/service/download_files", tmp_path / "usr/lib/osc-plugins/other.py"}
    for path in existing:
        path.parent.mkdir(parents=True)
        path.touch()
    variables = f"DESTDIR={tmp_path}", f"PYTHON={sys.executable}"
    assert make("install", *variables).returncode == 0
    done = make("uninstall", *variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path for path in tmp_path.rglob("*") if not path.is_dir()} == existing


@pytest.mark.integration
def test_uninstall_removes_empty_directories(tmp_path: Path) -> None:
    variables = f"DESTDIR={tmp_path}", f"PYTHON={sys.executable}"
    assert make("install", *variables).returncode == 0
    assert make("uninstall", *variables).returncode == 0
    assert list((tmp_path / "usr/lib").iterdir()) == []


@pytest.mark.integration
def test_missing_python_modules_are_reported(tmp_path: Path) -> None:
    """There is no warning with DESTDIR: the dependencies come with the installation of the package."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python, prefix = f"PYTHON={venv}/bin/python", f"PREFIX={tmp_path}/prefix"
    done = make_install(python, prefix, "DESTDIR=")
    missing = "lxml, requests, urllib3, platformdirs, rich"
    message = f"warning: {venv}/bin/python lacks {missing}; install them, or set PYTHON to another interpreter\n"
    assert (done.returncode, done.stderr) == (0, message)
    assert make_install(python, prefix, f"DESTDIR={tmp_path}/stage").stderr == ""


def test_install_says_what_to_do_if_it_cannot_write() -> None:
    """For root, nothing but a file is in the way."""
    done = make_install("DESTDIR=", "PREFIX=/dev/null/usr", f"PYTHON={sys.executable}")
    first, make_says = done.stderr.splitlines()
    assert first == (
        "make install: cannot write to /dev/null/usr/bin: run 'sudo make install', or install for yourself: "
        f"make install PREFIX={os.environ['HOME']}/.local"
    )
    assert make_says.startswith("make: ***")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.integration
def test_install_elsewhere_says_that_osc_finds_no_services(tmp_path: Path) -> None:
    done = make_install(f"DESTDIR={tmp_path}", "PREFIX=/opt/x", f"PYTHON={sys.executable}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "those in /opt/x: use 'osc-containers prefetch', see docs/install.md" in done.stdout


def test_setup_lists_missing_programs_without_apt(tmp_path: Path) -> None:
    """A PATH with only the programs that the script itself needs stands for a machine without apt."""
    for name in ("bash", "dirname", "env"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    environment = {"PATH": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run([ROOT / "scripts/setup", "demo"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].split(None, 3)[1:] == ["missing:", "docker-registry", "the registry that images are pulled from"]
    assert [line.split() for line in lines[-3:]] == [
        ["Debian", "sudo", "apt-get", "install", "docker-registry", "util-linux"],
        ["openSUSE", "sudo", "zypper", "install", "distribution-registry", "util-linux"],
        ["Fedora", "sudo", "dnf", "install", "docker-distribution", "util-linux"],
    ]


def test_setup_finds_the_registry_of_other_distributions(tmp_path: Path) -> None:
    for name in ("bash", "dirname", "env", "git"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    (tmp_path / "registry").symlink_to("/usr/bin/true")
    environment = {"PATH": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run([ROOT / "scripts/setup", "demo"], env=environment, capture_output=True, text=True)
    assert [line.split()[2] for line in done.stderr.splitlines() if "missing:" in line] == ["util-linux"]


def test_setup_refuses_an_old_python() -> None:
    environment = CLEAN | {"PYTHON": "false"}
    done = subprocess.run([ROOT / "scripts/setup", "check"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "false is not Python 3.11 or newer" in done.stderr


@pytest.mark.parametrize(("installed", "is_checked"), [(20_000, True), (0, False)])
def test_rpm_build_checks_its_requirements(tmp_path: Path, installed: int, is_checked: bool) -> None:
    """Stubs replace rpm and rpmbuild: on Debian, rpm has no packages in its database."""
    rpmbuild = f'echo "$@" >{tmp_path}/arguments; mkdir "${{2#_topdir }}/RPMS" "${{2#_topdir }}/SRPMS"'
    for name, script in (("rpm", f"seq {installed}"), ("rpmbuild", rpmbuild)):
        (tmp_path / name).write_text(f"#!/bin/sh -e\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    done = subprocess.run([ROOT / "dist/build-rpm", tmp_path / "out"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("--nodeps" not in (tmp_path / "arguments").read_text()) is is_checked


@pytest.mark.parametrize(("version", "is_old"), [("0.169.1", True), ("1.0.0", False), ("1.28.0", False), ("?", False)])
def test_an_osc_without_our_command_is_named(tmp_path: Path, version: str, is_old: bool) -> None:
    osc = tmp_path / "osc"
    osc.write_text(f"#!/bin/sh\necho osc {version}\n")
    osc.chmod(0o755)
    command = [sys.executable, str(ROOT / "scripts/say-missing")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    expected = f"warning: {osc} is {version}, which has no 'osc containers'; use 'osc-containers', or install osc 1.0"
    assert done.stderr.startswith(expected if is_old else "")
    assert bool(done.stderr) is is_old
