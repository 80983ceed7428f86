"""Every fault at every request of a prefetch of three images, and many at once: what `make faults` runs.

    python -m tests.support.sweep [--seed TEXT] [--jobs N] [RUNS]

A run ends in one of two ways: archives and lock complete, verified and byte for byte those of a run without faults; or
a said error, and the package as it was. It ends in time, and a clean run after it completes and fetches no layer again
that had arrived. Anything else is a `Violation`.
"""

import argparse
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from unittest import mock

from osc_containers.errors import Error
from osc_containers.obs.package import Package
from osc_containers.obs.selection import ImageRequest
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.prefetch import prefetch
from osc_containers.registry.retry import Policy
from osc_containers.sources.interface import FetchContext
from osc_containers.sources.transports import Sources
from tests.support import fault_registry, faults, images
from tests.support.fault_registry import Exchange, Fault, FaultRegistry, Request, Script
from tests.support.prefetch_run import LAYOUTS

HASTY = Policy(connect_timeout=2, read_timeout=0.15, deadline=2, attempts=4, first_delay=0.01, longest_delay=0.03)
CLEAN = HASTY._replace(read_timeout=30, deadline=60)
RUNS = 3000
LONGEST = 10.0
"""Seconds that a run may take: for each of the two steps, pinning and fetching, the deadline, and as much for a busy
machine. Without limits a stall alone takes 20."""

HOST = "registry.example"
_CONFIGURATION = '[[registry]]\nprefix = "{host}"\nlocation = "{place}"\ninsecure = true\n'
_BLOCK = 2 * 4096
"""Bytes at the edges of what was written that do not count as written (see `parts`)."""

STATES = ("new", "moved")
"""A package without a lock; one that was complete before a tag moved."""
SERVICES = ("open", "tokens", "storage")
"""A registry that asks for nothing; one that wants tokens; one that keeps its blobs elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run: `fault` (a name, or a rate of any) at the request `key`, once or always.

    The run writes the layout `layout`; the package has the layout `old_layout`.
    """

    state: str
    layout: str
    old_layout: str
    service: str
    fault: str
    key: str
    is_once: bool
    connections: int
    in_place: bool


class Violation(AssertionError):
    """A run ended in a third way."""


def _image(name: str) -> images.Image:
    base = images.random_layer("base", 20_000)
    parts = [images.image(base, images.random_layer(name, 30_000), platform=p) for p in (images.AMD64, images.ARM64)]
    return images.index(*parts)


@cache
def contents(version: str) -> Mapping[str, images.Image]:
    """Return the images of the registry by `PATH:TAG`; `version` says which `app` it has."""
    web = images.image(images.random_layer("base", 20_000), images.random_layer("web", 15_000), docker=True)
    db = images.image(images.random_layer("db", 9_000), images.layer({"etc/db": b"db"}))
    return {"team/app:1.0": _image(version), "team/web:2": web, "db:latest": db}


WANTED = tuple(
    ImageRequest(
        reference=Reference.parse(f"{HOST}/{name}"),
        location=f"docker://{HOST}/{name}",
        architectures=("x86_64", "aarch64") if name.startswith("team/app") else ("x86_64",),
        where=f"appliance.kiwi:{line}",
    )
    for line, name in enumerate(contents("one"), start=3)
)
_VERSIONS = {"new": "one", "moved": "two"}

Files = dict[str, tuple[int, bytes]]


def snapshot(directory: Path) -> Files:
    """Return mode and content of every file."""
    return {path.name: (path.stat().st_mode, path.read_bytes()) for path in sorted(directory.iterdir())}


@contextmanager
def _registry(trial: Trial, version: str) -> Iterator[FaultRegistry]:
    with fault_registry.serve() as registry:
        for name, image in contents(version).items():
            registry.push(image, name)
        registry.auth = "bearer" if trial.service == "tokens" else None
        if trial.service == "storage":
            registry.blob_location = f"http://{registry.host}/storage/"
        yield registry


def _run(registry: FaultRegistry, directory: Path, policy: Policy, trial: Trial) -> None:
    """Prefetch as osc runs it: into a directory of its own, and then moved; or in place."""
    package = directory / "package"
    configuration = directory / "registries.conf"
    configuration.write_text(_CONFIGURATION.format(host=HOST, place=registry.host))
    environ = {"CONTAINERS_REGISTRIES_CONF": str(configuration), "HOME": str(directory)}
    outdir = package if trial.in_place else directory / "outdir"
    outdir.mkdir(exist_ok=True)
    with (
        mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(directory / "cache")}),
        Sources(package, policy=policy, environ=environ) as sources,
    ):
        network = FetchContext(open_source=sources.open, connections=trial.connections)
        prefetch(Package(package), WANTED, network, outdir=outdir, locked=False, files_of=LAYOUTS[trial.layout])
    if not trial.in_place:
        for path in outdir.iterdir():
            path.rename(package / path.name)


