"""How commands grow with the number of containers: `python -m tests.support.scale [COUNT...]` (`make scale`).

Processor time is compared and not the time of the clock, so that a busy machine matters little. A command fails if
four times as many containers take much more than four times as long, or if it needs too much memory.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from osc_containers.formats import human
from tests.support import fault_registry, images, packages
from tests.support.fault_registry import FaultRegistry

COUNTS = (1, 10, 100, 1000, 4000)
LIMIT = 1.6
"""How much more than linear the growth between the two largest counts may be: a sort is, and time is measured badly."""
MEMORY, MEMORY_EACH = 64 << 20, 12_000
"""Bytes that a command may need, in all and for each container. The goal is 10,000; prefetch needs 11,000."""
NOISE = 0.3
"""Seconds that two runs of the same work may differ."""
PROGRAM = (
    "import sys; from osc_containers.cli.main import console; sys.argv[0] = 'osc-containers'; "
    "sys.path.insert(0, ''); console()"
)


class Cost(NamedTuple):
    """What one run took: seconds of processor time, and bytes of memory."""

    seconds: float
    memory: int


class Step(NamedTuple):
    """A command, with the exit statuses that are right for it."""

    name: str
    arguments: Callable[[Path], Sequence[str]]
    statuses: tuple[int, ...] = (0,)


STEPS = (
    Step("init --no-prefetch", lambda package: ["init", "--no-prefetch", "--arch=x86_64"]),
    Step("prefetch, first", lambda package: ["prefetch"]),
    Step("prefetch, nothing new", lambda package: ["prefetch"]),
    Step("prefetch --locked", lambda package: ["prefetch", "--locked"]),
    Step("outdated", lambda package: ["outdated"]),
    Step("list", lambda package: ["list"]),
    Step("check", lambda package: ["check"], (0, 1)),
    Step("diff", lambda package: ["diff", str(package.parent / "empty.lock")], (1,)),
    Step("verify", lambda package: ["verify"]),
    Step("inject", lambda package: ["inject", f"--root={package.parent / 'root'}", "--arch=x86_64"]),
)
"""In this order, because some need what others have made."""


def measure(count: int, directory: Path, registry: FaultRegistry) -> dict[str, Cost]:
    """Run every step in a package of `count` containers, and return what each took."""
    image = images.image(images.random_layer("scale", 2000))
    for number in range(count):
        registry.push(image, f"scale/c{number}:1")
    names = [f'name="c{number}" path="scale" tag="1"' for number in range(count)]
    package = packages.write(directory / "package", packages.section(registry.host, *names))
    # `init` has both files to split again.
    (package / "_service").unlink()
    (directory / "root").mkdir()
    (directory / "home").mkdir()
    _write_empty_lock(directory / "empty.lock")
    return {step.name: _run(step, package) for step in STEPS}


def _write_empty_lock(path: Path) -> None:
    from osc_containers.lock import lockfile

    path.write_text(lockfile.dumps(lockfile.EMPTY))


def _run(step: Step, package: Path) -> Cost:
    environment = {**os.environ, "HOME": str(package.parent / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    with (package.parent / "output").open("w+b") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *step.arguments(package)],
            cwd=package,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()[-2000:].decode("utf-8", "replace")
    if process.returncode not in step.statuses:
        raise AssertionError(f"{step.name}: exit status {process.returncode}: {text}")
    return Cost(seconds=usage.ru_utime + usage.ru_stime, memory=usage.ru_maxrss << 10)


def growth(costs: Mapping[int, Cost]) -> float:
    """Return how much more than linear the time grew between the two largest counts; 1 is linear."""
    first, *_, small, large = sorted(costs)
    base = costs[first].seconds
    least = max(costs[small].seconds - base, 0) + NOISE
    return max(costs[large].seconds - base - NOISE, 0) / least / (large / small)


def run(counts: Sequence[int]) -> tuple[list[str], list[str]]:
    """Measure every command at these counts; return the lines of a table, and what is worse than linear."""
    costs: dict[str, dict[int, Cost]] = {step.name: {} for step in STEPS}
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="osc-containers-scale-") as name, fault_registry.serve() as registry:
            for step, cost in measure(count, Path(name), registry).items():
                costs[step][count] = cost
    last = counts[-1]
    lines = [f"{'seconds with containers:':24}" + "".join(f"{count:>9}" for count in counts) + "   growth     memory"]
    failures = []
    for step, by_count in costs.items():
        factor = growth(by_count)
        times = "".join(f"{by_count[count].seconds:9.2f}" for count in counts)
        lines.append(f"{step:24}{times}{factor:9.2f}{human.size(by_count[last].memory):>11}")
        failures += [f"{step}: {problem}" for problem in problems(by_count)]
    return lines, failures


def problems(costs: Mapping[int, Cost]) -> Iterator[str]:
    """Yield what is wrong with the cost of a command."""
    if (factor := growth(costs)) > LIMIT:
        yield f"{factor:.1f} times as much as if it grew linearly"
    last = max(costs)
    if costs[last].memory > MEMORY + last * MEMORY_EACH:
        yield f"{human.size(costs[last].memory)} of memory for {last} containers"


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 1 if a command grows more than linearly."""
    lines, failures = run([int(each) for each in arguments] or COUNTS)
    print(*lines, *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
