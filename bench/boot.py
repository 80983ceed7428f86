#!/usr/bin/env python3
"""Compare the first boot with that of plain kiwi; `make bench-boot` runs it, as root, bench/README.md explains it.

All boot the same small Debian in systemd-nspawn, with `/var` on a disk of its own. kiwi's image has an archive for
each container and the unit that kiwi itself writes; ours has layouts and load units, or a read-only store.
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import page
from osc_containers.inject import units
from osc_containers.inject.image_file import Symlink, TextFile
from osc_containers.inject.store.stores import StoredContainer
from osc_containers.inject.units import ARCHIVES, UNITS
from tests.support import images, store
from tests.support.e2e.machine import Machine, make_machine, make_root
from tests.support.e2e.packed import Packed, pack
from tests.support.kiwi_peer import environment

_BASE, _OWN = 86 << 20, 24 << 20
"""The sizes of the layer that all images share, and of the one that each has for itself, in bytes."""
_COUNT = 6
_DISK = 3 << 30
_SUITES = {"podman 4.3": "bookworm", "podman 5.4": "trixie"}
_TARGETS = {"podman 4.3": (0.9, 0.45, 0.85), "podman 5.4": (1.0, 0.45, 0.85)}
"""Time, peak and bytes written that ours may have, of kiwi's."""
_STORE_SECONDS, _STORE_PEAK = 1.0, 2_000_000
"""Time until the images of a store are there, and bytes that this adds to the disk: podman's database."""
_TEMPLATE = """
import sys
from kiwi.builder.template.container_import import BuilderTemplateSystemdUnit
files = sys.argv[1:]
commands = [["/usr/bin/podman", "load", "-i", file] for file in files]
print(BuilderTemplateSystemdUnit().get_container_import_template(files, commands, []).substitute(), end="")
"""


class Boot(NamedTuple):
    """One first boot: seconds from the start of the first unit to the end of the last, and bytes on the disk.

    `processor` is the processor time of the whole boot, in seconds. `peak` is the most that the disk held for
    containers, `written` what was written to it.
    """

    seconds: float
    processor: float
    peak: int
    written: int


