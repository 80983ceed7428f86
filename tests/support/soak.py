"""Many runs in parallel while tags move, the registry restarts and the disk is small: `python -m tests.support.soak`.

Each of a few packages is prefetched again and again, and every run may be killed at any moment. Half of the packages
have the layout `blobs`, and sometimes a run switches the layout. Other commands read the packages meanwhile. At the
end, one undisturbed prefetch of each package must leave a package that verifies, nothing else in it, and a cache of
bounded size. `make soak` runs this for 15 minutes.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import fault_registry, images, packages
from tests.support.fault_registry import FaultRegistry, Request

PACKAGES = 4
LAYOUTS = ("archives", "blobs")
TAGS = 3
LAYER = 1 << 20
DISK = 48 << 20
"""Bytes of the disk that packages and cache are on; all packages need about 20 MiB, and parts come in addition."""
OUTAGE = 4.0
CACHE_LIMIT = 2 * TAGS * PACKAGES * 3 * LAYER
PROGRAM = (
    *("env", "--default-signal=INT", "--block-signal=INT", sys.executable, "-I"),
    str(Path(__file__).resolve().parents[2] / "scripts/osc-containers"),
)
"""As `make install` lets it start."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
READERS = ("verify", "check", "list", "outdated", "inject --arch=x86_64 --root=ROOT")
IN_USE = ("is changing it, as prefetch and init do", "in use by ")
DOWN = "connection refused; nothing listens there; tried 3 times"
"""A run that begins while the registry is down does not wait for it."""
EXPECTED = ("no space left", "No space left on device", "containers.lock: missing", DOWN, *IN_USE)
"""What a run may fail with."""
BASE = images.random_layer("soak base", LAYER)


