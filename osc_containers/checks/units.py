"""Checks of the packager's own units and quadlets: whether they find the containers at the first boot.

A unit that runs a container and is not ordered after its load fails at the first boot, and stays failed. Quadlets and
services are looked for in the overlay directories and in `root.tar*`, in the directories from which systemd and podman
read them (systemd.unit(5), podman-systemd.unit(5)).
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from osc_containers.archive.layout import top
from osc_containers.checks import overlay_files
from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity
from osc_containers.checks.unit import Unit
from osc_containers.formats import unit_file
from osc_containers.inject import overlay, units
from osc_containers.kiwi.backend import BACKENDS, OTHER_ENGINES, STORE_BACKEND, engine_of
from osc_containers.kiwi.containers import Container
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference

_SYSTEMD = ("etc/systemd/system", "usr/lib/systemd/system", "usr/local/lib/systemd/system", "lib/systemd/system")
_QUADLETS = ("etc/containers/systemd", "usr/share/containers/systemd", "usr/local/share/containers/systemd")
_QUADLET_SUFFIXES = (".container", ".kube", ".image", ".volume")
# Drop-ins end in .conf, and .kube units name a file of YAML.
_SUFFIXES = (*_QUADLET_SUFFIXES, ".service", ".conf", ".yaml", ".yml")
_FILE_LIMIT = 2000
"""Files that are read in an overlay directory or archive."""
_TEXT_LIMIT = 4 << 20
"""Characters of all these files together."""
_ARCHIVE_COUNT = 10
_ALL = "kiwi_containers.service"


class _Image(NamedTuple):
    """An image that the description puts into an image; `unit` loads it into `target`, and is empty if none does."""

    reference: Reference
    target: str
    unit: str
    digests: tuple[Digest, ...]
    """The digests by which an engine finds it: of the index, if there is one, and of the manifests."""
    is_stored: bool
    """Whether it is in a read-only store, which is there before any unit that waits for nothing."""
    missing_archive: str
    """The path of its archive in kiwi's images, if it is not there because of `engine`."""

    @property
    def tags(self) -> frozenset[str]:
        """The tags by which an engine finds it. The loader gives one to an image pinned by its digest alone."""
        if self.reference.tag or self.reference.digest is None:
            return frozenset(filter(None, [self.reference.tag]))
        digest = self.reference.digest
        return frozenset([f"{digest.algorithm}-{digest.hex[:12]}"])


class _File(NamedTuple):
    """A file that may be a unit, or belong to one; `location` and `path` are those of `Unit`."""

    location: str
    path: PurePosixPath
    text: str


def check(context: Context) -> Iterator[Finding]:
    """Check all units in the overlay directories that name an image of the package."""
    images = _images(context)
    if not images:
        return
    found: dict[PurePosixPath, Unit] = {}
    for name in sorted(context.overlay_names):
        found |= {each.path: each for each in _units(_files_below(context.package.directory / name, name))}
    for archive in sorted(context.package.directory.glob("root.tar*"))[:_ARCHIVE_COUNT]:
        found |= {each.path: each for each in _units(_files_in(archive))}
    by_name = defaultdict(list)
    for image in images:
        by_name[image.reference.name].append(image)
    after = {each.service: each.values("After") for each in found.values()}
    missing = {each.missing_archive: each for each in images if each.missing_archive}
    # One pattern for all paths is much faster than one for each. A path must end where it matches, and not be the
    # beginning of a longer name.
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, missing))})(?![\w.-])")
    for unit in found.values():
        yield from _check(unit, by_name, after)
        if missing:
            yield from _check_paths(unit, missing, pattern)


def _images(context: Context) -> tuple[_Image, ...]:
    images: dict[tuple[Reference, str, str], _Image] = {}
    targets = context.targets
    for description in context.descriptions:
        for arch in context.request.architectures_of(description):
            containers = description.of_architecture(arch)
            paths = overlay.assign_paths(containers)
            for container in containers:
                locked = context.lock and context.lock.image_for(container.reference, arch)
                digests: tuple[Digest, ...] = ()
                if locked:
                    digests = (top(locked.image, arch).digest, locked.image.manifest.digest)
                is_stored = bool(container.matching(context.store_patterns(description)))
                engines = [engine_of(target) for target in targets[container]]
                # A unit loads from a layout, which takes the place of the archive.
                is_moved = container.fetch_only and engines and not any(engine.archives for engine in engines)
                archive = paths[container] if is_moved else ""
                for target, unit in _loads(container, units.load_id(paths[container]), targets, is_stored=is_stored):
                    image = _Image(container.reference, target, unit, digests, is_stored, archive)
                    key = (image.reference, image.target, image.unit)
                    # A unit is in the images for all architectures, so the digests of all of them count.
                    if key in images:
                        image = image._replace(digests=(*images[key].digests, *digests))
                    images[key] = image
    return tuple(images.values())


