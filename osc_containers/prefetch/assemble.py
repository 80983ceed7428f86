"""Assemble files: every byte crosses the network once, is hashed once, and is written once to each file that has it.

A blob is hashed while it is downloaded. It is written straight to its slot in each file that needs it, or to one of
them where the file system lets the others share its blocks. A large blob comes in segments over several connections. A
file gets its name only when all of them are verified; what is verified of a run that fails is kept for the next one
(see `partial_file`).
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from osc_containers.archive import blobs
from osc_containers.archive.blobs import read_document
from osc_containers.errors import LockError, VerificationError
from osc_containers.fs import atomic, user_cache
from osc_containers.fs.ranges import FileSlice
from osc_containers.lock.lockfile import FILE_NAME
from osc_containers.oci import chain
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor
from osc_containers.prefetch.download import blob_lock, partial_file, queue
from osc_containers.prefetch.download.blob_download import BlobTask
from osc_containers.prefetch.plan import Frame, ImageJob, OutputFile
from osc_containers.sources.interface import FetchContext


@contextmanager
def assemble(
    outputs: Sequence[OutputFile],
    jobs: Sequence[ImageJob],
    context: FetchContext,
    package_files: Sequence[Path],
    outdir: Path,
    owner: str,
) -> Iterator[Mapping[Digest, FileSlice]]:
    """Write output files in `outdir`, and yield where the blobs are in them.

    Blobs that are in the files `package_files` are copied from there. The new files are complete when the block begins,
    and get their names when it ends well; if anything fails, none of them does.

    :raises LockError: the lock contradicts the documents that are there.
    :raises RegistryError: a blob could not be downloaded.
    :raises VerificationError: a blob does not match its digest.
    :raises OSError: `outdir` cannot be written, or has too little room.
    """
    atomic.require_writable(outdir)
    _check_space(outputs, outdir)
    # New files stay open for their blobs, and files of the package for what is copied from them.
    atomic.allow_open(len(outputs) + len(package_files))
    user_cache.note_if_unusable()
    with _naming(outdir), ExitStack() as new, ExitStack() as old:
        # This runs after the new files have got their names. Locks on blobs that were in them lead nowhere then.
        new.callback(blob_lock.tidy)
        files = [
            FileSlice(new.enter_context(partial_file.part(outdir / output.name, output.key, output.size, owner)), 0)
            for output in outputs
        ]
        slices: dict[Digest, list[FileSlice]] = {}
        for output, file in zip(outputs, files, strict=True):
            _write(file, output.frame())
            for slot in output.slots:
                slices.setdefault(slot.digest, []).append(file.at(slot.offset))
        present = blobs.in_files(package_files, old, slices)
        # This finds a wrong lock before anything is downloaded.
        check_chains(jobs, lambda each: read_document(present[each.digest], each) if each.digest in present else None)
        queue.receive(_blob_tasks(jobs, slices, context, present), context)
        # Errors of earlier writes show here, before any file gets its name.
        for file in files:
            atomic.flush(file.descriptor)
        yield {digest: targets[0] for digest, targets in slices.items()}


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


def _check_space(outputs: Sequence[OutputFile], outdir: Path) -> None:
    """Fail before anything is downloaded if there is too little room."""
    # Only the directory of this path matters. Old files do not count as free space: they are there until the new ones
    # are complete.
    reusable = partial_file.reusable_bytes(outdir / "any")
    needed = sum(max(0, output.size - reusable.get(output.key, 0)) for output in outputs)
    if atomic.describe_shortage(outdir, needed):
        partial_file.make_room(outdir / "any", {output.key for output in outputs}, needed)
    if message := atomic.describe_shortage(outdir, needed):
        raise OSError(errno.ENOSPC, message, str(outdir))


def _blob_tasks(
    jobs: Sequence[ImageJob],
    slices: Mapping[Digest, Sequence[FileSlice]],
    context: FetchContext,
    present: Mapping[Digest, FileSlice],
) -> list[BlobTask]:
    """Return a task for each blob of `slices`; `present` has those that seem to be in the package.

    What fills the most bytes comes first: then the last to end is small, and what all files need is here early.
    """
    tasks = []
    for blob, job in unique_blobs(jobs).values():
        if blob.digest not in slices:
            continue
        old = present.get(blob.digest)
        content = job.pinned.documents.get(blob.digest)
        is_manifest = blob in (job.image.manifest, *job.image.indexes)
        if is_manifest and old and content is None:
            # If it is damaged there, this is None, and it is requested.
            content = read_document(old, blob)
        tasks.append(
            BlobTask(
                blob=blob,
                is_manifest=is_manifest,
                reference=job.reference,
                source=context.open_source(job.resolved.location),
                slices=tuple(slices[blob.digest]),
                content=content,
                old=old,
            )
        )
    return sorted(tasks, key=lambda task: (-task.blob.size * len(task.slices), task.blob.digest))


def unique_blobs(jobs: Iterable[ImageJob]) -> Mapping[Digest, tuple[Descriptor, ImageJob]]:
    """Return each blob of the jobs once, with the first job that needs it.

    :raises VerificationError: manifests differ in the size of a blob.
    """
    blobs: dict[Digest, tuple[Descriptor, ImageJob]] = {}
    for job in jobs:
        for blob in job.image.blobs:
            first, other = blobs.setdefault(blob.digest, (blob, job))
            if first.size != blob.size:
                raise VerificationError(
                    f"{job.reference}: blob {blob.digest}: its manifest says {blob.size} bytes, that of "
                    f"{other.reference} says {first.size}; one of them is wrong"
                )
    return blobs


def check_chains(jobs: Iterable[ImageJob], read: Callable[[Descriptor], bytes | None]) -> None:
    """Check that the documents of each image lead from its reference to its layers.

    A locked run takes the descriptors from the lock, which may be wrong. `read` returns a document, or None if it is
    not there yet: then the rest of that image is not checked.

    :raises LockError: they do not.
    """

    def require(descriptor: Descriptor) -> bytes:
        document = read(descriptor)
        if document is None:
            raise FileNotFoundError
        return document

    problems = []
    for job in jobs:
        try:
            # This leaves the check of one image at its first missing document.
            with suppress(FileNotFoundError):
                chain.check(job.claim, require)
        except ValueError as error:
            problems.append(f"{FILE_NAME}: {job.reference} for {job.arch}: {error}; run the prefetch without 'locked'")
    if problems:
        raise LockError(*problems)
