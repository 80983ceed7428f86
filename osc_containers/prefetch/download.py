"""Blobs on their way to their place in an archive: in segments, in any order, hashed from the start as they come.

A blob that comes in one piece is hashed as it is received. Of one that comes in several, each segment that is not the
next to be hashed is read back when its turn comes, from memory as a rule: it was just written.
"""

import heapq
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from typing import NamedTuple, Protocol

from osc_containers.errors import VerificationError
from osc_containers.fs import ranges
from osc_containers.fs.ranges import FileSlice
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference
from osc_containers.prefetch import partial_file
from osc_containers.prefetch.partial_file import Range
from osc_containers.sources.interface import ATTEMPTS, FetchContext, ImageSource
from osc_containers.sources.progress import Progress

_NEAR, _FAR = 4, 20
"""Requests for blobs at a time, unless the user wants another number; near, more than there are cores only compete."""
_ENDLESS = 1 << 63
_DIRECT = 8
"""Places that a blob is written to as it comes: more would keep its registry waiting for our disk."""
_SEGMENT = 4 << 20
"""Bytes of a share at least: a request for less costs more than it brings."""
_REQUEST = 1 << 20
"""Bytes that would come in the time that a request costs: a share that ends in another blob is so much smaller."""


class BlobTask(NamedTuple):
    """A blob, whom to ask for it, all the places it goes to, and where it may be already.

    `content` has its bytes if they are in memory, `old` a place where it seems to be; neither is verified.
    """

    blob: Descriptor
    is_manifest: bool
    reference: Reference
    source: ImageSource
    places: tuple[FileSlice, ...]
    content: bytes | None
    old: FileSlice | None

    @property
    def where(self) -> str:
        """What begins a message about it."""
        return f"{self.reference}: blob {self.blob.digest}"


class BlobObserver(Protocol):
    """Who wants to know how far blobs have come; called from any thread."""

    def written(self, place: FileSlice, count: int, /) -> None:
        """Take note that the first `count` bytes of a blob are at `place`; they are not verified yet."""

    def restarted(self) -> None:
        """Take note that a blob which came was not what it must be, and comes anew."""


def receive(tasks: Sequence[BlobTask], network: FetchContext, observer: BlobObserver) -> None:
    """Bring all tasks to their places and verify them; the first error ends all of it.

    When it returns, `observer` was told of every blob at every place.

    :raises RegistryError: a blob could not be had.
    :raises VerificationError: a blob is not what its digest says.
    """
    network.progress.expect(sum(task.blob.size for task in tasks))
    is_split = network.connections is not None or any(task.source.is_high_latency for task in tasks)
    width = network.connections or (_FAR if is_split else min(_NEAR, len(os.sched_getaffinity(0))))
    work = DownloadQueue(tasks, observer, shares=width if is_split else 0)
    pool = ThreadPoolExecutor(width)
    is_interrupted = False
    try:
        workers = [pool.submit(work.run, network.progress) for _ in range(width)]
        for worker in as_completed(workers):
            worker.result()
    except BaseException as error:
        is_interrupted = isinstance(error, KeyboardInterrupt)
        work.stop()
        network.cancel()
        raise
    finally:
        pool.shutdown(wait=not is_interrupted)  # who interrupts does not wait for a server that is silent


