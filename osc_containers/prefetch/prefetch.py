"""The network half: pin the images that a package requests, download what it lacks, write archives and lock.

A default run follows the tags and reports which of them moved. A locked run downloads exactly what the lock says.
"""

import logging
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from osc_containers.archive.blobs import in_files, read_document
from osc_containers.errors import DescriptionError, Error, LockError
from osc_containers.formats import cpio
from osc_containers.fs import atomic, lfs_pointer, ranges
from osc_containers.fs.ranges import FileSlice
from osc_containers.fs.rooted_tree import Tree
from osc_containers.fs.source_file import open_source
from osc_containers.lock import archive_names, lockfile
from osc_containers.lock.lockfile import Lock, LockedReference
from osc_containers.obs import service_file
from osc_containers.obs.package import Package
from osc_containers.obs.selection import ImageRequest
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.quirk import MAGIC_SIZE
from osc_containers.oci.reference import Reference
from osc_containers.prefetch import assemble as assembly
from osc_containers.prefetch import report, verified_files
from osc_containers.prefetch.download import blob_lock, partial_file
from osc_containers.prefetch.loading import Loading
from osc_containers.prefetch.pin import Checked, ResolvedReference, resolve, resolved_from_lock, trusted_entries
from osc_containers.prefetch.plan import ImageJob, OutputFile, archive_files, blob_files, jobs_of, lock_of, plan
from osc_containers.sources.interface import FetchContext

logger = logging.getLogger(__name__)

CheckSignatures: TypeAlias = Callable[[Sequence[ResolvedReference], Sequence[ImageRequest]], Checked]
"""Judges the images by signature policies; raises an error if one of them is not accepted."""
_Result = TypeVar("_Result")

_THREADS = 2
"""Files that are verified at the same time."""


def prefetch(
    package: Package,
    requests: Sequence[ImageRequest],
    context: FetchContext,
    *,
    outdir: Path,
    locked: bool,
    files_of: Callable[[Sequence[ImageJob]], Sequence[OutputFile]] = archive_files,
    is_bundle: bool = False,
    all_requests: Sequence[ImageRequest] = (),
    check: CheckSignatures | None = None,
) -> Lock:
    """Bring archives and lock of a package up to date, and return the lock.

    New files go to `outdir`, which may be the package itself; none is written if nothing changed, or if anything
    failed. At the end, files that only the old lock named are removed from the package. `all_requests` is everything
    that the package requests: what is not in `requests` stays locked as it is. A reference of `requests` that is also
    kept for other architectures moves for all of them. `files_of` returns the files that hold the images; with
    `is_bundle`, that is one file for all of them. `check` judges the signatures before anything large is downloaded.

    :raises DescriptionError: the bundle would lose images that the package requests.
    :raises LockError: the lock is broken or, in a locked run, does not cover the requests.
    :raises RegistryError: a source failed, or does not have the image.
    :raises VerificationError: a source sent other bytes than it should.
    :raises Error: a name in `outdir` is taken.
    """
    # This is cheap, so it comes before anything is requested or read. A run that changes nothing need not be able to.
    atomic.require_directory(outdir)
    with package.hold():
        package.refuse_pointers()
        current = package.read_lock()
        old = current or lockfile.EMPTY
        if locked and not current:
            raise LockError(f"{lockfile.FILE_NAME}: not there, but this run is locked; run it once without 'locked'")
        kept = _unrequested(package, requests, all_requests, old, is_bundle=is_bundle)
        if locked:
            resolved = resolved_from_lock(requests, old)
        else:
            requests = [_with_kept_architectures(request, kept.get(request.reference)) for request in requests]
            resolved = resolve(requests, context.open_source, trusted_entries(package, old, requests))
        keys = old.keys
        if check:
            checked = check(resolved, requests)
            if not locked:
                resolved, keys = checked.apply(resolved), {**old.keys, **checked.keys}
        # Names of archives depend on all references of the package. A locked run leaves the lock as it is, so it must
        # come to the names that belong to all of its entries.
        jobs = plan(resolved, among=old.references if locked else kept)
        rest = Lock(references=old.references if locked else kept)
        all_jobs = [*jobs, *(() if is_bundle else _to_convert(package, rest, jobs, all_requests, files_of))]
        files = files_of(all_jobs)
        _check_names(outdir, {lockfile.FILE_NAME, *(file.name for file in files)})
        with ExitStack() as last:
            loading = Loading((*requests, *all_requests), service_file.engine_choices(package.service_entries))
            with _provide(package, files, all_jobs, context, outdir, loading) as written:
                pinned = old if locked else lock_of(jobs)
                new = Lock(references={**kept, **pinned.references}, keys=keys)
                # A locked run keeps every byte of the lock, also where we would write it in another way.
                source = package.find(lockfile.FILE_NAME) if locked else None
                text = source.read_bytes() if source else lockfile.encode(new)
                own = package.directory / lockfile.FILE_NAME
                if not own.is_file() or own.read_bytes() != text:
                    with atomic.naming(outdir / lockfile.FILE_NAME):
                        descriptor = last.enter_context(atomic.new_file(outdir / lockfile.FILE_NAME))
                        ranges.write_all(descriptor, text, 0)
                        atomic.flush(descriptor)
            # The lock gets its name last: after the archives that it names, and after the removal of those that only
            # the old lock names. A run that is killed in between leaves nothing behind that the next one cannot find.
            _prune(package.directory, old, new, {file.name for file in files_of(jobs_of(new))})
        access = {job.reference: context.describe_access(job.resolved.location, job.reference) for job in jobs}
        report.report(old, new, jobs, written, access)
    return new