def _prepare(directory: Path, state: str, layout: str) -> Path:
    """Make the package of a state, with files of its owner."""
    package = directory / "package"
    package.mkdir()
    for name, (mode, content) in (expected("one", layout) if state == "moved" else {}).items():
        (package / name).write_bytes(content)
        (package / name).chmod(mode)
    (package / "appliance.kiwi").write_text("<image/>\n")
    return package


@cache
def expected(version: str, layout: str) -> Files:
    """Return what a run without faults makes of a registry."""
    return _without_faults(version, "open", layout=layout)[0]


@cache
def requests(state: str, service: str) -> tuple[str, ...]:
    """Return the requests that a run without faults makes, each once."""
    return _without_faults(_VERSIONS[state], service, state)[1]


def _without_faults(
    version: str, service: str, state: str = "new", layout: str = "archives"
) -> tuple[Files, tuple[str, ...]]:
    trial = Trial(
        state=state,
        layout=layout,
        old_layout=layout,
        service=service,
        fault="",
        key="",
        is_once=True,
        connections=1,
        in_place=True,
    )
    with tempfile.TemporaryDirectory() as name, _registry(trial, version) as registry:
        package = _prepare(Path(name), state, layout)
        _run(registry, Path(name), CLEAN, trial)
        found = snapshot(package)
        del found["appliance.kiwi"]
        return found, tuple(sorted({*map(_key, registry.requests)}))


def _key(request: Request) -> str:
    return f"{request.method} {request.target}"


class _Record:
    """Which layers a registry has sent whole and right."""

    def __init__(self, trial: Trial) -> None:
        self._script = _script(trial)
        self._service = trial.service
        self.sent: set[str] = set()

    def __call__(self, request: Request) -> Fault | None:
        fault = self._script(request)
        if not fault and "range" not in request.headers and _is_sent(request, self._service):
            self.sent.add(request.target.rpartition("/")[2])
        return fault


def _script(trial: Trial) -> Script:
    if trial.fault == "any":
        return faults.seeded(trial.key, 0.25)
    fault = _move_tag if trial.fault == "move_tag" else faults.FAULTS[trial.fault]
    return faults.on(fault, lambda request: _key(request) == trial.key, 1 if trial.is_once else 1 << 30)


def _move_tag(exchange: Exchange) -> None:
    faults.move_tag(contents("three")["team/app:1.0"], "team/app:1.0")(exchange)


def attempt(trial: Trial, directory: Path) -> tuple[str, float]:
    """Run a trial in an empty directory; return how it ended, and after how many seconds.

    :raises Violation: in a way that is not promised.
    """
    with _registry(trial, _VERSIONS[trial.state]) as registry:
        package = _prepare(directory, trial.state, trial.old_layout)
        before = snapshot(package)
        registry.script = record = _Record(trial)
        began = time.monotonic()
        error = _error_of(lambda: _run(registry, directory, HASTY, trial))
        took = time.monotonic() - began
        _expect(took < LONGEST, f"took {took:.1f} s", trial)
        made = [_with(before, expected(version, trial.layout)) for version in (_VERSIONS[trial.state], "three")]
        if error is None:
            _expect(snapshot(package) in made[: 1 + (trial.fault == "move_tag")], "completed to something else", trial)
        else:
            _expect(snapshot(package) == before, f"the package has changed: {sorted(snapshot(package))}", trial)
            outdir = directory / "outdir"
            _expect(not outdir.exists() or not any(outdir.iterdir()), "something is left in the outdir", trial)
        registry.script = lambda request: None
        registry.requests.clear()
        _run(registry, directory, CLEAN, trial)
        _expect(snapshot(package) in made, "the next run completed to something else", trial)
        _check_fetched(registry, record.sent, trial, error)
    return _kind(error), took


def _with(before: Files, made: Files) -> Files:
    return {"appliance.kiwi": before["appliance.kiwi"], **made}


