"""From pinned images to archives: every byte once over the network, once onto the disk.

A blob is written straight to its place in the first archive that needs it and hashed on the way; other archives get it
from there, in the kernel where it can. A large one comes in segments over several connections. An archive gets its name
only when all of it is verified; what is verified of one that fails is not fetched again (see `parts`).
"""

import errno
import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from osc_containers import archive, arrival, files, parts
from osc_containers.archive import Image, Layout
from osc_containers.arrival import Place, Shipment
from osc_containers.digest import Digest
from osc_containers.errors import VerificationError
from osc_containers.lock import ArchiveFile
from osc_containers.oci import Descriptor
from osc_containers.reference import Reference
from osc_containers.sources import Network


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


@contextmanager
def transfer(
    orders: Sequence[Order], network: Network, archives: Iterable[Path], outdir: Path
) -> Iterator[tuple[ArchiveFile, ...]]:
    """Make the archives of `orders` in `outdir`; blobs that are in `archives` are taken from there.

    They are complete when the block begins, and get their names when it ends well; where anything fails, none does.

    :raises RegistryError: a blob could not be had.
    :raises VerificationError: a blob is not what its digest says.
    """
    layouts = {order.name: archive.lay_out(order.image, order.reference) for order in orders}
    _check_outdir(outdir, sum(layout.size for layout in layouts.values()))
    parts.remove_stale()
    with ExitStack() as new, ExitStack() as old:
        targets = {}
        for order in orders:
            layout = layouts[order.name]
            targets[order.name] = new.enter_context(parts.part(outdir / order.name, _key(layout), layout.size))
        shipments = _shipments(orders, layouts, targets, network, held(archives, old))
        for name, layout in layouts.items():
            for offset, content in layout.frame():
                files.write_all(targets[name], content, offset)
        arrival.receive(shipments, network.connections, network.progress)
        sums = _hash_all({name: (targets[name], layout) for name, layout in layouts.items()})
        made = tuple(ArchiveFile(name=name, size=layouts[name].size, sha256=sums[name]) for name in layouts)
        _compare(orders, made)
        yield made


def _key(layout: Layout) -> str:
    """Name what an archive will hold, byte for byte."""
    headers = b"".join(member.header + member.digest.hex.encode() for member in layout.members)
    return hashlib.sha256(headers).hexdigest()


def _check_outdir(outdir: Path, needed: int) -> None:
    """Say that files or so many bytes cannot be written before anything is fetched; root's margin is not ours."""
    info = os.statvfs(outdir)
    if info.f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(outdir))
    if not os.access(outdir, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "no files can be made there", str(outdir))
    free = info.f_bavail * info.f_frsize
    if needed > free:
        raise OSError(errno.ENOSPC, f"no space left; the archives need {needed} bytes, {free} are free", str(outdir))


def _shipments(
    orders: Sequence[Order],
    layouts: Mapping[str, Layout],
    targets: Mapping[str, int],
    network: Network,
    here: Mapping[Digest, Place],
) -> list[Shipment]:
    """Collect the distinct blobs, the largest first so that the last to end is a small one."""
    places: dict[Digest, list[Place]] = {}
    first: dict[Digest, tuple[Descriptor, Order]] = {}
    for order in orders:
        blobs = {blob.digest: blob for blob in order.image.blobs}
        for member in layouts[order.name].blobs():
            places.setdefault(member.digest, []).append(Place(targets[order.name], member.offset))
            first.setdefault(member.digest, (blobs[member.digest], order))
    shipments = [
        Shipment(
            blob=blob,
            is_manifest=digest == order.image.manifest.digest,
            reference=order.reference,
            source=network.open_source(order.origin),
            places=tuple(places[digest]),
            content=order.small.get(digest),
            old=here.get(digest),
        )
        for digest, (blob, order) in first.items()
    ]
    return sorted(shipments, key=lambda shipment: (-shipment.blob.size, shipment.blob.digest))


def held(archives: Iterable[Path], stack: ExitStack) -> Mapping[Digest, Place]:
    """Find the blobs that archives have, by the names of their members; the bytes are not verified."""
    places: dict[Digest, Place] = {}
    for path in archives:
        file = stack.enter_context(path.open("rb"))
        for name, offset in _members(file):
            parts_of_name = name.split("/")
            if len(parts_of_name) == 3 and parts_of_name[0] == "blobs":
                try:
                    places.setdefault(Digest.parse(":".join(parts_of_name[1:])), Place(file.fileno(), offset))
                except ValueError:
                    continue
    return places


def _members(file: BinaryIO) -> Iterator[tuple[str, int]]:
    """Yield name and offset of each file in a tar; what cannot be read holds nothing for us."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isreg():
                    yield member.name, member.offset_data
    except (tarfile.TarError, OSError, ValueError):
        return


def _compare(orders: Sequence[Order], made: Sequence[ArchiveFile]) -> None:
    problems = [
        f"{file.name}: got sha256 {file.sha256} of {file.size} bytes from what is pinned, but the lock says "
        f"{order.expected.sha256} of {order.expected.size}; run the prefetch without 'locked'"
        for order, file in zip(orders, made, strict=True)
        if order.expected and order.expected != file
    ]
    if problems:
        raise VerificationError(*problems)


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
