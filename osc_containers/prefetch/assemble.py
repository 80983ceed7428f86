"""Assemble archives: every byte crosses the network once and is written to the disk once.

A blob is hashed while it is downloaded. It is written straight to its place in each archive that needs it, or to one of
them where the file system lets the others share its blocks. A large blob comes in segments over several connections. An
archive gets its name only when all of it is verified; what is verified of one that fails is kept for the next run (see
`partial_file`).
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
from typing import NamedTuple, TypeAlias

from osc_containers.archive import find
from osc_containers.archive.layout import Layout, Member
from osc_containers.errors import VerificationError
from osc_containers.fs import atomic
from osc_containers.fs.ranges import FileSlice
from osc_containers.lock.lockfile import ArchiveFile
from osc_containers.oci import chain
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor
from osc_containers.prefetch import download, partial_file
from osc_containers.prefetch.download import BlobTask
from osc_containers.prefetch.plan import ArchiveJob
from osc_containers.sources.interface import FetchContext

_HASH_THREADS = 2
_STRIDE = 64 << 20
"""Bytes that are hashed before the thread checks again whether the run has failed."""

Frame: TypeAlias = Iterable[tuple[int, bytes]]
"""Pairs of an offset and the bytes that go there."""

_Target: TypeAlias = tuple[ArchiveJob, FileSlice]
"""A job, and where its archive begins."""


class OutputFile(NamedTuple):
    """A file of `size` bytes that holds archives: one alone, or several at their offsets with something around them.

    `frame` is called with the archives by name when they are complete, and returns what goes around them.
    """

    name: str
    size: int
    jobs: tuple[tuple[ArchiveJob, int], ...]
    frame: Callable[[Mapping[str, ArchiveFile]], Frame]

    @property
    def key(self) -> str:
        """A hash of what the file will hold: equal keys mean equal bytes."""
        lines = [f"{self.name} {self.size}"]
        for job, offset in self.jobs:
            members = [f"{member.start} {member.name} {member.digest}" for member in job.layout.members]
            lines.append(f"{offset} {' '.join(members)}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def single(job: ArchiveJob) -> OutputFile:
    """Return the output file of an archive that is a file by itself."""
    return OutputFile(name=job.name, size=job.layout.size, jobs=((job, 0),), frame=lambda archives: ())


@contextmanager
def assemble(
    outputs: Sequence[OutputFile], context: FetchContext, archives: Collection[Path], outdir: Path, *, strict: bool
) -> Iterator[Mapping[str, ArchiveFile]]:
    """Write output files in `outdir`, and yield the archives in them by name.

    Blobs that are in the files `archives` are copied from there. The files are complete when the block begins, and get
    their names when it ends well; if anything fails, none of them does. With `strict` each archive must come out as the
    lock describes it.

    :raises RegistryError: a blob could not be downloaded.
    :raises VerificationError: a blob does not match its digest, or an archive the lock.
    :raises OSError: `outdir` cannot be written, or has too little room.
    """
    _check_outdir(outdir)
    _check_space(outputs, outdir)
    atomic.allow_open(len(outputs) + len(archives))
    partial_file.remove_stale()
    with _naming(outdir), ExitStack() as new, ExitStack() as old:
        descriptors = {
            output.name: new.enter_context(partial_file.part(outdir / output.name, output.key, output.size))
            for output in outputs
        }
        targets = [
            (job, FileSlice(descriptors[output.name], offset)) for output in outputs for job, offset in output.jobs
        ]
        for job, target in targets:
            _write(target, job.layout.frame())
        tasks = _blob_tasks(targets, context, find.blobs(archives, old))
        with _Hashing(targets) as hashing:
            download.receive(tasks, context, hashing)
            written = hashing.result()
        _check_chains(targets)
        if strict:
            _compare([job for job, _ in targets], written)
        for output in outputs:
            _write(FileSlice(descriptors[output.name], 0), output.frame(written))
            atomic.flush(descriptors[output.name])
        yield written


def _write(target: FileSlice, frame: Frame) -> None:
    for offset, content in frame:
        target.write(content, offset)


@contextmanager
def _naming(outdir: Path) -> Iterator[None]:
    """Add `outdir` to an `OSError` of the block that names no file, because it comes from a write."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(outdir)) from None


def _check_outdir(outdir: Path) -> None:
    """Fail before anything is downloaded if no files can be created in `outdir`."""
    info = os.statvfs(outdir)
    if info.f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(outdir))
    if not outdir.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(outdir))
    if not os.access(outdir, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "no files can be created there", str(outdir))


def _check_space(outputs: Sequence[OutputFile], outdir: Path) -> None:
    """Fail before anything is downloaded if there is too little room."""
    needed = sum(
        max(0, output.size - partial_file.reusable_bytes(outdir / output.name, output.key)) for output in outputs
    )
    message = atomic.describe_shortage(outdir, needed)
    if not message:
        return
    cache, stale = partial_file.stale_bytes(outdir / "any", {output.key for output in outputs}) or (None, 0)
    if stale:
        message += f"; interrupted runs left {stale} bytes in {cache}, remove it if you will not resume them"
    raise OSError(errno.ENOSPC, message, str(outdir))


