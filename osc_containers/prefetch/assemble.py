"""From pinned images to archives: every byte once over the network, once onto the disk.

A blob is hashed on its way, and written straight to its place in each archive that needs it; or in one of them, where
the file system lets the others share its blocks. A large one comes in segments over several connections. An archive
gets its name only when all of it is verified; what is verified of one that fails is not fetched again (see `parts`).
"""

import errno
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from osc_containers.archive import find
from osc_containers.archive.layout import Layout, Member, lay_out
from osc_containers.errors import VerificationError
from osc_containers.fs import atomic
from osc_containers.fs.ranges import FileSlice
from osc_containers.lock.lockfile import ArchiveFile
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference
from osc_containers.prefetch import download, partial_file
from osc_containers.prefetch.download import BlobTask
from osc_containers.sources.interface import FetchContext

_HASHERS = 2
"""Archives that are hashed at a time."""
_STRIDE = 64 << 20
"""Bytes that are hashed without a look at whether it is still of use."""


class Order(NamedTuple):
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
        return lay_out(self.image, self.reference)


Frame = Iterable[tuple[int, bytes]]
"""Bytes by the offset that they go to."""


class OutputFile(NamedTuple):
    """A file of `size` bytes that archives go into: one alone, or several at their offsets with something around them.

    `finish` is given the archives when they are complete, and returns what is around them.
    """

    name: str
    size: int
    orders: tuple[tuple[Order, int], ...]
    finish: Callable[[Mapping[str, ArchiveFile]], Frame]

    @property
    def key(self) -> str:
        """Name what the output will hold, byte for byte."""
        parts_of_it = [f"{self.name} {self.size}"]
        for order, offset in self.orders:
            members = [f"{member.start} {member.name} {member.digest}" for member in order.layout.members]
            parts_of_it.append(f"{offset} {' '.join(members)}")
        return hashlib.sha256("\n".join(parts_of_it).encode()).hexdigest()


def alone(order: Order) -> OutputFile:
    """Return the output of an archive that is a file by itself."""
    return OutputFile(name=order.name, size=order.layout.size, orders=((order, 0),), finish=lambda made: ())


@contextmanager
def transfer(
    outputs: Sequence[OutputFile], network: FetchContext, archives: Collection[Path], outdir: Path
) -> Iterator[Mapping[str, ArchiveFile]]:
    """Make outputs in `outdir`, and give out the archives in them by name; blobs in `archives` are taken from there.

    They are complete when the block begins, and get their names when it ends well; if anything fails before, none does.

    :raises RegistryError: a blob could not be had.
    :raises VerificationError: a blob is not what its digest says.
    """
    _check_outdir(outdir)
    _check_space(outputs, outdir)
    atomic.allow_open(len(outputs) + len(archives))
    partial_file.remove_stale()
    with _naming(outdir), ExitStack() as new, ExitStack() as old:
        opened = {
            output.name: new.enter_context(partial_file.part(outdir / output.name, output.key, output.size))
            for output in outputs
        }
        berths = [
            _Berth(order=order, layout=order.layout, place=FileSlice(opened[output.name], offset))
            for output in outputs
            for order, offset in output.orders
        ]
        for berth in berths:
            _write(berth.place, berth.layout.frame())
        tasks = _tasks(berths, network, find.blobs(archives, old))
        with _Hashing(berths) as hashing:
            download.receive(tasks, network, hashing)
            made = hashing.result()
        _compare([berth.order for berth in berths], made)
        for output in outputs:
            _write(FileSlice(opened[output.name], 0), output.finish(made))
            atomic.flush(opened[output.name])
        yield made


class _Berth(NamedTuple):
    """Where an archive comes to lie."""

    order: Order
    layout: Layout
    place: FileSlice


def _write(place: FileSlice, frame: Frame) -> None:
    for offset, content in frame:
        place.write(content, offset)


