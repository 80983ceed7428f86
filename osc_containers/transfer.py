"""From pinned images to archives: every byte once over the network, once onto the disk.

A blob is written straight to its place in the first archive that needs it and hashed on the way; other archives get it
from there, in the kernel where it can. An archive gets its name only when all of it is verified.
"""

import hashlib
import logging
import os
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from osc_containers import archive, files
from osc_containers.archive import Image, Layout
from osc_containers.digest import Digest
from osc_containers.errors import VerificationError
from osc_containers.lock import ArchiveFile
from osc_containers.oci import Descriptor
from osc_containers.reference import Reference
from osc_containers.sources import ImageSource

logger = logging.getLogger(__name__)

_AT_ONCE = 4
_ATTEMPTS = 3
"""How often a blob that arrives damaged is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One archive to be made; `small` has the bytes of blobs that are already in memory."""

    name: str
    reference: Reference
    origin: str
    image: Image
    small: Mapping[Digest, bytes]
    expected: ArchiveFile | None
    """What it must come out as, where that is known."""

    @property
    def layout(self) -> Layout:
        """Where everything goes."""
        return archive.lay_out(self.image, self.reference)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a blob begins in an open file."""

    descriptor: int
    offset: int


def held(archives: Iterable[Path], stack: ExitStack) -> Mapping[Digest, Place]:
    """Find the blobs that archives have, by the names of their members; the bytes are not verified."""
    places: dict[Digest, Place] = {}
    for path in archives:
        file = stack.enter_context(path.open("rb"))
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = [(member.name, member.offset_data) for member in tar if member.isreg()]
        except (tarfile.TarError, OSError, ValueError):
            continue  # what cannot be read holds nothing for us
        for name, offset in members:
            parts = name.split("/")
            if len(parts) == 3 and parts[0] == "blobs":
                try:
                    places.setdefault(Digest.parse(":".join(parts[1:])), Place(file.fileno(), offset))
                except ValueError:
                    continue
    return places


def transfer(
    orders: Sequence[Order], open_source: Callable[[str], ImageSource], archives: Iterable[Path], outdir: Path
) -> tuple[ArchiveFile, ...]:
    """Make the archives of `orders` in `outdir`; blobs that are in `archives` are taken from there.

    All of them appear under their names, or, where anything fails, none.

    :raises RegistryError: a blob could not be had.
    :raises VerificationError: a blob is not what its digest says.
    """
    layouts = {order.name: order.layout for order in orders}
    _check_space(outdir, sum(layout.size for layout in layouts.values()))
    with ExitStack() as new, ExitStack() as old:
        targets = {order.name: new.enter_context(files.new_file(outdir / order.name)) for order in orders}
        here = held(archives, old)
        for name, layout in layouts.items():
            os.ftruncate(targets[name], layout.size)
            for offset, content in layout.frame():
                files.write_all(targets[name], content, offset)
        jobs = _jobs(orders, layouts, targets)
        _run_all([lambda job=job: _get(job, open_source, here) for job in jobs])  # type: ignore[misc]
        sums = _hash_all({name: (targets[name], layout) for name, layout in layouts.items()})
        made = tuple(ArchiveFile(name=name, size=layouts[name].size, sha256=sums[name]) for name in layouts)
        _compare(orders, made)
    return made


def _compare(orders: Sequence[Order], made: Sequence[ArchiveFile]) -> None:
    problems = [
        f"{file.name}: got sha256 {file.sha256} of {file.size} bytes from what is pinned, but the lock says "
        f"{order.expected.sha256} of {order.expected.size}; run the prefetch without 'locked'"
        for order, file in zip(orders, made, strict=True)
        if order.expected and order.expected != file
    ]
    if problems:
        raise VerificationError(*problems)


def _check_space(outdir: Path, needed: int) -> None:
    """Say a lack of space before anything is fetched; the margin that root may use is not ours."""
    info = os.statvfs(outdir)
    free = info.f_bavail * info.f_frsize
    if needed > free:
        raise OSError(28, f"No space left: the archives need {needed} bytes, {free} are free", str(outdir))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A blob, everywhere it goes, and whom to ask for it."""

    blob: Descriptor
    order: Order
    places: tuple[Place, ...]

    @property
    def where(self) -> str:
        """What begins a message about it."""
        return f"{self.order.reference}: blob {self.blob.digest}"


