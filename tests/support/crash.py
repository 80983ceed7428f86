"""kill -9 at every step of a prefetch and at random moments: what `make crash` runs.

    python -m tests.support.crash [--seed TEXT] [POINTS]

A run is killed before its N-th change of the file system (what Python's audit events show, and every write of ours), or
after some time. Then every file under a final name is whole: it is that of the state before or that of the state after.
The next run completes: archives and lock are those of a run that was never killed, and nothing else is left.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from osc_containers.cli import main as cli
from osc_containers.cli import services
from osc_containers.fs import ranges
from osc_containers.lock import lockfile
from osc_containers.obs import package
from osc_containers.prefetch import prefetch
from osc_containers.sources import transports
from tests.support import fault_registry, images

POINTS = 1500
HOST = "registry.example"
_EVENTS = frozenset(
    {"os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.utime"}
)
OPTIONS = {
    "command": [],
    "service": [],
    "bundle": ["--inject", "source"],
    "blobs": ["--layout", "blobs"],
    "to blobs": ["--layout", "blobs"],
    "to archives": ["--layout", "archives"],
}
"""`osc-containers prefetch` with other options; the service, and then the moves of osc; a switch of the layout."""
PREVIOUS = {"to blobs": "command", "to archives": "blobs"}
"""What made the package before a switch."""
STATES = ("new", "moved")
CACHES = ("here", "elsewhere")
"""Whether parts can be in the user's cache, or must be beside their targets."""