@contextmanager
def _naming(outdir: Path) -> Iterator[None]:
    """Let an `OSError` of the block that names no file, since it comes from a write, name `outdir`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(outdir)) from None


def _check_outdir(outdir: Path) -> None:
    """Say that files cannot be made before anything is fetched."""
    info = os.statvfs(outdir)
    if info.f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(outdir))
    if not outdir.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(outdir))
    if not os.access(outdir, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "no files can be made there", str(outdir))


def _check_space(outputs: Sequence[OutputFile], outdir: Path) -> None:
    """Say that there is no room before anything is fetched."""
    needed = sum(
        max(0, output.size - partial_file.reusable_bytes(outdir / output.name, output.key)) for output in outputs
    )
    message = atomic.describe_shortage(outdir, needed)
    if not message:
        return
    cache, kept = partial_file.stale_bytes(outdir / "any", {output.key for output in outputs}) or (None, 0)
    if kept:
        message += f"; {kept} more are what other runs left in {cache} to go on with, remove it if none will"
    raise OSError(errno.ENOSPC, message, str(outdir))


def _tasks(berths: Sequence[_Berth], network: FetchContext, here: Mapping[Digest, FileSlice]) -> list[BlobTask]:
    """Collect the distinct blobs, first what fills most, so that the last to end is small and what all need is here."""
    places: dict[Digest, list[FileSlice]] = {}
    first: dict[Digest, tuple[Descriptor, Order]] = {}
    for berth in berths:
        blobs = {blob.digest: blob for blob in berth.order.image.blobs}
        for member in berth.layout.blobs():
            places.setdefault(member.digest, []).append(berth.place.at(member.offset))
            blob, order = first.setdefault(member.digest, (blobs[member.digest], berth.order))
            if blob.size != member.size:
                raise VerificationError(
                    f"{berth.order.reference}: blob {blob.digest}: its manifest says {member.size} bytes, that of "
                    f"{order.reference} says {blob.size}; one of them is wrong"
                )
    tasks = [
        BlobTask(
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
    return sorted(tasks, key=lambda task: (-task.blob.size * len(task.places), task.blob.digest))


def _compare(orders: Iterable[Order], made: Mapping[str, ArchiveFile]) -> None:
    problems = [
        f"{order.name}: got sha256 {made[order.name].sha256} of {made[order.name].size} bytes from what is pinned, but "
        f"the lock says {order.expected.sha256} of {order.expected.size}; run the prefetch without 'locked'"
        for order in orders
        if order.expected and order.expected != made[order.name]
    ]
    if problems:
        raise VerificationError(*problems)


def _beginnings(layout: Layout) -> Iterator[bytes]:
    """Name what an archive begins with, as far as each of its members."""
    key = b""
    for member in layout.members:
        key = hashlib.sha256(key + f"{member.name} {member.size} {member.digest}".encode()).digest()
        yield key


class _Hashing:
    """The SHA-256 of archives, in threads of their own that follow the blobs as they arrive.

    A beginning that several archives have in common is read once.
    """

    def __init__(self, berths: Sequence[_Berth]) -> None:
        self._berths = berths
        beginnings = Counter(key for berth in berths for key in _beginnings(berth.layout))
        self._states: dict[bytes, Future[hashlib._Hash] | None] = {
            key: None for key, count in beginnings.items() if count > 1
        }
        self._counts: dict[FileSlice, int] = {}
        self._is_restarted = False
        self._is_stopped = False
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(_HASHERS)

    def __enter__(self) -> "_Hashing":
        self._sums = [self._pool.submit(self._hash, berth) for berth in self._berths]
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._pool.shutdown()

    def written(self, place: FileSlice, count: int) -> None:
        """Let the thread go on to there; see `blob_download.Follower`."""
        with self._changed:
            self._counts[place] = count
            self._changed.notify_all()

    def restarted(self) -> None:
        """Hash all anew in the end: what was hashed so far may be what is fetched again."""
        self._is_restarted = True

    def result(self) -> dict[str, ArchiveFile]:
        """Return the archives by name, when all blobs have arrived."""
        sums = [each.result() for each in self._sums]
        if self._is_restarted:
            sums = [berth.place.sha256(berth.layout.size) for berth in self._berths]
        return {
            berth.order.name: ArchiveFile(name=berth.order.name, size=berth.layout.size, sha256=sha256)
            for berth, sha256 in zip(self._berths, sums, strict=True)
        }

    def _hash(self, berth: _Berth) -> str:
        hasher = hashlib.sha256()
        for key, member in zip(_beginnings(berth.layout), berth.layout.members, strict=True):
            if key not in self._states:
                hasher = self._extend(hasher, berth, self._ranges(berth, member))
                continue
            with self._changed:
                known = self._states[key]
                state = self._states[key] = known or Future()
            if not known:
                try:
                    state.set_result(self._extend(hasher, berth, self._ranges(berth, member)))
                except BaseException as error:
                    state.set_exception(error)
            hasher = state.result()
        return self._extend(hasher, berth, [(berth.layout.members[-1].end, berth.layout.size)]).hexdigest()

    @staticmethod
    def _extend(hasher: "hashlib._Hash", berth: _Berth, ranges: Iterable[tuple[int, int]]) -> "hashlib._Hash":
        extended = hasher.copy()
        for start, stop in ranges:
            for chunk in berth.place.chunks(start, stop):
                extended.update(chunk)
        return extended

    def _ranges(self, berth: _Berth, member: Member) -> Iterator[tuple[int, int]]:
        """Yield the parts of a member as they are there; not all where nobody waits for the result any more."""
        start, arriving = member.start, member.offset + member.size if member.content is None else member.start
        place = berth.place.at(member.offset)
        while start < member.end and not self._is_stopped:
            stop = member.end
            if start < arriving:
                stop = min(member.offset + self._wait_for_more(place, start - member.offset), start + _STRIDE)
            yield start, stop
            start = stop

    def _wait_for_more(self, place: FileSlice, count: int) -> int:
        """Return how many bytes of a blob are at `place`, when it is more than `count` or nobody waits any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._counts.get(place, -1) > count)
            return self._counts.get(place, 0)
