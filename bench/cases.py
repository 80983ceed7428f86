"""The cases of the table, and what is expected of them."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeAlias

import images
from images import Image
from link import Link, open_link
from measure import measure
from samples import MIB, OURS, SKOPEO, Samples, Target
from workshop import Workshop, sizes

MB = 1000 * 1000

_BASE = (90, 40, 20)
"""Layers of the images, MB: one holds most of it, as in most images there are."""
_OWN = 30
_ROUND_TRIP = 0.040
_RATE = 20 * MB

_Images: TypeAlias = Callable[[], Iterator[tuple[str, Image]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of the table."""

    title: str
    run: Callable[[Workshop, int, Callable[[str], None]], Samples]
    targets: Sequence[Target]


def _suite() -> Iterator[tuple[str, Image]]:
    base = [images.random_layer(f"base{n}", size * MB) for n, size in enumerate(_BASE)]
    for n in range(6):
        yield f"app{n}", images.image(*base, images.random_layer(f"own{n}", _OWN * MB))


def _single() -> Iterator[tuple[str, Image]]:
    sizes_of_layers = (*_BASE, _OWN)
    yield "single", images.image(*(images.random_layer(f"s{n}", size * MB) for n, size in enumerate(sizes_of_layers)))


def _even() -> Iterator[tuple[str, Image]]:
    yield "even", images.image(*(images.random_layer(f"even{n}", 45 * MB) for n in range(4)))


def _large() -> Iterator[tuple[str, Image]]:
    yield "large", images.image(*(images.random_layer(f"large{n}", 500 * MB) for n in range(2)))


def _many() -> Iterator[tuple[str, Image]]:
    base = images.random_layer("small", 100_000)
    for n in range(50):
        yield f"small{n}", images.image(base, *(images.random_layer(f"small{n}.{k}", 50_000) for k in range(2)))


def _link(workshop: Workshop, kind: str) -> AbstractContextManager[Link | None]:
    if kind == "slow":
        return open_link(workshop.host, round_trip=_ROUND_TRIP, rate=_RATE)
    return open_link(workshop.host, round_trip=0, rate=0) if kind == "counted" else nullcontext()


def _fresh(made: _Images, *, kind: str = "", rival: bool = True) -> Callable[..., Samples]:
    """Return a case in which nothing is there yet; with a `rival`, the programs take turns."""

    def run(workshop: Workshop, pairs: int, say: Callable[[str], None]) -> Samples:
        samples = Samples()
        names = workshop.push(made())
        directory = workshop.scratch / "out"
        with _link(workshop, kind) as link:
            host = link.host if link else workshop.host
            for n in range(pairs):
                say(f"{n + 1}/{pairs}")
                workshop.make_package(host, names, directory)
                samples.add(OURS, workshop.prefetch(directory, link))
                samples.archive_bytes = sum(sizes(directory).values())
                if n == 0:
                    workshop.verify(directory)
                shutil.rmtree(directory)
                if rival:
                    samples.add(SKOPEO, workshop.skopeo(host, names, directory, link))
                    _check_rival(samples, sizes(directory))
                    shutil.rmtree(directory)
        return samples

    return run


def _check_rival(samples: Samples, archives: Mapping[str, int]) -> None:
    """Stop the bench if skopeo's archives differ from ours by more than frames and padding."""
    size = sum(archives.values())
    if abs(size - samples.archive_bytes) > 32 * 1024 * len(archives):
        raise RuntimeError(f"skopeo's archives have {size} bytes, ours {samples.archive_bytes}: not the same work")


def _unchanged(workshop: Workshop, pairs: int, say: Callable[[str], None]) -> Samples:
    """Run again on a package that has everything."""
    samples = Samples()
    names = workshop.push(_suite())
    directory = workshop.scratch / "out"
    with open_link(workshop.host, round_trip=0, rate=0) as link:
        workshop.make_package(link.host, names, directory)
        workshop.prefetch(directory)
        before = _identities(directory)
        for n in range(pairs):
            say(f"{n + 1}/{pairs}")
            samples.add(OURS, workshop.prefetch(directory, link))
        samples.seen["files written again"] = len(before.items() ^ _identities(directory).items()) // 2
    samples.seen["requests per reference"] = samples.middle(OURS, "manifest_requests") / len(names)
    shutil.rmtree(directory)
    return samples