@contextmanager
def _provide(
    package: Package,
    files: Sequence[OutputFile],
    jobs: Sequence[ImageJob],
    context: FetchContext,
    outdir: Path,
    loading: Loading,
) -> Iterator[Sequence[OutputFile]]:
    """Have every file when the block begins, and give it its final name in `outdir` when the block ends well.

    What is already in the package, or among the results of an earlier run, is used; what is not is yielded.

    :raises DescriptionError: no engine that the description names can load an image.
    :raises RegistryError: a blob could not be downloaded.
    :raises VerificationError: a blob does not match its digest.
    :raises LockError: the documents do not prove what the lock says.
    """
    # Called for its check only: manifests that differ in the size of a blob are an error before anything is read.
    assembly.unique_blobs(jobs)
    package_files = package.image_files()
    # To verify the files that are there can take minutes.
    if any(file.name not in package_files for file in files):
        atomic.require_writable(outdir)
    with ThreadPoolExecutor(_THREADS) as pool:
        paths = pool.map(partial(_find, package_files), files)
    present = {file.name: path for file, path in zip(files, paths, strict=True) if path}
    missing = [file for file in files if file.name not in present]
    owner = partial_file.owner_of(package.directory)
    partial_file.tidy(owner, {file.key for file in missing})
    blob_lock.tidy()
    places = {slot.digest: (present[file.name], slot) for file in files if file.name in present for slot in file.slots}
    # Filled when the new files are there. Until then, only what the package has can be read.
    slices: dict[Digest, FileSlice] = {}

    def with_content(digest: Digest, use: Callable[[FileSlice], _Result]) -> _Result:
        if digest in slices:
            return use(slices[digest])
        path, slot = places[digest]
        with path.open("rb") as content:
            return use(FileSlice(content.fileno(), slot.offset))

    def read(descriptor: Descriptor) -> bytes | None:
        return with_content(descriptor.digest, lambda content: read_document(content, descriptor))

    def read_start(layer: Descriptor) -> bytes:
        return with_content(layer.digest, lambda content: content.read(0, min(layer.size, MAGIC_SIZE)))

    def manifest(job: ImageJob) -> bytes:
        digest = job.image.manifest.digest
        if digest in places or digest in slices:
            return read(job.image.manifest) or b""
        # Nothing was fetched yet, and in a run without 'locked' it was when the reference was resolved.
        document = job.pinned.documents.get(digest) or stored.get(digest)
        return document or context.open_source(job.resolved.location).manifest(job.reference, digest).raw

    def config(job: ImageJob) -> bytes:
        digest = job.image.config.digest
        if digest in places or digest in slices:
            return read(job.image.config) or b""
        return job.pinned.documents.get(digest, b"")

    unplaced = [job for job in jobs if job.image.manifest.digest not in places]
    stored = _stored_manifests(package, unplaced) if unplaced else {}
    loading.check_documents(jobs, manifest, config)
    with ExitStack() as stack:
        if missing:
            old_files = package.image_paths()
            slices.update(stack.enter_context(assembly.assemble(missing, jobs, context, old_files, outdir, owner)))
        # Now all documents are there, so that no link remains unchecked.
        assembly.check_chains(jobs, read)
        loading.check_layers(jobs, manifest, config, read_start)
        yield missing
    for name, path in present.items():
        _link(path, package.directory / name, outdir)


def _stored_manifests(package: Package, jobs: Iterable[ImageJob]) -> Mapping[Digest, bytes]:
    """Return those manifests that are in files of the package, which may be incomplete."""
    manifests = {job.image.manifest.digest: job.image.manifest for job in jobs}
    with ExitStack() as stack:
        slices = in_files(package.image_paths(), stack, manifests.keys())
        contents = (
            (digest, read_document(slices[digest], each)) for digest, each in manifests.items() if digest in slices
        )
        return {digest: content for digest, content in contents if content is not None}