class Soak:
    """Packages in `directory`, a registry, and what went wrong."""

    def __init__(self, directory: Path, registry: FaultRegistry, seed: int) -> None:
        self.directory, self.registry = directory, registry
        self.random = random.Random(seed)
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._version = 0
        for tag in range(TAGS):
            self.move(tag)
        (directory / "home").mkdir()
        names = [f'name="c{tag}" path="soak" tag="1"' for tag in range(TAGS)]
        self.packages = [
            packages.write(directory / f"package{number}", packages.section(registry.host, *names))
            for number in range(PACKAGES)
        ]
        for package in self.packages:
            (package / "_service").write_text((package / "_service").read_text().replace("aarch64", "x86_64"))
        self.layouts = {package: LAYOUTS[number % 2] for number, package in enumerate(self.packages)}
        self.unfinished = set(self.packages)
        """Packages whose last run may have been killed between two files: their lock and archives may not match."""
        self.sources = {path.name for path in self.packages[0].iterdir()}

    def move(self, tag: int) -> None:
        """Let a tag name another image, which has a layer in common with the one before."""
        self._version += 1
        layer = images.random_layer(f"soak {tag} {self._version}", LAYER)
        self.registry.push(images.image(BASE, layer), f"soak/c{tag}:1")

    def start(self, command: str, package: Path) -> "subprocess.Popen[str]":
        """Start a command in a package."""
        return subprocess.Popen(
            [*PROGRAM, *command.split()],
            cwd=package,
            env={**os.environ, "HOME": str(self.directory / "home")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, package: Path) -> None:
        """Prefetch a package, rarely in the other layout, and kill the run in three of five cases."""
        layout = self.layouts[package]
        if self.random.random() < 0.05:
            layout = LAYOUTS[1 - LAYOUTS.index(layout)]
        number = self.random.choice([None, None, *SIGNALS])
        if number is not None:
            self.unfinished.add(package)
        process = self.start(f"prefetch --layout={layout}", package)
        if number is not None:
            time.sleep(self.random.uniform(0, 3))
            process.send_signal(number)
        _, output = process.communicate(timeout=180)
        self.note("prefetch", process.returncode, number, output)
        if process.returncode == 0:
            self.unfinished.discard(package)

    def read(self, package: Path) -> None:
        """Run a command that only reads."""
        command, was_unfinished = self.random.choice(READERS), package in self.unfinished
        with tempfile.TemporaryDirectory(dir=self.directory) as root:
            process = self.start(command.replace("ROOT", root), package)
            _, output = process.communicate(timeout=180)
        name = command.split()[0]
        may_find = name in ("check", "outdated") or was_unfinished or package in self.unfinished
        self.note(name, 0 if may_find and process.returncode == 1 else process.returncode, None, output)

    def note(self, name: str, status: int, number: int | None, output: str) -> None:
        """Count a run, and record what it must not do."""
        killed = number is not None and status in (-number, 128 + number)
        expected = any(text in output for text in EXPECTED)
        with self._lock:
            self.counts[f"{name}: {'ended by a signal' if killed else 'failed' if status else 'succeeded'}"] += 1
            if "Traceback" in output or (status and not killed and not expected):
                self.problems.append(f"{name}: exit status {status}, signal {number}: {output[-1500:]}")

    def disturb(self) -> None:
        """Move a tag, or let the registry be down for a moment."""
        if self.random.random() < 0.8:
            with self._lock:
                self.move(self.random.randrange(TAGS))
        else:
            self.counts["outages"] += 1
            self.registry.refuse(OUTAGE)
            self.stopping.wait(OUTAGE)
        self.stopping.wait(self.random.uniform(0.5, 3))

    def run(self, seconds: float) -> None:
        """Disturb and run everything for so long, then check what is left."""
        tasks: list[Callable[[], None]] = [self.disturb]
        tasks += [lambda package=package: self.write(package) for package in self.packages]  # type: ignore[misc]
        tasks += [lambda: self.read(self.random.choice(self.packages))] * 2

        def repeat(task: Callable[[], None]) -> None:
            while not self.stopping.is_set():
                try:
                    task()
                except Exception as error:
                    self.problems.append(f"{type(error).__name__}: {error}")
                    return

        threads = [threading.Thread(target=repeat, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        self.stopping.wait(seconds)
        self.stopping.set()
        for thread in threads:
            thread.join()
        self._check_cache()
        self.registry.script = lambda request: None
        time.sleep(OUTAGE)
        for package in self.packages:
            self._check_package(package)
        self._check_strays()

    def _check_package(self, package: Path) -> None:
        layout = self.layouts[package]
        for command in (f"prefetch --layout={layout}", "verify"):
            process = self.start(command, package)
            _, output = process.communicate(timeout=180)
            if process.returncode:
                self.problems.append(f"{package.name}: {command} at the end: {output[-1500:]}")
        others = {path.name for path in package.iterdir()} - self.sources
        images = {name for name in others if name.endswith((".ociarchive", ".blob"))}
        # Each image has a layer, a configuration and a manifest of its own, and a base in common with the others.
        expected = TAGS if layout == "archives" else 3 * TAGS + 1
        if len(images) != expected or others - images != {"containers.lock"}:
            self.problems.append(f"{package.name}: left in it: {sorted(others)}")

    def _check_cache(self) -> None:
        size = sum(path.stat().st_blocks * 512 for path in (self.directory / "home").rglob("*") if path.is_file())
        self.counts["bytes in the cache"] = size
        if size > CACHE_LIMIT:
            self.problems.append(f"the cache has {size} bytes, expected at most {CACHE_LIMIT}")

    def _check_strays(self) -> None:
        home = self.directory / "home"
        patterns = (".cache/osc-containers/*.part", ".cache/osc-containers/downloads/*", ".local/state/*/locks/*")
        strays = [path for pattern in patterns for path in home.glob(pattern)]
        if strays:
            self.problems.append(f"left at the end: {', '.join(map(str, strays))}")


def slowly(request: Request) -> fault_registry.Fault | None:
    """Send blobs in pieces, so that runs are killed in the middle of them."""

    def send(exchange: fault_registry.Exchange) -> None:
        answer = exchange.answer()
        exchange.send_bytes(answer.head())
        for at in range(0, len(answer.body), 200_000):
            exchange.send_bytes(answer.body[at : at + 200_000])
            exchange.pause(0.05)

    return send if request.is_blob else None


@contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """Make a small file system in memory, where root may do that; elsewhere the directory is on the disk at hand."""
    with tempfile.TemporaryDirectory(prefix="osc-containers-soak-") as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "soak", name]
        is_mounted = os.geteuid() == 0 and subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
        try:
            yield Path(name)
        finally:
            if is_mounted:
                subprocess.run(["umount", name], check=True)


def run(seconds: float, seed: int) -> Soak:
    """Run everything for so long, and return what happened."""
    with small_disk(DISK) as directory, fault_registry.serve() as registry:
        registry.script = slowly
        soak = Soak(directory, registry, seed)
        soak.run(seconds)
    return soak


def main(arguments: Sequence[str]) -> int:
    """Print what was run, and what went wrong."""
    parser = argparse.ArgumentParser(prog="soak", description="Run prefetches for a long time.")
    parser.add_argument("seconds", type=float, nargs="?", default=900)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    soak = run(options.seconds, options.seed)
    print(*(f"{count:>9} {name}" for name, count in sorted(soak.counts.items())), sep="\n")
    print(*soak.problems, sep="\n")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