def _changed(workshop: Workshop, pairs: int, say: Callable[[str], None]) -> Samples:
    """Run on a package that has everything but one new layer of one image."""
    samples = Samples()
    made = list(_suite())
    names = workshop.push(made)
    base = [images.random_layer(f"base{n}", size * MB) for n, size in enumerate(_BASE)]
    directory = workshop.scratch / "out"
    extra, rewritten = [], []
    with open_link(workshop.host, round_trip=0, rate=0) as link:
        workshop.make_package(link.host, names, directory)
        workshop.prefetch(directory)
        for n in range(pairs):
            say(f"{n + 1}/{pairs}")
            layer = images.random_layer(f"changed{n}", _OWN * MB)
            workshop.push([(names[0], images.image(*base, layer))])
            before = _identities(directory)
            samples.add(OURS, workshop.prefetch(directory, link))
            extra.append(samples.costs[OURS][-1].wire - len(layer.content))
            rewritten.append(len(before.items() ^ _identities(directory).items()) // 2)
        workshop.verify(directory)
        samples.archive_bytes = next(iter(sizes(directory).values()))
    samples.seen["bytes besides the layer"] = max(extra)
    samples.seen["archives written"] = max(rewritten)
    shutil.rmtree(directory)
    return samples


def _identities(directory: Path) -> Mapping[str, int]:
    return {name: (directory / name).stat().st_ino for name in sizes(directory)}


def _start_up(workshop: Workshop, pairs: int, say: Callable[[str], None]) -> Samples:
    """Start the programs only to hear how they are used."""
    samples = Samples()
    imports = f"import sys; sys.path.insert(0, {str(workshop.prefix / 'lib/osc-containers')!r}); "
    imports += "import osc_containers.cli, osc_containers.inject; "
    count = "print(len({'requests', 'urllib3', 'ssl', 'http.client'} & set(sys.modules)))"
    commands: Mapping[str, list[str | Path]] = {
        "--help": [workshop.prefix / "bin/osc-containers", "--help"],
        "inject": [sys.executable, "-I", "-c", imports],
    }
    for n in range(max(pairs, 11)):
        say(f"{n + 1}")
        for name, command in commands.items():
            samples.add(name, measure([command], workshop.environment))
    loaded = subprocess.run([sys.executable, "-I", "-c", imports + count], check=True, capture_output=True, text=True)
    samples.seen["network modules"] = int(loaded.stdout)
    return samples


def _ratio(what: str, limit: float) -> Target:
    return Target(
        what=f"{what}, skopeo's / ours", value=lambda samples: samples.ratio(what), limit=limit, at_least=True
    )


def _seen(what: str, limit: float) -> Target:
    return Target(what=what, value=lambda samples: samples.seen[what], limit=limit)


def _seconds(program: str, limit: float) -> Target:
    return Target(
        what=f"{program}: wall", value=lambda samples: samples.middle(program, "wall"), limit=limit, unit=" s"
    )


def _written(samples: Samples) -> float:
    ours = samples.costs[OURS]
    return median(max(cost.written, cost.dirtied) for cost in ours) / samples.archive_bytes


_PEAK = Target(
    what="peak memory",
    value=lambda samples: max(cost.peak for cost in samples.costs[OURS]) / MIB,
    limit=64,
    unit=" MiB",
)
_WRITTEN = Target(what="bytes written per archive byte", value=_written, limit=1.02)
_NO_BLOBS = Target(what="bytes of blobs", value=lambda samples: samples.middle(OURS, "blob_bytes"), limit=0)

CASES: Mapping[str, Case] = {
    "suite": Case(
        title="6 images of 180 MB that share 150 MB",
        run=_fresh(_suite),
        targets=(_ratio("wall", 8), _ratio("cpu", 8), _PEAK, _WRITTEN),
    ),
    "suite-slow": Case(
        title="the same over the slow link",
        run=_fresh(_suite, kind="slow"),
        targets=(_ratio("wall", 12), _PEAK, _WRITTEN),
    ),
    "single": Case(title="one image of 180 MB in 4 layers", run=_fresh(_single), targets=(_ratio("wall", 3), _WRITTEN)),
    "single-slow": Case(
        title="the same over the slow link", run=_fresh(_single, kind="slow"), targets=(_ratio("wall", 8), _PEAK)
    ),
    "even-slow": Case(
        title="the same, its layers all of 45 MB", run=_fresh(_even, kind="slow"), targets=(_ratio("wall", 8),)
    ),
    "unchanged": Case(
        title="the 6 images again, nothing changed",
        run=_unchanged,
        targets=(_seconds(OURS, 0.5), _NO_BLOBS, _seen("requests per reference", 1), _seen("files written again", 0)),
    ),
    "changed": Case(
        title="the 6 images again, one layer of 30 MB changed",
        run=_changed,
        targets=(_seen("bytes besides the layer", 64 << 10), _seen("archives written", 1), _WRITTEN, _PEAK),
    ),
    "large": Case(title="one image of 1 GB", run=_fresh(_large, rival=False), targets=(_PEAK, _WRITTEN)),
    "many": Case(title="50 images of 200 kB that share 100 kB", run=_fresh(_many), targets=(_ratio("wall", 1), _PEAK)),
    "start-up": Case(
        title="--help, and the imports of the inject service",
        run=_start_up,
        targets=(_seconds("--help", 0.1), _seconds("inject", 0.1), _seen("network modules", 0)),
    ),
}
