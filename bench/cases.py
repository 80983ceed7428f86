"""The cases of the table, and what is expected of them."""

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TypeAlias

from bench import scenes
from bench.link import Link
from bench.machine import PYTHON
from bench.measure import measure, watch
from bench.samples import EMPTY, LEAST, MIB, OURS, SKOPEO, Samples, Target
from bench.workshop import Workshop, sizes
from tests.support import images

_SETTLED = 2.5
"""Seconds after which a file may be remembered as verified."""

_Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of the table: `run` costs it a number of times, with `rival` against skopeo in turns."""

    title: str
    images: scenes.Images
    link: Callable[[str], AbstractContextManager[Link | None]] = scenes.direct
    link_rate: float = 0
    """Bytes a second that our connections can carry together, where the link limits them."""
    run: "Callable[[Case, Workshop, int, _Say], Samples]"
    rival: bool = False
    layout: str = "archives"
    targets: Sequence[Target]


def _fresh(case: Case, workshop: Workshop, pairs: int, say: _Say) -> Samples:
    """Run where nothing is there yet."""
    samples = Samples()
    names, empty = workshop.push(case.images()), workshop.push(scenes.empty())
    directory = workshop.scratch / "out"
    with case.link(workshop.host) as link:
        host = link.host if link else workshop.host
        for n in range(pairs):
            say(f"{n + 1}/{pairs}")
            workshop.make_package(host, names, directory)
            samples.add(OURS, workshop.prefetch(directory, link, case.layout))
            samples.archive_bytes = sum(sizes(directory).values())
            if n == 0:
                workshop.verify(directory)
            shutil.rmtree(directory)
            if case.rival:
                samples.add(SKOPEO, workshop.skopeo(host, names, directory, link))
                if case.layout == "archives":
                    _check_rival(samples, sizes(directory))
                shutil.rmtree(directory)
                workshop.make_package(host, empty, directory)
                samples.add(EMPTY, workshop.prefetch(directory, link, case.layout))
                shutil.rmtree(directory)
    return samples


def _check_rival(samples: Samples, archives: Mapping[str, int]) -> None:
    """Stop the bench if skopeo's archives differ from ours by more than frames and padding."""
    size = sum(archives.values())
    if abs(size - samples.archive_bytes) > 32 * 1024 * len(archives):
        raise RuntimeError(f"skopeo's archives have {size} bytes, ours {samples.archive_bytes}: not the same work")


def _unchanged(case: Case, workshop: Workshop, pairs: int, say: _Say) -> Samples:
    """Run again on a package that has everything, and has had it for some seconds: the first run reads all of it."""
    samples = Samples()
    names = workshop.push(case.images())
    directory = workshop.scratch / "out"
    with case.link(workshop.host) as link:
        workshop.make_package(link.host if link else workshop.host, names, directory)
        workshop.prefetch(directory, layout=case.layout)
        time.sleep(_SETTLED)
        before = _identities(directory)
        for n in range(pairs):
            say(f"{n + 1}/{pairs}")
            samples.add(OURS, workshop.prefetch(directory, link, case.layout))
            samples.add(LEAST, workshop.least(workshop.host, names))
        samples.seen["files written again"] = _count_new(before, directory)
    samples.seen["requests per reference"] = samples.middle(OURS, "manifest_requests") / len(names)
    return samples


def _changed(case: Case, workshop: Workshop, pairs: int, say: _Say) -> Samples:
    """Run on a package that has everything but one new layer of one image."""
    samples = Samples()
    names = workshop.push(case.images())
    directory = workshop.scratch / "out"
    besides, written = [], []
    with case.link(workshop.host) as link:
        workshop.make_package(link.host if link else workshop.host, names, directory)
        workshop.prefetch(directory, layout=case.layout)
        for n in range(pairs):
            say(f"{n + 1}/{pairs}")
            layer = images.random_layer(f"changed{n}", scenes.OWN * scenes.MB)
            workshop.push([(names[0], images.image(*scenes.base_layers(), layer))])
            before = _identities(directory)
            samples.add(OURS, workshop.prefetch(directory, link, case.layout))
            besides.append(samples.costs[OURS][-1].wire - len(layer.content))
            written.append(_count_new(before, directory))
    workshop.verify(directory)
    samples.archive_bytes = next(iter(sizes(directory).values()))
    samples.seen["bytes in addition to the layer"] = max(besides)
    samples.seen["files written"] = max(written)
    samples.seen["uploaded in addition to the layer"] = _uploads(before, directory) - len(layer.content)
    return samples