def main() -> int:
    """Run the boots; the status says whether all targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3, help="boots of each kind (default: 3)")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where the disks are; needs 6 GB")
    parser.add_argument("--update", action="store_true", help="write the table to bench/README.md, too")
    options = parser.parse_args()
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    packed = [pack(f"registry.example.com/team/image{number}:1.0", image) for number, image in enumerate(_images())]
    say(f"archives {_mb(sum(len(each.archive) for each in packed))} MB, layouts {_mb(_unique(packed))} MB")
    say(f"{'':<12}{'':<8}{'s':>8}{'min':>8}{'CPU s':>8}{'peak MB':>10}{'written MB':>12}")
    is_good = True
    for name, suite in _SUITES.items():
        boots: dict[str, list[Boot]] = {"kiwi": [], "ours": [], "store": []}
        for _ in range(options.pairs):
            for kind, install in (("kiwi", _install_kiwi), ("ours", _install_ours), ("store", _install_store)):
                boots[kind].append(_measure(suite, packed, install, options.dir))
        medians = {kind: Boot(*map(statistics.median, zip(*each, strict=True))) for kind, each in boots.items()}
        for kind, median in medians.items():
            least = min(boot.seconds for boot in boots[kind])
            times = f"{median.seconds:>8.1f}{least:>8.1f}{median.processor:>8.1f}"
            say(f"{name:<12}{kind:<8}{times}{_mb(median.peak):>10}{_mb(median.written):>12}")
        ratios = [ours / theirs for ours, theirs in zip(medians["ours"], medians["kiwi"], strict=True)]
        seconds, processor, peak, written = ratios
        say(f"{'':<12}{'ratio':<8}{seconds:>8.2f}{'':>8}{processor:>8.2f}{peak:>10.2f}{written:>12.2f}")
        ratios = [seconds, peak, written]
        is_good &= medians["store"].seconds <= _STORE_SECONDS and medians["store"].peak <= _STORE_PEAK
        is_good &= all(ratio <= limit for ratio, limit in zip(ratios, _TARGETS[name], strict=True))
    limits = [f"{name} {seconds}, {peak} and {written}" for name, (seconds, peak, written) in _TARGETS.items()]
    say(
        f"{'pass' if is_good else 'FAIL'}  at most, of time, peak and bytes written: {'; '.join(limits)}; "
        f"a store at most {_STORE_SECONDS} s and {_mb(_STORE_PEAK)} MB"
    )
    if options.update:
        page.show("boot", lines)
    return 0 if is_good else 1


def _images() -> Iterator[images.Image]:
    base = images.random_layer("base", _BASE)
    for number in range(_COUNT):
        yield images.image(base, images.random_layer(f"own{number}", _OWN))


def _unique(packed: Sequence[Packed]) -> int:
    blobs = {digest: len(content) for each in packed for digest, content in each.blobs.items()}
    return sum(blobs.values())


def _install_kiwi(machine: Machine, packed: Sequence[Packed]) -> None:
    """Write archives and the unit of plain kiwi."""
    paths = [f"{ARCHIVES}/{each.load.id}" for each in packed]
    for each, path in zip(packed, paths, strict=True):
        target = machine.var / path.removeprefix("/var/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(each.archive)
    command = [environment("10.3"), "-c", _TEMPLATE, *paths]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    machine.install(
        TextFile(path="/etc/systemd/system/kiwi_containers.service", text=text, mode=0o644),
        Symlink(path=f"{UNITS}/multi-user.target.wants/kiwi_containers.service", target="../kiwi_containers.service"),
    )


def _install_ours(machine: Machine, packed: Sequence[Packed]) -> None:
    """Write layouts and load units."""
    for each in packed:
        each.write(machine.directory)
    machine.install(*units.render([each.load for each in packed]))


def _install_store(machine: Machine, packed: Sequence[Packed]) -> None:
    """Write a read-only store."""
    contents = {digest: content for each in packed for digest, content in each.blobs.items()}
    containers = [StoredContainer(each.load.reference, each.load.image, each.load.unit) for each in packed]
    with store.Blobs(contents.values(), machine.directory / "blobs") as blobs:
        store.install(machine, {"root": containers}, blobs)


def _measure(
    suite: str, packed: Sequence[Packed], install: Callable[[Machine, Sequence[Packed]], None], directory: Path
) -> Boot:
    with (
        tempfile.TemporaryDirectory(prefix="osc-containers-bench-", dir=directory) as name,
        make_machine(make_root(suite), Path(name, "machine"), var_size=_DISK) as machine,
    ):
        before = _used(machine.var)
        install(machine, packed)
        os.sync()
        disk = _disk_of(machine.directory / "var.img")
        written = _written(disk)
        processor = _processor()
        with _peak(machine.var) as peak:
            report = machine.boot(*store.devices(), limit=600)
        processor = _processor() - processor
        os.sync()
        assert len(report.images) == len(packed), report.journal
        return Boot(_seconds(machine.out / "everything"), processor, max(peak) - before, _written(disk) - written)


def _processor() -> float:
    """Return the processor time of all processes that have ended; those of a machine are among them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _seconds(journal: Path) -> float:
    """Return the time from the start of the first unit of containers to the end of the last."""
    lines = [line for line in journal.read_text(errors="replace").splitlines() if "systemd[1]: " in line]
    times = {
        word: [
            float(match[1])
            for line in lines
            if (match := re.match(rf"\[ *([0-9.]+)\].*{word} .*kiwi_containers", line))
        ]
        for word in ("Starting", "Finished")
    }
    return max(times["Finished"]) - min(times["Starting"])


@contextmanager
def _peak(directory: Path) -> Iterator[list[int]]:
    """Yield a list that gets the used bytes of a file system, as long as the block runs."""
    samples = [_used(directory)]
    end = threading.Event()

    def sample() -> None:
        while not end.is_set():
            samples.append(max(samples.pop(), _used(directory)))
            time.sleep(0.01)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        end.set()
        thread.join()


def _used(directory: Path) -> int:
    info = os.statvfs(directory)
    return (info.f_blocks - info.f_bfree) * info.f_frsize


def _disk_of(image: Path) -> str:
    lines = subprocess.run(["losetup", "-nO", "NAME", "-j", image], check=True, capture_output=True, text=True).stdout
    return Path(lines.split()[0]).name


def _written(disk: str) -> int:
    """Return the bytes that were written to a disk (Documentation/block/stat.rst in Linux)."""
    return int(Path("/sys/class/block", disk, "stat").read_text().split()[6]) * 512


def _mb(size: float) -> int:
    return round(size / 1e6)


if __name__ == "__main__":
    sys.exit(main())
