"""The installed services, run as osc and the OBS server do, and snapshots of directories."""

import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

IN_BUILD_ROOT = Path(__file__).resolve().parents[2] / "scripts/in-build-root"

Done = subprocess.CompletedProcess[str]


def run(
    service: Path,
    package: Path,
    *arguments: str,
    outdir: Path | None = None,
    environment: Mapping[str, str] | None = None,
    within: Sequence[str | Path] = (),
) -> Done:
    """Run the script `service` in `package`, and move its results to the package as osc does.

    With `outdir`, or after a failure, nothing is moved. `within` is a command that runs another command.
    """
    with tempfile.TemporaryDirectory(dir=package, suffix=f".{service.name}.service") as name:
        command = [*within, service, *arguments, "--outdir", outdir or Path(name).absolute()]
        done = subprocess.run(
            command,
            cwd=package,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": os.environ["HOME"]} | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        results = sorted(Path(name).iterdir())
        assert done.returncode == 0 or not results, f"left behind after a failure: {results}"
        for result in results:
            result.rename(package / result.name)
    return done


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The state of a file, directory or symlink; `content` is the hash of a file or the target of a symlink."""

    mode: int
    owner: tuple[int, int]
    inode: int
    modified: int
    content: str


def snapshot(directory: Path) -> dict[str, Entry]:
    """Return the state of everything below `directory`, by relative path."""
    return {str(path.relative_to(directory)): _entry(path) for path in sorted(directory.rglob("*"))}


def _entry(path: Path) -> Entry:
    status = path.lstat()
    content = ""
    if stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return Entry(
        mode=status.st_mode,
        owner=(status.st_uid, status.st_gid),
        inode=status.st_ino,
        # The time of a directory changes with every temporary file in it, which is harmless.
        modified=0 if path.is_dir() else status.st_mtime_ns,
        content=content,
    )


def contents(directory: Path) -> dict[str, str]:
    """Return the hash or target of every file and symlink below `directory`, by relative path."""
    return {name: entry.content for name, entry in snapshot(directory).items() if entry.content}


def last_line(done: Done) -> str:
    """Return the last line of standard error, which is all that a build server shows of a failed run."""
    return done.stderr.splitlines()[-1]