def _find(package_files: Mapping[str, Path], file: OutputFile) -> Path | None:
    """Return where the package has a file with exactly this content."""
    path = package_files.get(file.name)
    return path if path and verified_files.holds(path, file) else None


def _link(path: Path, own: Path, outdir: Path) -> None:
    """Give a file of an earlier run its name in `outdir`."""
    if path != own:
        with ExitStack() as stack:
            Tree(outdir.resolve()).link(f"/{own.name}", open_source(path, stack))


def _unrequested(
    package: Package,
    requests: Sequence[ImageRequest],
    all_requests: Sequence[ImageRequest],
    old: Lock,
    *,
    is_bundle: bool,
) -> Mapping[Reference, LockedReference]:
    """Return the entries of the lock that the package requests, but not this run."""
    images = _images(all_requests) - _images(requests)
    kept = {}
    for reference, entry in old.references.items():
        remaining = {arch: image for arch, image in entry.images.items() if (reference, arch) in images}
        if remaining:
            kept[reference] = entry._replace(images=remaining)
    if kept and (is_bundle or package.find(cpio.FILE_NAME)):
        names = ", ".join(f"{reference} for {' and '.join(entry.images)}" for reference, entry in kept.items())
        raise DescriptionError(
            f"{cpio.FILE_NAME}: holds what one run requests, and this run would lose {names}, which _service or the "
            "descriptions request, too; request everything in one run, or remove those requests"
        )
    return kept


def _to_convert(
    package: Package,
    lock: Lock,
    jobs: Iterable[ImageJob],
    all_requests: Iterable[ImageRequest],
    files_of: Callable[[Sequence[ImageJob]], Sequence[OutputFile]],
) -> Iterator[ImageJob]:
    """Yield jobs for the other images of a lock that the package has in another form than this run writes.

    Otherwise they would be lost, because the files of the other form are removed.
    """
    present = package.image_files()
    images = {(job.reference, job.arch) for job in jobs}
    locations = {request.reference: request.location for request in all_requests}
    for job in jobs_of(lock):
        if (job.reference, job.arch) in images:
            continue
        wanted = {file.name for file in files_of([job])}
        other = {file.name for file in (*archive_files([job]), *blob_files([job]))} - wanted
        if wanted - present.keys() and other & present.keys():
            # The blobs are copied from the package; the location is needed for one that is damaged there.
            location = locations.get(job.reference, f"docker://{job.reference}")
            yield job._replace(resolved=job.resolved._replace(location=location))


def _images(requests: Sequence[ImageRequest]) -> set[tuple[Reference, str]]:
    return {(request.reference, arch) for request in requests for arch in request.architectures}


def _with_kept_architectures(request: ImageRequest, kept: LockedReference | None) -> ImageRequest:
    """Extend a request to the architectures for which its reference is kept: a lock has one digest for all of them."""
    return request._replace(architectures=(*request.architectures, *kept.images)) if kept else request


def _check_names(outdir: Path, names: Iterable[str]) -> None:
    """Fail before anything is downloaded if a file cannot get its name; otherwise some would get theirs, some not."""
    problems = [
        f"{outdir / name}: got a directory or a special file, expected a file or nothing; remove it"
        for name in sorted(names)
        if _is_taken(outdir / name)
    ]
    pointers = [name for name in sorted(names) if lfs_pointer.is_pointer_file(outdir / name)]
    problems += [f"{outdir / name}: {lfs_pointer.problem(outdir)}" for name in pointers]
    if problems:
        raise Error(*problems)


def _is_taken(path: Path) -> bool:
    with suppress(OSError):
        mode = path.lstat().st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISLNK(mode)  # Files and links are replaced.
    return False


def _prune(directory: Path, old: Lock, new: Lock, needed: Collection[str]) -> None:
    """Remove the files that the new lock no longer needs: osc never removes what a service wrote.

    A lock that somebody else wrote may name any file, so the names are computed from its references, not read from it.
    """
    ours = {cpio.FILE_NAME, *old.archive_names().values(), *new.archive_names().values()}
    # Blobs are named by their content, which not even an old lock may name: a run may have been killed.
    ours |= {path.name for path in directory.glob(f"*-*{archive_names.BLOB_SUFFIX}") if _is_blob(path)}
    for name in sorted(ours - set(needed)):
        path = directory / name
        if path.is_file():
            path.unlink()
            logger.info("%s: removed, nothing requests it any more", name)


def _is_blob(path: Path) -> bool:
    digest = archive_names.digest_of_blob(path.name)
    # Results of a service that runs automatically have a prefix in front of this name, and osc removes them.
    return digest is not None and archive_names.blob(digest) == path.name