class DownloadQueue:
    """What is left to do, for workers that each take the next piece of it.

    All large blobs, one behind the other, make so many equal `shares`, one for each worker; a piece ends where a share
    or a blob does. With none a piece is a whole blob. The largest is next, so that all workers end at about the same
    time. A registry that turns out not to give parts is asked for whole blobs from then on.
    """

    def __init__(self, tasks: Sequence[BlobTask], observer: BlobObserver, *, shares: int) -> None:
        self._observer = observer
        self._undivided: set[str] = set()
        self._waiting: deque[tuple[BlobTask, int]] = deque()
        position = 0
        for task in tasks:
            self._waiting.append((task, position))
            position += task.blob.size + _REQUEST if task.blob.size > _SEGMENT else 0
        self._share = max(_SEGMENT, -(-position // shares)) if shares else _ENDLESS
        self._segments: list[tuple[int, int, BlobDownload, Range]] = []
        self._number = 0
        self._beginning = 0
        self._is_stopped = False
        self._changed = threading.Condition()

    def stop(self) -> None:
        """Let workers end at the next chunk."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def run(self, progress: Progress) -> None:
        """Work until nothing is left."""
        while piece := self._next():
            if isinstance(piece[0], BlobTask):
                task, position = piece
                blob_download = BlobDownload(task, progress, self._observer, self._undivided)
                segments = blob_download.begin(position, self._share)
            else:
                blob_download, segment = piece
                segments = blob_download.fetch(segment, lambda: self._is_stopped)
            with self._changed:
                self._beginning -= isinstance(piece[0], BlobTask)
                for segment in segments:
                    self._number += 1
                    heapq.heappush(self._segments, (segment[0] - segment[1], self._number, blob_download, segment))
                self._changed.notify_all()

    def _next(self) -> "tuple[BlobTask, int] | tuple[BlobDownload, Range] | None":
        with self._changed:
            while not self._is_stopped:
                if self._waiting:
                    self._beginning += 1
                    return self._waiting.popleft()
                if self._segments:
                    return heapq.heappop(self._segments)[2:]
                if not self._beginning:
                    break
                self._changed.wait()
        return None


class BlobDownload:
    """One blob while it arrives; `undivided` has the registries that do not give parts, as far as is known by now."""

    def __init__(self, task: BlobTask, progress: Progress, observer: BlobObserver, undivided: set[str]) -> None:
        self._observer = observer
        self._undivided = undivided
        self._is_divided = True
        self._task = task
        self._size = task.blob.size
        self._place = task.places[0]
        self._direct = task.places[:1]
        self._position = 0
        self._share = _ENDLESS
        self._lock = threading.Lock()
        self._hasher = task.blob.digest.hasher()
        self._hashed = 0
        self._filled: list[Range] = []
        self._pending = 0
        self._attempts = 0
        self._progress = progress
        self._shown = ExitStack()
        self._tell: Callable[[int], None] | None = None

    def begin(self, position: int, share: int) -> Sequence[Range]:
        """Take what is here already, and return the segments that have to be fetched.

        `position` is where the blob lies among all large ones, of which each worker gets `share` bytes.
        """
        self._position, self._share = position, share
        content, old = self._content(), self._task.old
        if content is not None:
            if len(content) != self._size:
                raise VerificationError(f"{self._task.where}: got {len(content)} bytes, expected {self._size}")
            self._place.write(content)
            self._fill((0, len(content)))
        elif old:
            with suppress(OSError):
                old.copy(self._place, self._size)
                self._fill((0, self._size))
        elif self._is_here():
            self._filled = [(0, self._size)]
        if self._hashed < self._size:
            self._fill(*self._ranges_on_disk())
        self._advance(sum(stop - first for first, stop in self._filled))
        if self._hashed == self._size and self._deliver():
            return ()
        self._attempts = 0  # nothing was asked for
        if not self._filled:
            self._direct = self._choose_direct()
        return self._plan()

    def _choose_direct(self) -> tuple[FileSlice, ...]:
        """Return the places that bytes are written to as they come, while the processor has them at hand.

        The others get theirs from the first, which costs more, but nothing where blocks are shared.
        """
        places = self._task.places
        is_one = len(places) > _DIRECT or partial_file.supports_reflink(self._place.descriptor)
        return places[:1] if is_one else places

    def _content(self) -> bytes | None:
        if self._task.is_manifest and self._task.content is None:
            return self._task.source.manifest(self._task.reference, self._task.blob.digest).raw
        return self._task.content

    def _is_here(self) -> bool:
        """Hash what an earlier run may have left of all of it; what is not right counts for nothing."""
        start = self._place.offset
        if not self._size or not partial_file.is_full(self._place.descriptor, start, start + self._size):
            return False
        hasher = self._task.blob.digest.hasher()
        for chunk in self._place.chunks(0, self._size):
            hasher.update(chunk)
        if hasher.hexdigest() != self._task.blob.digest.hex:
            return False
        self._hasher, self._hashed = hasher, self._size
        return True

    def _ranges_on_disk(self) -> list[Range]:
        start = self._place.offset
        found = partial_file.written_ranges(self._place.descriptor, start, start + self._size)
        return [(first - start, stop - start) for first, stop in found]

    def _plan(self) -> list[Range]:
        """Split what is missing into segments; of an undivided blob, all after the first gap is one."""
        self._is_divided = self._registry not in self._undivided
        if not self._is_divided:
            self._pending = 1
            return [(self._hashed, self._size)]
        segments = []
        position = 0
        for first, stop in (*sorted(self._filled), (self._size, self._size)):
            while position < first:
                end = min(position + self._share - (self._position + position) % self._share, first)
                segments.append((position, end))
                position = end
            position = max(position, stop)
        self._pending = len(segments)
        return segments

    @property
    def _registry(self) -> str:
        return self._task.reference.registry

    def fetch(self, segment: Range, is_stopped: Callable[[], bool]) -> Sequence[Range]:
        """Receive a segment; return what to fetch then, if that was the last and the blob is not whole or not right."""
        position = segment[0]
        if not self._is_divided or self._registry not in self._undivided:
            position = self._receive(segment, is_stopped)
        if position > segment[0]:
            self._fill((segment[0], position))
        with self._lock:
            self._pending -= 1
            is_last = self._pending == 0
        if not is_last or is_stopped() or (self._hashed == self._size and self._deliver()):
            return ()
        return self._plan()

    def _receive(self, segment: Range, is_stopped: Callable[[], bool]) -> int:
        """Return how far the bytes of a segment came; not at all, if its registry turns out not to give parts."""
        position, stop = segment
        buffer = memoryview(bytearray(min(stop - position, ranges.CHUNK)))
        task = self._task
        is_retry = self._attempts > 0
        with task.source.blob(task.reference, task.blob, position, stop, is_retry=is_retry) as stream:
            if stream.ignores_range and self._is_divided:
                self._undivided.add(self._registry)
                return position
            while not is_stopped() and (count := stream.readinto(buffer[: stop - position])) and not is_stopped():
                for place in self._direct:
                    place.write(buffer[:count], position)
                if self._hashed == position:  # then nobody else can hash before this chunk is
                    self._hasher.update(buffer[:count])
                    self._hashed += count
                    self._observer.written(self._place, self._hashed)
                position += count
                self._advance(count)
        return position

    def _advance(self, count: int) -> None:
        """Show that so many bytes more are here; there is a line for the blob from the first on."""
        if count and self._tell is None:
            with self._lock:
                if self._tell is None:
                    reference, digest = self._task.reference, self._task.blob.digest
                    name = f"{reference.repository.rpartition('/')[2]} {digest.short}"
                    self._tell = self._shown.enter_context(self._progress.blob(name, self._size))
        if self._tell is not None:
            self._tell(count)

    def _fill(self, *ranges: Range) -> None:
        """Take note that ranges are written, and hash on as far as there is no gap."""
        with self._lock:
            self._filled.extend(ranges)
            while reached := [stop for first, stop in self._filled if first <= self._hashed < stop]:
                self._observer.written(self._place, max(reached))
                for chunk in self._place.chunks(self._hashed, max(reached)):
                    self._hasher.update(chunk)
                self._hashed = max(reached)

    def _deliver(self) -> bool:
        """Bring the whole blob to its other places if it is right, else forget it; False asks for another attempt."""
        task, got = self._task, self._hasher.hexdigest()
        if got == task.blob.digest.hex:
            for other in task.places[len(self._direct) :]:
                self._place.copy(other, self._size)
            for place in task.places:
                self._observer.written(place, self._size)
            self._shown.close()
            return True
        self._observer.restarted()
        self._advance(-self._size)
        self._attempts += 1
        problem = f"{task.where}: got {self._size} bytes of {task.blob.digest.algorithm}:{got}"
        if self._size == 0:  # there is nothing to ask for
            raise VerificationError(f"{problem}; its manifest is wrong about its size")
        if self._attempts == ATTEMPTS:
            raise VerificationError(f"{problem}, {ATTEMPTS} times; the registry or something before it damages it")
        self._hasher, self._hashed, self._filled = task.blob.digest.hasher(), 0, []
        return False
