"""The download of one blob, in segments that come in any order.

It is hashed from its start. A segment that is the next to be hashed is hashed as it is received. Any other is read back
when its turn comes, as a rule from the page cache.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from osc_containers.errors import VerificationError
from osc_containers.fs import ranges
from osc_containers.fs.ranges import FileSlice
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.download import extents
from osc_containers.prefetch.download.blob_lock import PATIENCE, BlobLock
from osc_containers.prefetch.download.extents import Range
from osc_containers.sources.interface import ATTEMPTS, ImageSource
from osc_containers.sources.progress import Progress

logger = logging.getLogger(__name__)

UNLIMITED = 1 << 63
"""The share of a worker that takes whole blobs."""
REQUEST_COST = 1 << 20
"""Bytes that could be received in the time that a request takes, about."""
_DIRECT_LIMIT = 8
"""Slices that a blob is written to as it is received: with more, the registry would wait for our disk."""


class BlobTask(NamedTuple):
    """A blob to download, its source, and the slices of files that it is written to.

    `content` has its bytes if they are in memory; `old` is a slice of an existing file that seems to hold it. Neither
    is verified.
    """

    blob: Descriptor
    is_manifest: bool
    reference: Reference
    source: ImageSource
    slices: tuple[FileSlice, ...]
    content: bytes | None
    old: FileSlice | None

    @property
    def where(self) -> str:
        """The place that a message about it begins with."""
        return f"{self.reference}: blob {self.blob.digest}"


class BlobDownload:
    """One blob while it is downloaded; `undivided` has the registries that are known to ignore ranges."""

    largest_segment = 0
    """Bytes of the largest segment that is missing."""

    def __init__(self, task: BlobTask, progress: Progress, undivided: set[str]) -> None:
        self.is_delivered = False
        self._blob_lock: BlobLock | None = None
        self._undivided = undivided
        self._is_divided = True
        self._task = task
        self._size = task.blob.size
        self._target = task.slices[0]
        self._direct = task.slices[:1]
        # Where the blob begins, and how many bytes each worker gets, if all large blobs are seen as one sequence.
        self._position = 0
        self._share = UNLIMITED
        self._lock = threading.Lock()
        # The hasher has seen the first `_hashed` bytes, all of which are in the first slice. `_written` has the ranges
        # that are in it, in any order, without segments that are still being received.
        self._hasher = task.blob.digest.hasher()
        self._hashed = 0
        self._written: list[Range] = []
        # Segments that are not received yet. The thread that receives the last one decides what comes next.
        self._pending = 0
        # How often the whole blob was received and turned out to be damaged.
        self._attempts = 0
        self._progress = progress
        self._display: ExitStack | None = None
        self._show: Callable[[int], None] | None = None

    def start(self, position: int, share: int) -> bool:
        """Use what is already on the disk, and return whether something is missing.

        `position` is the offset of the blob among all large ones, of which each worker gets `share` bytes. With a share
        of `UNLIMITED`, the blob is not divided.
        """
        self._position, self._share = position, share
        content, old = self._content(), self._task.old
        if content is not None:
            if len(content) != self._size:
                raise VerificationError(f"{self._task.where}: got {len(content)} bytes, expected {self._size}")
            self._target.write(content)
            self._record((0, len(content)))
        elif old:
            # If the old file cannot be read, the blob is downloaded.
            with suppress(OSError):
                old.copy(self._target, self._size)
                self._record((0, self._size))
        if self._hashed < self._size:
            self._continue()
        self._advance(sum(stop - first for first, stop in self._written))
        if self._hashed == self._size and self._deliver():
            return False
        self.largest_segment = max(stop - first for first, stop in self._missing_segments())
        return True

    def begin(self) -> Sequence[Range] | None:
        """Copy what another run has received, and return the segments that have to be fetched.

        The result is None if another run is downloading the blob. Then try again later.
        """
        lock = self._blob_lock = self._blob_lock or BlobLock(self._task.blob.digest, self._target)
        if not lock.acquire():
            return None
        if lock.is_stalled and lock.other:
            message = "%s: process %d has received nothing for %d seconds; not waiting any longer"
            logger.info(message, self._task.where, lock.pid, PATIENCE)
        if lock.other:
            # If its file cannot be read, the blob is downloaded.
            with suppress(OSError):
                self._copy_missing(lock.other)
        if self._hashed == self._size and self._deliver():
            return ()
        self._attempts = 0  # No request was made yet.
        # What is written already is in the first slice only, and would be missing in the others.
        if not self._written:
            self._direct = self._choose_direct()
        return self._missing_segments()

    @property
    def name(self) -> str:
        """The image that the blob is for."""
        return str(self._task.reference)

    @property
    def holder(self) -> int:
        """The process that is downloading the blob, as far as known."""
        return self._blob_lock.pid if self._blob_lock else 0

    def unlock(self) -> None:
        """Let other runs download the blob."""
        if self._blob_lock:
            self._blob_lock.release()

    def _copy_missing(self, other: FileSlice) -> None:
        is_full = extents.is_full(other.descriptor, other.offset, other.offset + self._size)
        # What is written stays as it is: it may already be hashed.
        for start, stop in list(self._gaps()):
            for first, end in [(start, stop)] if is_full else _ranges_in(other, start, stop):
                other.at(first).copy(self._target.at(first), end - first)
                self._record((first, end))
                self._advance(end - first)

    def _choose_direct(self) -> tuple[FileSlice, ...]:
        """Return the slices that bytes are written to while they are in the processor's cache.

        The others are copied from the first one. That costs more, but nothing where the file system shares blocks.
        """
        slices = self._task.slices
        is_one = len(slices) > _DIRECT_LIMIT or extents.supports_reflink(self._target.descriptor)
        return slices[:1] if is_one else slices

    def _content(self) -> bytes | None:
        if self._task.is_manifest and self._task.content is None:
            # Registries serve manifests at an endpoint of their own, and not among the blobs (OCI distribution-spec).
            return self._task.source.manifest(self._task.reference, self._task.blob.digest).raw
        return self._task.content

    def _continue(self) -> None:
        """Take what an earlier run has left: the whole blob, if its digest is right, or else what was written of it."""
        start = self._target.offset
        if not extents.is_full(self._target.descriptor, start, start + self._size):
            self._record(*_ranges_in(self._target, 0, self._size))
            return
        # `written_ranges` is careful about blocks at both ends of a blob, so the digest decides. What is there as a
        # whole, but damaged, is received again from its start.
        hasher = self._task.blob.digest.hasher()
        for chunk in self._target.chunks(0, self._size):
            hasher.update(chunk)
        if hasher.hexdigest() == self._task.blob.digest.hex:
            self._hasher, self._hashed, self._written = hasher, self._size, [(0, self._size)]

    def _missing_segments(self) -> list[Range]:
        """Split what is missing into segments; if the registry ignores ranges, all after the first gap is one."""
        self._is_divided = self._registry not in self._undivided
        if not self._is_divided:
            # Such a registry sends the blob from its start in any case, so one request for everything that is not
            # hashed is best.
            self._pending = 1
            return [(self._hashed, self._size)]
        segments = []
        for start, stop in self._gaps():
            # A segment ends where the share of the next worker begins, counted over all large blobs.
            cut = start + self._share - (self._position + start) % self._share
            # A request for less than it costs itself would save nothing.
            while cut + REQUEST_COST <= stop:
                if start + REQUEST_COST <= cut:
                    segments.append((start, cut))
                    start = cut
                cut += self._share
            segments.append((start, stop))
        self._pending = len(segments)
        return segments

    def _gaps(self) -> Iterator[Range]:
        """Yield the ranges that are not written yet."""
        position = 0
        for first, stop in (*sorted(self._written), (self._size, self._size)):
            if position < first:
                yield position, first
            position = max(position, stop)

    @property
    def _registry(self) -> str:
        return self._task.reference.registry

    def fetch(self, segment: Range, is_stopped: Callable[[], bool]) -> Sequence[Range]:
        """Receive a segment.

        Return what to fetch next, if this was the last segment and the blob is still incomplete or damaged.
        """
        position = segment[0]
        # The download of another segment may have shown that the registry ignores ranges. This one is not requested
        # then.
        if not self._is_divided or self._registry not in self._undivided:
            position = self._receive(segment, is_stopped)
        if position > segment[0]:
            self._record((segment[0], position))
        with self._lock:
            self._pending -= 1
            is_last = self._pending == 0
        # No other thread works on the blob now, so this one can look at all of it.
        if not is_last or is_stopped() or (self._hashed == self._size and self._deliver()):
            return ()
        return self._missing_segments()

    def _receive(self, segment: Range, is_stopped: Callable[[], bool]) -> int:
        """Return the offset up to which the segment was received: its start, if the registry ignores ranges."""
        position, stop = segment
        buffer = memoryview(bytearray(min(stop - position, ranges.CHUNK)))
        task, is_retry = self._task, self._attempts > 0
        with task.source.blob(task.reference, task.blob, position, stop, is_retry=is_retry) as stream:
            if stream.ignores_range and self._is_divided:
                self._undivided.add(self._registry)
                return position
            while not is_stopped() and (count := stream.readinto(buffer[: stop - position])):
                for target in self._direct:
                    target.write(buffer[:count], position)
                # Only one thread can be at this position, so no other hashes before this chunk is hashed.
                if self._hashed == position:
                    self._hasher.update(buffer[:count])
                    self._hashed += count
                position += count
                self._advance(count)
        return position

    def _advance(self, count: int) -> None:
        """Show `count` bytes more as done; the blob gets its line with the first of them."""
        if count and self._show is None:
            with self._lock:
                if self._show is None:
                    reference, digest = self._task.reference, self._task.blob.digest
                    name = f"{reference.repository.rpartition('/')[2]} {digest.short}"
                    # Thousands of blobs may wait, and an ExitStack would take a kilobyte for each.
                    self._display = ExitStack()
                    self._show = self._display.enter_context(self._progress.blob(name, self._size))
        if self._show is not None:
            self._show(count)

    def _record(self, *ranges: Range) -> None:
        """Record that ranges are written, and hash up to the first gap."""
        with self._lock:
            self._written.extend(ranges)
            # Repeat while a range has the next byte to be hashed in it; the ranges are in no order, and may overlap.
            while ends := [stop for first, stop in self._written if first <= self._hashed < stop]:
                for chunk in self._target.chunks(self._hashed, max(ends)):
                    self._hasher.update(chunk)
                self._hashed = max(ends)

    def _deliver(self) -> bool:
        """Copy a blob that matches its digest to its other slices; otherwise discard it and return False."""
        task, digest = self._task, self._hasher.hexdigest()
        if digest == task.blob.digest.hex:
            for other in task.slices[len(self._direct) :]:
                self._target.copy(other, self._size)
            if self._display:
                self._display.close()
            self.is_delivered = True
            self.unlock()
            return True
        self._advance(-self._size)
        self._attempts += 1
        problem = f"{task.where}: got {self._size} bytes of {task.blob.digest.algorithm}:{digest}"
        if self._size == 0:  # There is nothing to request.
            raise VerificationError(f"{problem}; its manifest is wrong about its size")
        if self._attempts == ATTEMPTS:
            raise VerificationError(f"{problem}, {ATTEMPTS} times; the registry or a proxy damages it")
        self._hasher, self._hashed, self._written = task.blob.digest.hasher(), 0, []
        return False


def _ranges_in(content: FileSlice, first: int, stop: int) -> list[Range]:
    """Return the ranges of a blob between `first` and `stop` that seem to be written at `content`."""
    start = content.offset
    ranges = extents.written_ranges(content.descriptor, start + first, start + stop)
    return [(begin - start, end - start) for begin, end in ranges]
