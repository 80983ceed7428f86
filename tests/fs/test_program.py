"""Programs are found where only the user can change them, and get nothing from others but arguments."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from osc_containers.errors import Error
from osc_containers.fs import program
from osc_containers.fs.program import NotInstalledError
from tests.support.process import file_size_limit

SYSTEM = "/usr/bin:/bin"
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Return a function that installs a shell script as `tool` in a subdirectory of `tmp_path`."""

    def write(text: str = "echo here", directory: str = "bin") -> Path:
        path = tmp_path / directory / "tool"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write


def environ(*elements: object, **variables: str) -> dict[str, str]:
    return {"PATH": ":".join(map(str, (*elements, SYSTEM))), **variables}


@pytest.mark.parametrize("element", ["", ".", "bin", "./bin", "../package/bin"])
def test_relative_elements_of_path_are_passed_over(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, element: str
) -> None:
    package = install(directory="package").parent
    install(directory="package/bin")
    monkeypatch.chdir(package)
    with pytest.raises(NotInstalledError, match=r"^tool: not installed$"):
        program.run("tool", environ=environ(element))
    path = program.run("sh", "-c", "echo $PATH", environ=environ(element, tmp_path)).stdout.decode()
    assert path == f"{tmp_path}:{SYSTEM}\n"


def test_the_first_program_in_path_runs(install: Install) -> None:
    elements = [install("echo 1", "a").parent, install("echo 2", "b").parent]
    assert program.run("tool", environ=environ("/missing", *elements)).stdout == b"1\n"
    assert program.run("tool", environ=environ(*reversed(elements))).stdout == b"2\n"


def make_directory_open(path: Path) -> None:
    path.parent.chmod(0o777)


def make_sticky_directory_open(path: Path) -> None:
    path.parent.chmod(0o1777)


def make_file_open(path: Path) -> None:
    path.chmod(0o757)


def give_file_away(path: Path) -> None:
    os.chown(path, 65534, 65534)


def give_directory_away(path: Path) -> None:
    os.chown(path.parent, 65534, 65534)


def link_to_open_directory(path: Path) -> None:
    other = path.parent.parent / "open"
    other.mkdir()
    other.chmod(0o777)
    path.symlink_to(path.rename(other / "tool"))


@pytest.mark.parametrize(
    "change",
    [
        make_directory_open,
        make_sticky_directory_open,
        make_file_open,
        give_file_away,
        give_directory_away,
        link_to_open_directory,
    ],
)
def test_programs_that_others_can_change_do_not_run(install: Install, change: Callable[[Path], None]) -> None:
    if "away" in change.__name__ and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = install()
    change(path)
    with pytest.raises(NotInstalledError) as caught:
        program.run("tool", environ=environ(path.parent))
    assert str(caught.value) == f"tool: {path} is not used, because another user can change it or its directory"
    other = install("echo other", "other")
    assert program.run("tool", environ=environ(path.parent, other.parent)).stdout == b"other\n"