def _uploads(before: Mapping[str, int], directory: Path) -> int:
    """Return the bytes of files that are new to OBS, which has each content of each name once."""
    new = {name for name, inode in _identities(directory).items() if before.get(name) != inode}
    return sum(size for name, size in sizes(directory).items() if name in new)


def _year(case: Case, workshop: Workshop, pairs: int, say: _Say) -> Samples:
    """Update a package of each layout 20 times, and add up what OBS gets and keeps."""
    samples = Samples()
    uploaded = dict.fromkeys(("archives", "blobs"), 0)
    for number, made in enumerate(scenes.year()):
        say(f"{number + 1}/{scenes.UPDATES + 1}")
        names = workshop.push(made)
        for layout in uploaded:
            directory = workshop.scratch / layout
            if number == 0:
                workshop.make_package(workshop.host, names, directory)
            before = _identities(directory)
            samples.add(layout, workshop.prefetch(directory, layout=layout))
            uploaded[layout] += _uploads(before, directory)
    for layout, size in uploaded.items():
        samples.seen[f"MB of {layout}"] = size / 1e6
    samples.seen["% of archives' bytes"] = 100 * uploaded["blobs"] / uploaded["archives"]
    return samples


def _identities(directory: Path) -> Mapping[str, int]:
    return {name: (directory / name).stat().st_ino for name in sizes(directory)}


def _count_new(before: Mapping[str, int], directory: Path) -> int:
    return sum(before.get(name) != inode for name, inode in _identities(directory).items())


def _store(case: Case, workshop: Workshop, pairs: int, say: _Say) -> Samples:
    """Put a package's image into a read-only store."""
    samples = Samples()
    package, root, temporary = (workshop.scratch / name for name in ("out", "root", "home"))
    workshop.make_package(workshop.host, workshop.push(case.images()), package)
    workshop.prefetch(package)
    memory, disk = [], []
    for n in range(pairs):
        say(f"{n + 1}/{pairs}")
        root.mkdir()
        with watch(root, temporary) as peaks:
            samples.add(OURS, workshop.store(package, root))
        memory.append(peaks.memory)
        disk.append(peaks.disk)
        shutil.rmtree(root)
    samples.seen["seconds for a GB"] = samples.middle(OURS, "wall") / (scenes.UNPACKED / 1e9)
    samples.seen["MiB of all processes together"] = max(memory) / MIB
    samples.seen["disk / unpacked bytes"] = max(disk) / scenes.UNPACKED
    return samples


def _start_up(case: Case, workshop: Workshop, pairs: int, say: _Say) -> Samples:
    """Start the programs only to hear how they are used."""
    samples = Samples()
    imports = f"import sys; sys.path.insert(0, {str(workshop.installed.home)!r}); import osc_containers.cli.services; "
    count = "print(len({'requests', 'urllib3', 'ssl', 'http.client'} & set(sys.modules)))"
    inject: list[str | Path] = [PYTHON, "-I", "-c", imports]
    commands: Mapping[str, list[str | Path]] = {"--help": [workshop.installed.program, "--help"], "inject": inject}
    for n in range(max(pairs, 11)):
        say(f"{n + 1}")
        for name, command in commands.items():
            samples.add(name, measure([command], workshop.environment))
    loaded = subprocess.run([*inject[:-1], imports + count], check=True, capture_output=True, text=True)
    samples.seen["network modules"] = int(loaded.stdout)
    return samples


def _ratio(what: str, limit: float) -> Target:
    return Target(
        what=f"{what}, skopeo's / ours",
        value=lambda samples: samples.ratio(what),
        limit=limit,
        at_least=True,
        ratio_of=what,
    )


def _seen(what: str, limit: float) -> Target:
    return Target(what=what, value=lambda samples: samples.seen[what], limit=limit)


