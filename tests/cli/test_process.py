"""How a run ends: its exit status, and how its messages are marked."""

import errno
import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from osc_containers.cli import process
from osc_containers.cli.main import main
from osc_containers.errors import Error
from osc_containers.lock import lockfile
from osc_containers.obs.package import Package
from osc_containers.registry.retry import Policy
from tests.support import packages

SECTION = packages.section("127.0.0.1:1", 'name="app"')


def _empty(package: Path) -> None:
    packages.write(package)
    (package / "containers.lock").write_text(lockfile.dumps(lockfile.EMPTY))


def _with_containers(package: Path) -> None:
    packages.write(package, SECTION)
    (package / "containers.lock").write_text(lockfile.dumps(lockfile.EMPTY))


def _without_lock(package: Path) -> None:
    packages.write(package, SECTION)


def _not_xml(package: Path) -> None:
    _with_containers(package)
    (package / "appliance.kiwi").write_text("<image")


def _missing(package: Path) -> None:
    """Leave nothing there."""


@pytest.mark.parametrize(
    ("command", "make", "status"),
    [
        ("check", _with_containers, 1),
        ("check", _missing, 3),
        ("check --format=xml", _with_containers, 2),
        ("verify", _empty, 0),
        ("verify", _with_containers, 1),
        ("verify", _without_lock, 1),
        ("verify", _not_xml, 3),
        ("verify", _missing, 3),
        ("outdated", _with_containers, 3),
        ("outdated", _without_lock, 3),
        ("outdated --arch=pdp11", _with_containers, 3),
        ("diff", _with_containers, 3),
        ("list", _with_containers, 0),
        ("list", _missing, 1),
        ("prefetch", _not_xml, 1),
        ("prefetch --foo", _with_containers, 2),
    ],
)
def test_exit_status_tells_findings_from_failures(
    command: str, make: Callable[[Path], object], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    make(package)
    monkeypatch.setattr(Policy.__new__, "__defaults__", tuple(Policy()._replace(attempts=1)))
    directory = [f"--directory={package}"] if command == "diff" else [str(package)]
    assert main([*command.split(), *directory]) == status


@pytest.mark.integration
@pytest.mark.parametrize(
    ("command", "status"),
    [("verify", 3), ("check", 3), ("inject --root=. --arch=x86_64", 1), ("list", 0), ("diff x", 3), ("outdated", 3)],
)
def test_package_in_use_is_named(
    command: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_containers(tmp_path / "package")
    monkeypatch.chdir(tmp_path / "package")
    with Package(Path()).hold():
        assert main(command.split()) == status
    text = capsys.readouterr().err
    assert f".: process {os.getpid()} is changing it, as prefetch and init do" in text


def _raise(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.EMFILE, "Too many open files", "."),
            "too many open files; raise the limit (ulimit -n, ulimit -Hn)",
        ),
        (OSError(errno.EROFS, "Read-only file system", "."), "DIRECTORY: Read-only file system"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a.ociarchive"), "a.ociarchive: Disk quota exceeded"),
        (OSError(errno.EIO, "Input/output error"), "system: Input/output error"),
    ],
)
def test_error_of_the_system_names_a_file_or_a_limit(
    error: OSError, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert process.run("p", lambda: _raise(error)) == 1
    assert capsys.readouterr().err == f"p: error: {message.replace('DIRECTORY', str(tmp_path))}\n"


@pytest.mark.parametrize("command", ["list", "check", "verify", "prefetch"])
def test_file_name_that_is_not_utf_8_is_the_reason(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / os.fsdecode(b"\xff.kiwi")).write_text('<image schemaversion="8.0" name="a"/>')
    assert main([command, str(tmp_path)]) != 0
    output = capsys.readouterr()
    text = (output.out + output.err).replace("\\xff.kiwi: error:", "\\xff.kiwi:")
    assert "\\xff.kiwi: the file name is not UTF-8; rename the file" in text


def test_bug_ends_with_the_status_of_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert process.run("p", lambda: _raise(KeyError("bug")), failure=3) == 3
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.endswith("KeyError: 'bug'\n")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "error", "warning"),
    [
        ({"TERM": "xterm"}, "\x1b[31merror:\x1b[0m", "\x1b[33mwarning:\x1b[0m"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "error:", "warning:"),
        ({"TERM": "dumb"}, "error:", "warning:"),
    ],
)
def test_warnings_and_errors_are_marked(
    variables: dict[str, str], error: str, warning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    output = _Terminal()
    monkeypatch.setattr(sys, "stderr", output)

    def work() -> int:
        logging.getLogger("any").info("pinned")
        logging.getLogger("any").warning("odd")
        raise Error("a: bad", "b: bad")

    assert process.run("p", work) == 1
    assert output.getvalue().splitlines() == [
        "p: pinned",
        f"p: {warning} odd",
        f"p: {error} a: bad",
        f"p: {error} b: bad",
    ]