def _check_paths(unit: Unit, missing: Mapping[str, _Image], pattern: re.Pattern[str]) -> Iterator[Finding]:
    """Find archives that a unit reads and an image does not have; `pattern` matches the paths in `missing`."""
    for each in unit.assignments:
        for path in dict.fromkeys(pattern.findall(each.value)):
            image = missing[path]
            why = f"{path} is not in the image, because {image.reference} is for {image.target} (engine)"
            yield _finding(unit, each.line, why, "a pattern of engine that does not match it")


def _loads(
    container: Container, load_id: str, targets: Mapping[Container, Sequence[str]], *, is_stored: bool
) -> Iterator[tuple[str, str]]:
    """Yield each engine that has a container after the boot, with the unit after which it does, if there is one."""
    if is_stored:
        yield STORE_BACKEND, units.unit_name(STORE_BACKEND, load_id)
        return
    for target in targets[container] or (container.backend,):
        engine = engine_of(target)
        name = engine.loaded_by or target
        yield name, "" if engine.archives or not targets[container] else units.unit_name(name, load_id)


def _check(
    unit: Unit, images: Mapping[str, Sequence[_Image]], others: Mapping[str, frozenset[str]]
) -> Iterator[Finding]:
    """Check the images that a unit names; `others` has what each unit is ordered after."""
    seen = set()
    for text, line in unit.images():
        try:
            reference = Reference.parse(text)
        except ValueError:
            continue
        candidates = images.get(reference.name)
        if not candidates or reference in seen:
            continue
        seen.add(reference)
        # podman runs quadlets in users/ for other users than root (podman-systemd.unit(5)).
        if "users" in unit.path.parts and unit.path.suffix != ".service":
            why = f"it runs for users, but {reference} is loaded for root, and other users do not see it"
            yield _finding(unit, line, why, "move it to /etc/containers/systemd")
            continue
        yield from _check_image(unit, line, reference, candidates, others)


def _check_image(
    unit: Unit,
    line: int,
    reference: Reference,
    candidates: Sequence[_Image],
    others: Mapping[str, frozenset[str]],
) -> Iterator[Finding]:
    target = unit.target
    loaded = [each for each in candidates if each.unit and each.target == target]
    if not loaded:
        yield _not_loaded(unit, line, reference, candidates)
        return
    known = [digest for each in loaded for digest in each.digests]
    if reference.digest:
        matching = [each for each in loaded if reference.digest in each.digests]
        if not matching and known:
            why = f"{target} will not find {reference}: the image that is loaded has another digest"
            yield _finding(unit, line, why, f"{reference.name}@{known[0]}")
        if not matching:
            return
    else:
        matching = [each for each in loaded if reference.tag in each.tags]
        if not matching:
            tags = ", ".join(sorted({tag for each in loaded for tag in each.tags}))
            why = f"{reference} is not in the image, and needs a registry; the image has {reference.name} as {tags}"
            yield _finding(unit, line, why, severity=Severity.INFO)
            return
    if unit.pulls:
        why = f"{unit.pulls} asks a registry for {reference} at every start, and fails without a network"
        fix = f"Image={reference} in the .container unit" if unit.path.suffix == ".image" else f"remove {unit.pulls}"
        yield _finding(unit, line, why, fix)
    if not matching[0].is_stored:
        yield from _check_order(unit, line, reference, matching[0].unit, others)


def _not_loaded(unit: Unit, line: int, reference: Reference, candidates: Sequence[_Image]) -> Finding:
    engine, _, namespace = unit.target.partition(":")
    others = ", ".join(sorted({each.target for each in candidates if each.target not in BACKENDS}))
    why = f"{reference} is in the image, but {engine} does not load it"
    if namespace and any(engine_of(each.target).name == engine for each in candidates):
        why += f" into the namespace {namespace}"
    why += f": it is for {others}" if others else ""
    fix = f'backend="{engine}" and no fetch_only for this container'
    if engine in OTHER_ENGINES:
        fix = f'fetch_only="true" for this container, and <param name="engine">{unit.target}={reference}</param>'
    return _finding(unit, line, why, fix)