def _seconds(program: str, limit: float, least: str = "") -> Target:
    return Target(
        what=f"{program}: wall",
        value=lambda samples: samples.middle(program, "wall"),
        limit=limit,
        unit=" s",
        best=(lambda samples: samples.middle(least, "wall")) if least else None,
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
_WRITTEN = Target(what="bytes written / archive byte", value=_written, limit=1.02)
_NO_BLOBS = Target(what="bytes of blobs", value=lambda samples: samples.middle(OURS, "blob_bytes"), limit=0)

_UPLOADED = _seen("uploaded in addition to the layer", 64 << 10)

_SUITE = Case(
    title="6 images of 180 MB that share 150 MB",
    images=scenes.suite,
    run=_fresh,
    rival=True,
    targets=(_ratio("wall", 10), _ratio("cpu", 10), _PEAK, _WRITTEN),
)
_SINGLE = Case(
    title="one image of 180 MB in 4 layers (90, 40, 30 and 20)",
    images=scenes.single,
    run=_fresh,
    rival=True,
    targets=(_ratio("wall", 3), _PEAK, _WRITTEN),
)
_UNCHANGED = Case(
    title="the 6 images again, nothing changed",
    images=scenes.suite,
    link=scenes.counted,
    run=_unchanged,
    targets=(
        _seconds(OURS, 0.2, LEAST),
        _NO_BLOBS,
        _seen("requests per reference", 1),
        _seen("files written again", 0),
    ),
)
_CHANGED = Case(
    title="the 6 images again, one layer of 30 MB changed",
    images=scenes.suite,
    link=scenes.counted,
    run=_changed,
    targets=(_seen("bytes in addition to the layer", 64 << 10), _seen("files written", 1), _WRITTEN, _PEAK),
)


def _as_blobs(case: Case, *targets: Target) -> Case:
    """Return the same case with the other layout, and with these targets, if there are any."""
    return replace(case, title="the same, as blobs", layout="blobs", targets=targets or case.targets)


def _over_slow_link(case: Case, wall: float, title: str = "the same over the slow link") -> Case:
    """Return the same case over the slow link; `wall` is the target for the elapsed time, of skopeo's."""
    rate = scenes.RATE * scenes.CONNECTIONS
    targets = (_ratio("wall", wall), _PEAK, _WRITTEN)
    return replace(case, title=title, link=scenes.slow, link_rate=rate, targets=targets)


CASES: Mapping[str, Case] = {
    "suite": _SUITE,
    "suite-blobs": _as_blobs(_SUITE, _ratio("wall", 12), _ratio("cpu", 11), _PEAK, _WRITTEN),
    "suite-slow": _over_slow_link(_SUITE, 38),
    "suite-slow-blobs": _as_blobs(_over_slow_link(_SUITE, 38)),
    "single": _SINGLE,
    "single-blobs": _as_blobs(_SINGLE, _ratio("wall", 3.3), _PEAK, _WRITTEN),
    "single-slow": _over_slow_link(_SINGLE, 10),
    "single-slow-blobs": _as_blobs(_over_slow_link(_SINGLE, 10)),
    "even-slow": _over_slow_link(replace(_SINGLE, images=scenes.even), 8, title="the same, in 4 layers of 45 MB"),
    "unchanged": _UNCHANGED,
    "unchanged-blobs": _as_blobs(_UNCHANGED),
    "changed": _CHANGED,
    "changed-blobs": _as_blobs(
        _CHANGED, _seen("bytes in addition to the layer", 64 << 10), _seen("files written", 3), _UPLOADED, _PEAK
    ),
    "year": Case(
        title="20 updates of 6 images of 18 MB, 6 of them with a new base: what OBS gets and keeps",
        images=scenes.nothing,
        run=_year,
        targets=(_seen("% of archives' bytes", 20),),
    ),
    "large": Case(title="one image of 1 GB", images=scenes.large, run=_fresh, targets=(_PEAK, _WRITTEN)),
    "many": Case(
        title="50 images of 200 kB that share 100 kB", images=scenes.many, run=_fresh, rival=True, targets=(_PEAK,)
    ),
    "store": Case(
        title="one image of 1 GB in 4 gzip layers, put into a read-only store",
        images=scenes.unpacked,
        run=_store,
        targets=(
            _seen("seconds for a GB", 120),
            _seen("MiB of all processes together", 256),
            _seen("disk / unpacked bytes", 2.2),
        ),
    ),
    "start-up": Case(
        title="--help, and the imports of the inject service",
        images=scenes.nothing,
        run=_start_up,
        targets=(_seconds("--help", 0.1), _seconds("inject", 0.1), _seen("network modules", 0)),
    ),
}