@pytest.mark.parametrize("form", ["{}", "{}/bin", "{}/../package/bin", "/proc/self/cwd/bin", "{}/../link/bin"])
def test_programs_in_the_package_do_not_run(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    package = install(directory="package").parent
    install(directory="package/bin")
    (tmp_path / "link").symlink_to(package)
    monkeypatch.chdir(package)
    cleaned = program.outside(Path(), environ(form.format(package)))
    assert cleaned["PATH"] == SYSTEM
    with pytest.raises(NotInstalledError):
        program.run("tool", environ=cleaned)


def test_few_variables_are_inherited(install: Install) -> None:
    own = {"HOME": "/h", "TMPDIR": "/t", "XDG_RUNTIME_DIR": "/r", "AGENT_SOCKET": "x", "AGENT_PID": "1"}
    others = {
        "GIT_DIR": ".",
        "LD_PRELOAD": "x",
        "TAR_OPTIONS": "x",
        "PYTHONPATH": ".",
        "OSC_CONFIG": "x",
        "SECRET": "x",
    }
    path = install("env -i -- env; env").parent

    def inherited(*patterns: str) -> set[str]:
        done = program.run("tool", environ=environ(path, **own, **others), inherit=patterns)
        return {line.partition("=")[0] for line in done.stdout.decode().splitlines()} - {"PWD", "_", "SHLVL", "OLDPWD"}

    always = {"HOME", "TMPDIR", "XDG_RUNTIME_DIR", "PATH", "LC_ALL"}
    assert inherited() == always
    assert inherited("AGENT_*") == always | {"AGENT_SOCKET", "AGENT_PID"}
    assert inherited("*") == always | {"AGENT_SOCKET", "AGENT_PID", "SECRET"}


def test_arguments_stand_behind_dashes_in_an_empty_place(install: Install) -> None:
    path = install('printf "<%s>" "$@"; pwd; cat').parent
    done = program.run("tool", "-a", arguments=["--option", ""], environ=environ(path), stdin=b"text")
    assert done.stdout == b"<-a><--><--option><>/\ntext"
    assert program.run("tool", "-a", environ=environ(path)).stdout == b"<-a>/\n"


def test_a_long_input_and_output_pass() -> None:
    text = os.urandom(3 << 20)
    assert program.run("cat", stdin=text, limit=len(text)).stdout == text


@pytest.mark.parametrize("command", ["cat /dev/zero", "cat /dev/zero | cat"])
def test_endless_output_is_cut_off(command: str) -> None:
    with pytest.raises(Error, match=r"^sh: killed, because it wrote more than 1000 bytes$"):
        program.run("sh", "-c", command, limit=1000)


def test_endless_messages_keep_their_end() -> None:
    done = program.run("sh", "-c", "yes | head -c 1000000 >&2; echo why >&2; exit 3")
    assert (done.status, done.reason, len(done.stderr)) == (3, "why", 1 << 16)
    with pytest.raises(Error, match=r"^sh: why$"):
        done.output()
    assert program.run("false").reason == "exit status 1"


@pytest.mark.parametrize("command", ["exec sleep 60", "exec >&- 2>&-; exec sleep 60"])
def test_a_program_that_hangs_is_killed(command: str) -> None:
    with pytest.raises(Error, match=r"^sh: killed, because it did not end within 0 seconds$"):
        program.run("sh", "-c", command, timeout=0.1)


def test_a_program_that_cannot_start_is_reported(install: Install) -> None:
    path = install()
    path.write_bytes(b"\x7fELF")
    with pytest.raises(Error, match=f"^tool: {path} cannot be started: Exec format error$"):
        program.run("tool", environ=environ(path.parent))
    with pytest.raises(Error, match=r"cannot be started: embedded null byte"):
        program.run("cat", arguments=["a\0b"])


def test_the_programs_of_the_system_are_safe() -> None:
    assert stat.S_ISDIR(os.stat("/usr/bin").st_mode)
    assert program.run("true", environ={}).status == 0


def test_streams_go_through_a_program() -> None:
    chunks = [bytes([number]) * 100_000 for number in range(100)]
    assert b"".join(program.transform("cat", source=map(memoryview, chunks))) == b"".join(chunks)
    assert list(program.transform("cat", source=())) == []


def test_a_program_may_stop_reading() -> None:
    assert b"".join(program.transform("head", "-c", "3", source=(bytes(1 << 20) for _ in range(50)))) == bytes(3)


def test_failures_of_a_filter_are_reported(install: Install) -> None:
    path = install("cat >/dev/null; echo one; echo why >&2; exit 3").parent
    with pytest.raises(Error, match="tool: why"):
        list(program.transform("tool", source=[b"x"], environ=environ(path)))
    path = install("kill -9 $$").parent
    with pytest.raises(Error, match="tool: exit status -9"):
        list(program.transform("tool", source=[b"x" * (1 << 20)], environ=environ(path)))
    with pytest.raises(NotInstalledError, match="tool: not installed"):
        list(program.transform("tool", source=[], environ={"PATH": "/nowhere"}))


def test_of_the_messages_of_a_filter_only_the_end_is_kept(install: Install) -> None:
    """Nor are they in a file in memory, which the limit for the size of files would end."""
    path = install("head -c 4000000 /dev/zero >&2; echo >&2; echo why >&2; cat; exit 3").parent
    with file_size_limit(1 << 20), pytest.raises(Error, match=r"^tool: why$"):
        list(program.transform("tool", source=[b"x"], environ=environ(path)))


@pytest.mark.parametrize("command", ["sleep 60", "yes >&2"])
def test_a_filter_that_hangs_is_killed(install: Install, command: str) -> None:
    path = install(f"exec {command}").parent
    with pytest.raises(Error, match="tool: killed, because it did nothing for 0 seconds"):
        list(program.transform("tool", source=[b"x" * (1 << 20)], environ=environ(path), timeout=0.2))


def test_a_filter_ends_with_its_source(tmp_path: Path, install: Install) -> None:
    path = install(f"echo $$ >{tmp_path}/number; mv {tmp_path}/number {tmp_path}/process; exec cat").parent

    def source() -> Iterator[bytes]:
        while not (tmp_path / "process").exists():
            yield b"x"
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(program.transform("tool", source=source(), environ=environ(path)))
    assert not Path("/proc", (tmp_path / "process").read_text().strip()).exists()


def test_a_filter_inherits_few_variables() -> None:
    settings = {"SOURCE_DATE_EPOCH": "1"}
    output = b"".join(
        program.transform("env", source=(), environ=environ(LD_PRELOAD="x", SECRET="y"), settings=settings)
    )
    assert {line.partition("=")[0] for line in output.decode().splitlines()} == {"LC_ALL", "PATH", "SOURCE_DATE_EPOCH"}