def _error_of(run: Callable[[], None]) -> Error | OSError | None:
    try:
        run()
    except Error as error:
        for problem in error.problems:
            if not problem.isprintable() or len(problem) > 4000:
                raise Violation(f"unfit to be shown: {problem[:300]!r}") from error
        return error
    except OSError as error:
        if error.filename is None:
            raise Violation(f"an error that names no file: {error}") from error
        return error
    return None


def _kind(error: Error | OSError | None) -> str:
    return type(error).__name__ if error else "complete"


def _check_fetched(registry: FaultRegistry, sent: set[str], trial: Trial, error: object) -> None:
    """Compare what the next run fetched with what it had to."""
    fetched: Counter[str] = Counter()
    for request in registry.requests:
        if _is_sent(request, trial.service):
            fetched[request.target.rpartition("/")[2]] += len(registry.answer(request).body)
    if error is None and trial.fault != "move_tag":
        _expect(not fetched, f"nothing was missing, but the next run fetched {dict(fetched)}", trial)
    for digest, count in fetched.items():
        _expect(count <= len(registry.blobs[digest]), f"{digest} was fetched twice by the next run", trial)
        # With several connections the first error stops others in the middle of what was sent.
        if digest in sent and trial.connections == 1 and digest not in _configs():
            _expect(count <= _BLOCK, f"{count} bytes of {digest} were fetched again", trial)


def _is_sent(request: Request, service: str) -> bool:
    """Tell whether the answer to a request is a blob, and not that it is elsewhere."""
    return request.is_blob and request.path.startswith("/storage/") == (service == "storage")


@cache
def _configs() -> frozenset[str]:
    """Return the blobs that are fetched to pin an image, and are not kept."""
    made = (image for version in ("one", "two", "three") for image in contents(version).values())
    parts = (part for image in made for part in image.manifests())
    return frozenset(str(Digest.of(part.blobs[0])) for part in parts if part.blobs)


def _expect(is_so: bool, problem: str, trial: Trial) -> None:
    if not is_so:
        raise Violation(f"{problem}; {trial}")


def trials(seed: str, count: int) -> list[Trial]:
    """Choose `count` trials: every fault at every request of every kind of run as far as they go, then many at once."""
    choice = random.Random(seed)
    places = [(state, service, key) for state in STATES for service in SERVICES for key in requests(state, service)]
    every = [
        Trial(
            state=state,
            layout=choice.choice(tuple(LAYOUTS)),
            old_layout=choice.choice(tuple(LAYOUTS)),
            service=service,
            fault=fault,
            key=key,
            is_once=choice.random() < 0.5,
            connections=choice.choice((1, 4)),
            in_place=choice.random() < 0.5,
        )
        for (state, service, key), fault in itertools.product(places, [*faults.FAULTS, "move_tag"])
    ]
    choice.shuffle(every)
    many = max(count // 10, count - len(every))
    more = (replace(choice.choice(every), fault="any", key=f"{seed}/{number}", is_once=False) for number in range(many))
    return [*every[: count - many], *more]


def _attempt_apart(trial: Trial, base: str) -> tuple[str, str, float]:
    directory = Path(tempfile.mkdtemp(dir=base))
    try:
        return trial.fault, *attempt(trial, directory)
    except Violation as violation:
        return trial.fault, f"VIOLATION: {violation}", 0
    except Exception as error:  # a traceback of the program is what this looks for
        return trial.fault, f"VIOLATION: {type(error).__name__}: {error}; {trial}", 0
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main(arguments: Sequence[str]) -> int:
    """Run trials in several processes, and print what came out."""
    parser = argparse.ArgumentParser(description="every fault at every request")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("runs", type=int, nargs="?", default=RUNS, help="default: %(default)s")
    options = parser.parse_args(arguments)
    chosen = trials(options.seed, options.runs)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as base, ProcessPoolExecutor(options.jobs) as pool:
        for _, outcome, took in pool.map(partial(_attempt_apart, base=base), chosen, chunksize=4):
            slowest = max(slowest, took)
            outcomes[outcome] += 1
            if outcome.startswith("VIOLATION"):
                print(outcome, flush=True)
    bad = sum(count for outcome, count in outcomes.items() if outcome.startswith("VIOLATION"))
    good = ", ".join(f"{n} {kind}" for kind, n in sorted(outcomes.items()) if not kind.startswith("VIOLATION"))
    print(f"{len(chosen)} runs, seed {options.seed}, {time.monotonic() - began:.0f} s: {good}; slowest {slowest:.1f} s")
    print(f"{len(chosen) - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