def _check_order(
    unit: Unit, line: int, reference: Reference, load: str, others: Mapping[str, frozenset[str]]
) -> Iterator[Finding]:
    if not _is_ordered(unit, {load, _ALL}, others):
        why = f"it may start before {reference} is loaded, and then stays failed at the first boot"
        yield _finding(unit, line, why, f"[Unit] After={load} Requires={load}")
        return
    needs = unit.values("Requires", "BindsTo", "Requisite")
    if load not in needs and _ALL in needs:
        why = f"it does not start if any other container of the image cannot be loaded; require {load} alone"
        yield _finding(unit, line, why, f"Requires={load}", severity=Severity.INFO)
    # To require another unit of the package is enough: that may require the load in its turn.
    elif needs.isdisjoint({load, *others}):
        why = f"it starts even if {reference} could not be loaded, and then needs a registry"
        yield _finding(unit, line, why, f"Requires={load}", severity=Severity.INFO)


def _is_ordered(unit: Unit, loads: Collection[str], others: Mapping[str, frozenset[str]]) -> bool:
    """Tell whether a unit starts after one of these, or after a unit in the package that does."""
    visited = {unit.service}
    pending = [unit.values("After")]
    # A loop instead of recursion: the chain may be as long as there are units.
    while pending:
        after = pending.pop()
        if not after.isdisjoint(loads):
            return True
        names = (after & others.keys()) - visited
        visited |= names
        pending += (others[name] for name in names)
    return False


def _units(files: Iterator[_File]) -> Iterator[Unit]:
    """Yield the units among files of one overlay, with what drop-ins add to them."""
    texts: dict[PurePosixPath, _File] = {}
    drop_ins = defaultdict(list)
    size = 0
    for file in islice(files, _FILE_LIMIT):
        size += len(file.text)
        if size > _TEXT_LIMIT:
            break
        texts[file.path] = file
        if file.path.suffix == ".conf":
            drop_ins[file.path.parent.name].append(file.text)
    size = 0
    for location, path, text in texts.values():
        is_quadlet = path.suffix in _QUADLET_SUFFIXES and str(path).startswith(_QUADLETS)
        is_service = path.suffix == ".service" and str(path.parent) in _SYSTEMD
        if not is_quadlet and not is_service:
            continue
        # A drop-in may be in another directory than its unit (systemd.unit(5)). Its lines have no number there.
        added = drop_ins[f"{path.name}.d"]
        # Units of the same name have the same drop-ins, which therefore count again for each of them.
        size += len(text) + sum(map(len, added))
        if size > _TEXT_LIMIT:
            return
        assignments = list(unit_file.assignments(text))
        for more in added:
            assignments += (each._replace(line=0) for each in unit_file.assignments(more))
        yaml = next((each.value for each in assignments if each.key == "Yaml"), "")
        other = texts.get(path.parent / yaml.lstrip("/") if yaml[:1] != "/" else PurePosixPath(yaml[1:]))
        content = other.text if other else ""
        size += len(content)
        yield Unit(location=location, path=path, assignments=tuple(assignments), yaml=content)


def _is_wanted(path: PurePosixPath) -> bool:
    return path.suffix in _SUFFIXES and ".." not in path.parts


def _files_below(directory: Path, name: str) -> Iterator[_File]:
    """Yield the files below an overlay directory that may be of a unit."""
    for start in (*_SYSTEMD, *_QUADLETS):
        for path in overlay_files.list_below(directory, start):
            if _is_wanted(path) and (text := overlay_files.read(directory, path, unit_file.LIMIT)) is not None:
                yield _File(f"{name}/{path}", path, text)


def _files_in(archive: Path) -> Iterator[_File]:
    """Yield the same for an archive that obs-build unpacks into `root/`."""
    starts = (*_SYSTEMD, *_QUADLETS)
    for path, text in overlay_files.read_archive(archive, starts, _is_wanted, unit_file.LIMIT):
        yield _File(f"{archive.name}:{path}", path, text)


def _finding(unit: Unit, line: int, why: str, fix: str = "", *, severity: Severity = Severity.WARNING) -> Finding:
    return Finding(severity=severity, check="unit", file=unit.location, line=line, why=why, fix=fix)
