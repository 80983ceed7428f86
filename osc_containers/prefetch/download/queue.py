"""The queue of blobs to download, and the threads that work on it.

A large blob comes in segments over several connections, in any order. Blobs that another run of the same user is
downloading come last, and are copied from there (see `blob_lock`).
"""

import heapq
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from osc_containers.prefetch.download.blob_download import REQUEST_COST, UNLIMITED, BlobDownload, BlobTask
from osc_containers.prefetch.download.extents import Range
from osc_containers.sources.interface import FetchContext
from osc_containers.sources.progress import Progress

logger = logging.getLogger(__name__)

_NEAR, _FAR = 4, 20
"""Default numbers of parallel requests for blobs. Near a registry, more than one for each core only compete."""
_SEGMENT = 4 << 20
"""Minimum bytes of the share of a worker; a blob of so many, or fewer, is not divided."""
_POLL = 0.3
"""Seconds between two looks at the blobs that other runs are downloading."""
_QUIET = 1.0
"""Seconds that a run waits for another one without saying so."""


def receive(tasks: Sequence[BlobTask], context: FetchContext) -> None:
    """Download all blobs to their slices and verify them; the first error ends everything.

    :raises RegistryError: a blob could not be downloaded.
    :raises VerificationError: a blob does not match its digest.
    """
    context.progress.expect(sum(task.blob.size for task in tasks))
    is_split = context.connections is not None or any(task.source.is_high_latency for task in tasks)
    width = context.connections or (_FAR if is_split else min(_NEAR, len(os.sched_getaffinity(0))))
    queue = DownloadQueue(tasks, shares=width if is_split else 0)
    pool = ThreadPoolExecutor(width)
    is_interrupted = False
    try:
        workers = [pool.submit(queue.run, context.progress) for _ in range(width)]
        # In the order in which they end, so that the first error ends the run.
        for worker in as_completed(workers):
            worker.result()
    except BaseException as error:
        is_interrupted = isinstance(error, KeyboardInterrupt)
        queue.stop()
        context.cancel()
        raise
    finally:
        # After Ctrl-C, do not wait for a server that does not answer.
        pool.shutdown(wait=not is_interrupted)
        queue.release_locks()


class DownloadQueue:
    """The blobs and segments that are still to be downloaded, for workers that each take the next one.

    All large blobs together are divided into `shares` of equal size, one for each worker; a segment ends where a share
    or a blob ends. With 0 shares, a segment is a whole blob. The largest segment comes first, so that all workers
    finish at about the same time. A registry that turns out to ignore ranges is asked for whole blobs from then on.
    """

    def __init__(self, tasks: Sequence[BlobTask], *, shares: int) -> None:
        self._undivided: set[str] = set()
        self._waiting: deque[tuple[BlobTask, int]] = deque()
        position = 0
        for task in tasks:
            self._waiting.append((task, position))
            position += task.blob.size + REQUEST_COST if task.blob.size > _SEGMENT else 0
        # Rounded up, so that all shares together are not smaller than the blobs.
        self._share = max(_SEGMENT, -(-position // shares)) if shares else UNLIMITED
        self._ready: list[tuple[int, int, BlobDownload, Range | None]] = []
        """Segments to receive; None for a download that has to be begun."""
        self._number = 0
        self._busy = 0
        """Workers that may add something to `_ready`."""
        self._elsewhere: list[BlobDownload] = []
        """Downloads of blobs that another run is downloading."""
        self._poll_at = 0.0
        self._idle_since = 0.0
        self._is_announced = False
        self._begun: set[BlobDownload] = set()
        self._is_stopped = False
        self._changed = threading.Condition()

    def stop(self) -> None:
        """Let the workers end after their current chunk."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def release_locks(self) -> None:
        """Let other runs download what this one has not completed."""
        with self._changed:
            for download in self._begun:
                download.unlock()

    def run(self, progress: Progress) -> None:
        """Work until nothing is left."""
        while item := self._next():
            segments: Sequence[Range | None]
            if isinstance(item[0], BlobTask):
                task, position = item
                download = BlobDownload(task, progress, self._undivided)
                share = self._share if task.blob.size > _SEGMENT else UNLIMITED
                segments = [None] if download.start(position, share) else []
            else:
                download, segment = item
                segments = download.fetch(segment, lambda: self._is_stopped) if segment else self._begin(download)
            with self._changed:
                # A worker that receives a segment does not count as busy: what it may add is more of the same blob,
                # which it can receive itself.
                self._busy -= isinstance(item[0], BlobTask) or item[1] is None
                self._add(download, segments)
                if download.is_delivered:
                    self._begun.discard(download)
                self._changed.notify_all()

    def _begin(self, download: BlobDownload) -> Sequence[Range]:
        """Return the segments of a download, or none if another run is downloading the blob."""
        with self._changed:
            self._begun.add(download)
        segments = download.begin()
        if segments is None:
            with self._changed:
                self._elsewhere.append(download)
        return segments or ()

    def _add(self, download: BlobDownload, segments: Sequence[Range | None]) -> None:
        for segment in segments:
            # The running number keeps the heap from comparing downloads.
            self._number += 1
            size = segment[1] - segment[0] if segment else download.largest_segment
            heapq.heappush(self._ready, (-size, self._number, download, segment))

    def _next(self) -> tuple[BlobTask, int] | tuple[BlobDownload, Range | None] | None:
        with self._changed:
            while not self._is_stopped:
                # What is on the disk is looked at first for all blobs, because only then is the largest missing segment
                # known.
                if self._waiting:
                    self._busy += 1
                    return self._waiting.popleft()
                self._poll()
                if self._ready:
                    download, segment = heapq.heappop(self._ready)[2:]
                    self._busy += segment is None
                    return download, segment
                if not self._busy and not self._elsewhere:
                    break
                if self._elsewhere:
                    self._announce_waiting()
                self._changed.wait(_POLL if self._elsewhere else None)
        return None

    def _poll(self) -> None:
        """Try again to begin what other runs are downloading, unless that was just done."""
        now = time.monotonic()
        if self._elsewhere and now >= self._poll_at:
            for download in self._elsewhere:
                self._add(download, [None])
            self._elsewhere.clear()
            self._poll_at = now + _POLL

    def _announce_waiting(self) -> None:
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        download = self._elsewhere[0]
        if download.holder and not self._is_announced and now >= self._idle_since + _QUIET:
            self._is_announced = True
            logger.info("%s: process %d is downloading the same blobs; waiting for it", download.name, download.holder)