def _blob_tasks(
    targets: Sequence[_Target], context: FetchContext, present: Mapping[Digest, FileSlice]
) -> list[BlobTask]:
    """Collect the distinct blobs; `present` has those that seem to be in the package.

    What fills the most bytes comes first: then the last to end is small, and what all archives need is here early.
    """
    slices: dict[Digest, list[FileSlice]] = {}
    first: dict[Digest, tuple[Descriptor, ArchiveJob]] = {}
    for job, target in targets:
        blobs = {blob.digest: blob for blob in job.image.blobs}
        for member in job.layout.blobs():
            slices.setdefault(member.digest, []).append(target.at(member.offset))
            blob, other = first.setdefault(member.digest, (blobs[member.digest], job))
            if blob.size != member.size:
                raise VerificationError(
                    f"{job.reference}: blob {blob.digest}: its manifest says {member.size} bytes, that of "
                    f"{other.reference} says {blob.size}; one of them is wrong"
                )
    tasks = [
        BlobTask(
            blob=blob,
            is_manifest=digest in {job.image.manifest.digest, *(index.digest for index in job.image.indexes)},
            reference=job.reference,
            source=context.open_source(job.resolved.location),
            slices=tuple(slices[digest]),
            content=job.pinned.documents.get(digest),
            old=present.get(digest),
        )
        for digest, (blob, job) in first.items()
    ]
    return sorted(tasks, key=lambda task: (-task.blob.size * len(task.slices), task.blob.digest))


def _check_chains(targets: Sequence[_Target]) -> None:
    """Check that the documents which were written lead from each reference to its image.

    A locked run takes the descriptors from the lock, which may be wrong.
    """
    problems = []
    for job, target in targets:
        try:
            chain.check(job.claim, find.document_reader(target, job.layout))
        except ValueError as error:
            problems.append(f"{job.reference} ({job.arch}): {error}; run the prefetch without 'locked'")
    if problems:
        raise VerificationError(*problems)


def _compare(jobs: Iterable[ArchiveJob], written: Mapping[str, ArchiveFile]) -> None:
    problems = [
        f"{job.name}: got sha256 {written[job.name].sha256} of {written[job.name].size} bytes from what is pinned, but "
        f"the lock says {job.locked.sha256} of {job.locked.size}; run the prefetch without 'locked'"
        for job in jobs
        if job.locked and job.locked != written[job.name]
    ]
    if problems:
        raise VerificationError(*problems)


def _prefixes(layout: Layout) -> Iterator[bytes]:
    """Yield a hash of what the archive holds up to the end of each member."""
    key = b""
    for member in layout.members:
        key = hashlib.sha256(key + f"{member.name} {member.size} {member.digest}".encode()).digest()
        yield key


class _Hashing:
    """The SHA-256 of archives, computed in threads that follow the blobs while they are written.

    A prefix that several archives have in common is read once. Archives of images on one base begin with its layers, so
    that is most of what they hold.
    """

    def __init__(self, targets: Sequence[_Target]) -> None:
        self._targets = targets
        prefixes = Counter(key for job, _ in targets for key in _prefixes(job.layout))
        self._shared: dict[bytes, Future[hashlib._Hash] | None] = {
            key: None for key, count in prefixes.items() if count > 1
        }
        self._written: dict[FileSlice, int] = {}
        self._is_restarted = False
        self._is_stopped = False
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(_HASH_THREADS)

    def __enter__(self) -> "_Hashing":
        self._sums = [self._pool.submit(self._hash, job.layout, target) for job, target in self._targets]
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._pool.shutdown()

    def written(self, target: FileSlice, count: int) -> None:
        """Let the threads read up to there; see `download.BlobObserver`."""
        with self._changed:
            self._written[target] = count
            self._changed.notify_all()

    def restarted(self) -> None:
        """Hash everything again at the end: some bytes that were hashed may have been replaced."""
        self._is_restarted = True

    def result(self) -> dict[str, ArchiveFile]:
        """Return the archives by name, once all blobs are written."""
        sums = [task.result() for task in self._sums]
        if self._is_restarted:
            sums = [target.sha256(job.layout.size) for job, target in self._targets]
        return {
            job.name: ArchiveFile(name=job.name, size=job.layout.size, sha256=sha256)
            for (job, _), sha256 in zip(self._targets, sums, strict=True)
        }

    def _hash(self, layout: Layout, target: FileSlice) -> str:
        hasher = hashlib.sha256()
        for key, member in zip(_prefixes(layout), layout.members, strict=True):
            if key not in self._shared:
                hasher = self._extended(hasher, target, self._ranges(target, member))
                continue
            # The first archive that gets here computes the prefix, and the others wait for its result.
            with self._changed:
                pending = self._shared[key]
                state = self._shared[key] = pending or Future()
            if not pending:
                try:
                    state.set_result(self._extended(hasher, target, self._ranges(target, member)))
                except BaseException as error:
                    state.set_exception(error)
            hasher = state.result()
        return self._extended(hasher, target, [(layout.members[-1].end, layout.size)]).hexdigest()

    @staticmethod
    def _extended(hasher: "hashlib._Hash", target: FileSlice, ranges: Iterable[tuple[int, int]]) -> "hashlib._Hash":
        extended = hasher.copy()
        for start, stop in ranges:
            for chunk in target.chunks(start, stop):
                extended.update(chunk)
        return extended

    def _ranges(self, target: FileSlice, member: Member) -> Iterator[tuple[int, int]]:
        """Yield the ranges of a member as they are written; fewer once the run has failed."""
        start, blob_end = member.start, member.offset + member.size if member.content is None else member.start
        blob = target.at(member.offset)
        while start < member.end and not self._is_stopped:
            stop = member.end
            if start < blob_end:
                stop = min(member.offset + self._wait_for_more(blob, start - member.offset), start + _STRIDE)
            yield start, stop
            start = stop

    def _wait_for_more(self, blob: FileSlice, count: int) -> int:
        """Wait until more than `count` bytes of a blob are written, or the run has failed; return how many are."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._written.get(blob, -1) > count)
            return self._written.get(blob, 0)
