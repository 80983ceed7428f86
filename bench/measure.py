"""What a run costs: time, processor, memory, bytes on the wire and to the disk; and how busy others were meanwhile."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_LAUNCH = Path(__file__).with_name("launch.py")
_TICKS = os.sysconf("SC_CLK_TCK")
_INTERVAL = 0.05
"""Seconds between two looks at what a run holds."""
_Command = Sequence[str | Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run took; bytes, and seconds."""

    wall: float
    cpu: float
    """User and system, of the program and of all its children."""
    peak: int
    """The largest resident set of any of its processes."""
    written: int
    """All that it had the kernel write: write(2) and its kin, copy_file_range(2), sendfile(2); also into pipes."""
    dirtied: int
    """Pages of files on disks that it made dirty, whether or not a disk saw them in the end."""
    served: float
    """Processor time of the servers that it talked to."""
    others: float
    """Cores that were busy with what is neither the program nor its servers."""
    wire: int = 0
    blob_bytes: int = 0
    manifest_requests: int = 0


def measure(commands: Sequence[_Command], environment: Mapping[str, str]) -> Cost:
    """Run commands one after the other; our other child processes are taken to be the servers that they talk to.

    :raises RuntimeError: one of them failed.
    """
    words = {"commands": [[str(word) for word in command] for command in commands]}
    with tempfile.TemporaryFile("w+") as errors:
        servers = _children()
        before = _busy(), _used(servers)
        launched = subprocess.run(
            [sys.executable, "-I", "-S", _LAUNCH],
            check=True,
            input=json.dumps(words),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=dict(environment),
        )
        busy, used = _busy() - before[0], _used(servers) - before[1]
        took = json.loads(launched.stdout)
        if took.pop("status"):
            errors.seek(0)
            raise RuntimeError(f"{words['commands'][0][:3]} … failed: {errors.read()[-2000:]}")
    others = max(0.0, busy - used - took["cpu"]) / took["wall"]
    return Cost(**took, served=used, others=others)


@dataclass(slots=True)
class Peaks:
    """The most memory that our child processes and their children had together, and the most disk space; in bytes."""

    memory: int = 0
    disk: int = 0


@contextmanager
def watch(*directories: Path) -> Iterator[Peaks]:
    """Yield what processes that are started in the block have at most together, and the files in these directories."""
    servers = set(_children())
    peaks, before, end = Peaks(), _size(directories), threading.Event()

    def sample() -> None:
        while not end.wait(_INTERVAL):
            memory = sum(map(_resident, _descendants(set(_children()) - servers)))
            peaks.memory = max(peaks.memory, memory)
            peaks.disk = max(peaks.disk, _size(directories) - before)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peaks
    finally:
        end.set()
        thread.join()


def _descendants(processes: Iterable[str]) -> Iterator[str]:
    for process in processes:
        yield process
        with suppress(OSError):
            for path in Path(f"/proc/{process}/task").glob("*/children"):
                yield from _descendants(path.read_text().split())


def _resident(process: str) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _size(directories: Iterable[Path]) -> int:
    """Return the space that files take which are in these directories."""
    total = 0
    for directory in directories:
        for path in directory.rglob("*"):
            with suppress(OSError):
                total += path.lstat().st_blocks * 512
    return total


def _busy() -> float:
    """Return the seconds that the processors have worked so far, including what the host took from them.

    Interrupts are not in it: the kernel may or may not count them to a process (proc_stat(5)).
    """
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _, _, _, _, steal = (int(word) for word in words[1:9])
    return (user + nice + system + steal) / _TICKS


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def _used(processes: Sequence[str]) -> float:
    """Return the processor time that these have had so far, in seconds (proc_pid_stat(5): utime and stime)."""
    lines = (Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split() for process in processes)
    return sum(int(words[11]) + int(words[12]) for words in lines) / _TICKS