def _jobs(orders: Sequence[Order], layouts: Mapping[str, Layout], targets: Mapping[str, int]) -> list[_Job]:
    """Collect the distinct blobs, the largest first so that the last to end is a small one."""
    places: dict[Digest, list[Place]] = {}
    jobs: dict[Digest, tuple[Descriptor, Order]] = {}
    for order in orders:
        blobs = {blob.digest: blob for blob in order.image.blobs}
        for member in layouts[order.name].blobs():
            places.setdefault(member.digest, []).append(Place(targets[order.name], member.offset))
            jobs.setdefault(member.digest, (blobs[member.digest], order))
    found = [_Job(blob=blob, order=order, places=tuple(places[digest])) for digest, (blob, order) in jobs.items()]
    return sorted(found, key=lambda job: (-job.blob.size, job.blob.digest))


def _run_all(tasks: Sequence[Callable[[], None]]) -> None:
    """Run tasks a few at a time; the first failure keeps those that have not begun from beginning."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures: list[Future[None]] = [pool.submit(task) for task in tasks]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
    for future in futures:
        if not future.cancelled():
            future.result()


def _get(job: _Job, open_source: Callable[[str], ImageSource], here: Mapping[Digest, Place]) -> None:
    first, *others = job.places
    small = job.order.small.get(job.blob.digest)
    old = here.get(job.blob.digest)
    if small is not None:
        files.write_all(first.descriptor, small, first.offset)
    elif old is None or not _take(old, job.blob, first):
        _fetch(job, open_source(job.order.origin), first)
    for other in others:
        files.copy_range(first.descriptor, first.offset, other.descriptor, other.offset, job.blob.size)


def _take(old: Place, blob: Descriptor, place: Place) -> bool:
    """Copy a blob that is already here; False where it is not what it should be."""
    try:
        files.copy_range(old.descriptor, old.offset, place.descriptor, place.offset, blob.size)
    except OSError:
        return False
    hasher = blob.digest.hasher()
    _update(hasher, place.descriptor, place.offset, place.offset + blob.size)
    return hasher.hexdigest() == blob.digest.hex


def _fetch(job: _Job, source: ImageSource, place: Place) -> None:
    """Bring a blob from its source to its place and verify it."""
    if job.blob.digest == job.order.image.manifest.digest:
        manifest = source.manifest(job.order.reference, job.blob.digest)
        files.write_all(place.descriptor, manifest.raw, place.offset)
        return
    for _ in range(_ATTEMPTS):
        got = _receive(job, source, place)
        if got == job.blob.digest.hex:
            return
    raise VerificationError(
        f"{job.where}: got {job.blob.size} bytes of {job.blob.digest.algorithm}:{got}, {_ATTEMPTS} times; "
        "the registry or something before it damages it"
    )


def _receive(job: _Job, source: ImageSource, place: Place) -> str:
    """Write the whole blob to its place and return its hash."""
    hasher = job.blob.digest.hasher()
    buffer = memoryview(bytearray(min(job.blob.size, files.CHUNK)))
    position = 0
    with source.blob(job.order.reference, job.blob) as stream:
        while count := stream.readinto(buffer[: job.blob.size - position]):
            hasher.update(buffer[:count])
            files.write_all(place.descriptor, buffer[:count], place.offset + position)
            position += count
    return hasher.hexdigest()


def _hash_all(archives: Mapping[str, tuple[int, Layout]]) -> dict[str, str]:
    """Return the SHA-256 of each archive; a beginning that several have in common is read once."""
    states: dict[bytes, hashlib._Hash] = {}
    return {name: _hash(descriptor, layout, states) for name, (descriptor, layout) in archives.items()}


def _hash(descriptor: int, layout: Layout, states: dict[bytes, "hashlib._Hash"]) -> str:
    hasher = hashlib.sha256()
    key = b""
    for member in layout.members:
        key = hashlib.sha256(key + member.header + member.digest.hex.encode()).digest()
        if key not in states:
            _update(hasher, descriptor, member.start, member.end)
            states[key] = hasher.copy()
        hasher = states[key].copy()
    _update(hasher, descriptor, layout.members[-1].end, layout.size)
    return hasher.hexdigest()


def _update(hasher: "hashlib._Hash", descriptor: int, start: int, end: int) -> None:
    for chunk in files.chunks(descriptor, start, end):
        hasher.update(chunk)


def has(path: Path, expected: ArchiveFile) -> bool:
    """Tell whether `path` is that archive: its size and its SHA-256."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != expected.size:
                return False
            hasher = hashlib.sha256()
            _update(hasher, file.fileno(), 0, expected.size)
    except OSError:
        return False
    return hasher.hexdigest() == expected.sha256