_LOADED = (cli, services, package, prefetch, transports)  # before the fork, so that the steps are those of the run


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What kind of run is killed."""

    mode: str
    state: str
    cache: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """When it is killed: before a step, else after some seconds."""

    kind: Kind
    step: int | None
    seconds: float


class Violation(Exception):
    """Something was found that is not promised to be found."""


Files = dict[str, bytes]


def _image(name: str) -> images.Image:
    return images.image(images.random_layer("base", 1_500_000), images.random_layer(name, 700_000))


_NAMES = {"new": ("app:1", "web:2", "old:3"), "moved": ("app:1", "web:2", "db:4")}


def _description(state: str) -> str:
    names = (name.split(":") for name in _NAMES[state])
    containers = "".join(f'<container name="{name}" path="team" tag="{tag}"/>\n' for name, tag in names)
    section = f'<containers source="{HOST}" backend="podman">\n{containers}</containers>'
    return f'<image schemaversion="8.0" name="x">\n{section}\n</image>\n'


def _serve(state: str, ready: int) -> NoReturn:
    with fault_registry.serve() as registry:
        for name in _NAMES[state]:
            registry.push(_image("app moved" if (name, state) == ("app:1", "moved") else name), f"team/{name}")
        os.write(ready, registry.host.encode())
        os.close(ready)
        while True:
            signal.pause()


@contextmanager
def _registry(state: str) -> Iterator[str]:
    """Run the registry of a state in a process of its own, and give its `HOST:PORT`."""
    reading, writing = os.pipe()
    pid = _fork(lambda: _serve(state, writing))
    os.close(writing)
    try:
        yield os.read(reading, 100).decode()
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        status = int(work() or 0)  # type: ignore[call-overload]
    finally:
        os._exit(status)


class FileSlice:
    """A directory with a package, a cache and what a run said."""

    def __init__(self, directory: Path, kind: Kind, host: str) -> None:
        self.package = directory / "package"
        self.said = directory / "said"
        self._kind = kind
        self._environ = {
            "HOME": str(directory),
            "XDG_CACHE_HOME": str(directory / "cache" if kind.cache == "here" else Path("/proc/none")),
            "CONTAINERS_REGISTRIES_CONF": str(directory / "registries.conf"),
        }
        (directory / "registries.conf").write_text(
            f'[[registry]]\nprefix = "{HOST}"\nlocation = "{host}"\ninsecure = true\n'
        )

    def run(self, step: int | None = None, count: int | None = None) -> int:
        """Start a run that is killed before a step, or writes the number of its steps to `count`; return its PID."""
        return _fork(lambda: self._run(step, count))

    def _run(self, step: int | None, count: int | None) -> int:
        os.environ.update(self._environ)
        os.chdir(self.package)
        with self.said.open("wb") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        steps = _count_steps(step)
        status = self._as_osc() if self._kind.mode == "service" else self._as_command()
        if count is not None:
            os.write(count, str(steps[0]).encode())
        return status

    def _as_command(self) -> int:
        return cli.main(["prefetch", "--arch", "x86_64", *OPTIONS[self._kind.mode]])

    def _as_osc(self) -> int:
        """Do what osc does around a service (obs_scm/serviceinfo.py): all that is in its outdir is moved."""
        outdir = tempfile.mkdtemp(dir=".", suffix=".kiwi_containers.service")
        status = services.prefetch(["--outdir", os.path.abspath(outdir), "--arch", "x86_64"])
        if status == 0:
            for name in os.listdir(outdir):
                os.rename(os.path.join(outdir, name), name)
        shutil.rmtree(outdir)
        return status

    def finals(self) -> Files:
        """Return the files that have a final name: not hidden, and not in a directory of osc."""
        return {path.name: path.read_bytes() for path in self._all() if path.is_file() and path.name[0] != "."}

    def hidden(self) -> list[str]:
        """Return the names of what is hidden."""
        return [path.name for path in self._all() if path.name[0] == "."]

    def _all(self) -> list[Path]:
        return sorted(self.package.iterdir())


def _count_steps(kill_at: int | None) -> list[int]:
    """Count changes of the file system from now on, and die before one of them."""
    steps = [0]

    def step() -> None:
        if steps[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps[0] += 1

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_CREAT | os.O_TRUNC)
        if event in _EVENTS or writes:
            step()

    write_all = ranges.write_all

    def counted(descriptor: int, content: bytes | memoryview, offset: int) -> None:
        step()
        write_all(descriptor, content, offset)

    ranges.write_all = counted
    sys.addaudithook(hook)
    return steps


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Crashes:
    """The kinds of run, what each makes when it is left alone, and the registries that it needs."""

    def __init__(self, base: Path, hosts: dict[str, str]) -> None:
        self._base = base
        self._hosts = hosts

    @contextmanager
    def place(self, kind: Kind) -> Iterator[FileSlice]:
        """Give out a package in the state before a run."""
        directory = Path(tempfile.mkdtemp(dir=self._base))
        place = FileSlice(directory, kind, self._hosts[kind.state])
        place.package.mkdir()
        for name, content in self.before(kind).items():
            (place.package / name).write_bytes(content)
        (place.package / "appliance.kiwi").write_text(_description(kind.state))
        yield place
        shutil.rmtree(directory)

    @cache  # noqa: B019 - there is one object
    def before(self, kind: Kind) -> Files:
        """Return what is there before a run, apart from the description."""
        if kind.state == "new":
            return {}
        mode = PREVIOUS.get(kind.mode, kind.mode)
        found = dict(self.after(Kind(mode=mode, state="new", cache=kind.cache))[0])
        del found["appliance.kiwi"]
        return found

    @cache  # noqa: B019
    def after(self, kind: Kind) -> tuple[Files, int, float]:
        """Return what a run makes that is left alone, its number of steps, and how many seconds it takes."""
        with self.place(kind) as place:
            reading, writing = os.pipe()
            began = time.monotonic()
            pid = place.run(count=writing)
            os.close(writing)
            status = _wait(pid)
            if status or place.hidden():
                raise Violation(f"left alone: {status}, {place.hidden()}, {place.said.read_text()}")
            return place.finals(), int(os.read(reading, 20)), time.monotonic() - began

    def kill(self, point: Point) -> str:
        """Kill a run at a point; return what was found then.

        :raises Violation: it is not what is promised.
        """
        old, new = self.before(point.kind), self.after(point.kind)[0]
        with self.place(point.kind) as place:
            pid = place.run(step=point.step)
            if point.step is None:
                time.sleep(point.seconds)
                os.kill(pid, signal.SIGKILL)
            _wait(pid)
            found = place.finals()
            for name, content in found.items():
                if content not in (old.get(name), new.get(name)):
                    raise Violation(f"{name} is half, or something else; {point}")
            status = _wait(place.run())
            if status:
                raise Violation(f"the next run fails: {place.said.read_text()!r}; {point}")
            if place.finals() != new:
                raise Violation(f"the next run makes something else: {sorted(place.finals())}; {point}")
            if place.hidden():
                raise Violation(f"the next run leaves {place.hidden()}; {point}")
        return _describe(found, old, new)


def _describe(found: Files, old: Files, new: Files) -> str:
    """Say which state a package was in when its run was killed."""
    has_new_lock = found.get(lockfile.FILE_NAME) == new[lockfile.FILE_NAME]
    others = [name for name in new if name not in (lockfile.FILE_NAME, "appliance.kiwi")]
    changed = [name for name in others if old.get(name) != new[name] and found.get(name) == new[name]]
    missing = [name for name in others if found.get(name) != new[name]]
    gone = [name for name in old if name not in new and name not in found]
    if has_new_lock:
        if missing:
            return "new lock, not all of its archives"
        return (
            "as after" if len(gone) == len([name for name in old if name not in new]) else "as after, with old archives"
        )
    if changed or gone:
        return "old lock (or none), some new archives"
    return "as before"


def points(crashes: Crashes, seed: str, count: int) -> list[Point]:
    """Choose `count` points: as many moments as steps, and of the steps all as far as they go."""
    choice = random.Random(seed)
    kinds = [
        Kind(mode=mode, state=state, cache=where)
        for mode in OPTIONS
        for state in STATES
        for where in CACHES
        if state == "moved" or mode not in PREVIOUS
    ]
    steps = [Point(kind=kind, step=step, seconds=0) for kind in kinds for step in range(crashes.after(kind)[1])]
    choice.shuffle(steps)
    moments = (
        Point(kind=kind, step=None, seconds=choice.uniform(0, crashes.after(kind)[2]))
        for kind in (choice.choice(kinds) for _ in range(count))
    )
    half = steps[: count // 2]
    return [*half, *(moment for moment, _ in zip(moments, range(count - len(half)), strict=False))]


def main(arguments: Sequence[str]) -> int:
    """Kill runs one after the other, and print what was found."""
    parser = argparse.ArgumentParser(description="kill -9 at many points")
    parser.add_argument("--seed", default="1")
    parser.add_argument("points", type=int, nargs="?", default=POINTS, help="default: %(default)s")
    options = parser.parse_args(arguments)
    found: Counter[tuple[str, str]] = Counter()
    failed = 0
    with ExitStack() as stack:
        base = stack.enter_context(tempfile.TemporaryDirectory())
        hosts = {state: stack.enter_context(_registry(state)) for state in STATES}
        crashes = Crashes(Path(base), hosts)
        chosen = points(crashes, options.seed, options.points)
        for point in chosen:
            try:
                found[point.kind.mode, crashes.kill(point)] += 1
            except Violation as violation:
                failed += 1
                print(violation, flush=True)
    for (mode, state), number in sorted(found.items()):
        print(f"{mode}: {number} times {state}")
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
