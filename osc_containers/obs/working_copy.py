"""The version control that a package is in: what to add to it, and what it has committed."""

import re
import shlex
import subprocess
from collections.abc import Collection
from enum import Enum
from pathlib import Path

from osc_containers.errors import Error
from osc_containers.lock.archive_names import ARCHIVE_SUFFIX


class System(Enum):
    """What keeps the revisions of a package."""

    OSC = "osc"
    GIT = "git"


def system_of(directory: Path) -> System | None:
    """Return what the directory is a working copy of, or None where it is none."""
    if (directory / ".osc").is_dir():
        return System.OSC
    path = directory.resolve()
    return System.GIT if any((each / ".git").exists() for each in (path, *path.parents)) else None


def commands_for(directory: Path, names: Collection[str]) -> tuple[str, ...]:
    """Return the shell commands that commit files of a package, osc's where it is in no version control yet."""
    system = system_of(directory) or System.OSC
    if system is System.OSC:  # which warns of files that it has already
        names = [name for name in names if _kept_by_osc(directory, name) is None]
    archives = [name for name in names if name.endswith(ARCHIVE_SUFFIX)]
    words = [shlex.quote(name) for name in names if name not in archives]
    words += archives if len(archives) < 2 else [f"*{ARCHIVE_SUFFIX}"]
    return (*([" ".join([system.value, "add", *words])] if words else []), f"{system.value} commit")


def commands_for_all(directory: Path) -> tuple[str, ...]:
    """Return the shell commands that commit a package with whatever is new in it."""
    if system_of(directory) is System.GIT:
        return "git add .", "git commit"
    return "osc addremove", "osc commit"


def removal_of(directory: Path, name: str) -> str:
    """Return the shell command that removes a file from a package, whether or not it was ever committed."""
    command = "osc rm --force" if system_of(directory) is System.OSC else "rm"
    return f"{command} {shlex.quote(name)}"


def committed(directory: Path, name: str, revision: str | None) -> bytes | None:
    """Return a file as a revision has it (without one, the last that is known here), or None where it has none.

    Only a revision of osc needs a network: the file of the last one is kept in `.osc`.

    :raises Error: there is no such revision, or no version control.
    """
    system = system_of(directory)
    if system is None:
        raise Error(f"{directory}: is no working copy of osc or git; name the file to compare with")
    if system is System.GIT:
        return _committed_to_git(directory, name, revision)
    if revision is not None:
        return _committed_to_obs(directory, name, revision)
    path = _kept_by_osc(directory, name)
    return path.read_bytes() if path else None


def _kept_by_osc(directory: Path, name: str) -> Path | None:
    """Return the copy of a committed file: osc 1 has them in `sources`, older versions beside its own files."""
    paths = (directory / ".osc" / "sources" / name, directory / ".osc" / name)
    return next((path for path in paths if path.is_file()), None)


def _committed_to_git(directory: Path, name: str, revision: str | None) -> bytes | None:
    git = ("git", "-C", str(directory))
    found = _run(*git, "rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision or 'HEAD'}^{{commit}}")
    if found.returncode and found.stderr:  # silence is for a revision that is not there
        raise Error(f"git: {' '.join(found.stderr.decode('utf-8', 'replace').split())[:600]}")
    if found.returncode and revision is not None:
        raise Error(f"{revision[:80]!r}: no such file, and no such revision in git")
    commit = found.stdout.decode().strip()
    if not commit or not _checked(_run(*git, "ls-tree", commit, "--", name)):
        return None
    return _checked(_run(*git, "cat-file", "blob", f"{commit}:./{name}"))


def _committed_to_obs(directory: Path, name: str, revision: str) -> bytes:
    if not re.fullmatch("[0-9a-f]{1,40}|latest|upload", revision):
        raise Error(f"{revision[:80]!r}: no such file, and a revision of OBS is a number, a hash or 'latest'")
    apiurl, project, package = (
        (directory / ".osc" / each).read_text("utf-8").strip() for each in ("_apiurl", "_project", "_package")
    )
    return _checked(_run("osc", "-A", apiurl, "cat", "--revision", revision, project, package, name))


def _checked(done: "subprocess.CompletedProcess[bytes]") -> bytes:
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise Error(f"{done.args[0]}: {reason[0][:300]}")
    return done.stdout


def _run(*command: str) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Error(f"{command[0]}: not installed") from None
