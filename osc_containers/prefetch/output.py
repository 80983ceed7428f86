"""The two forms in which a package gets its archives: a file for each, or all in one bundle (`inject` = `source`)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from osc_containers.archive import find
from osc_containers.archive.bundle import Bundle, is_bundle
from osc_containers.archive.find import ArchiveLocation
from osc_containers.errors import LockError
from osc_containers.formats import cpio
from osc_containers.fs.rooted_tree import Tree
from osc_containers.fs.source_file import open_source
from osc_containers.lock import lockfile
from osc_containers.lock.lockfile import ArchiveFile, Lock
from osc_containers.obs.package import Package
from osc_containers.prefetch import assemble, checksum_cache
from osc_containers.prefetch.assemble import OutputFile
from osc_containers.prefetch.plan import ArchiveJob, lock_of
from osc_containers.sources.interface import FetchContext

_HASH_THREADS = 2


class Output(Protocol):
    """A form in which archives are written."""

    is_bundle: bool

    def file_names(self, archives: Iterable[str]) -> set[str]:
        """Return the names of the files that hold these archives."""

    def provide(
        self, package: Package, jobs: Sequence[ArchiveJob], context: FetchContext, outdir: Path, *, strict: bool
    ) -> AbstractContextManager[Mapping[str, ArchiveFile]]:
        """Have every archive when the block begins, and give it its final name in `outdir` when the block ends well.

        What is already in the package, or among the results of an earlier run, is used. With `strict` an archive must
        come out exactly as the lock describes it.

        :raises LockError: with `strict`, the lock contradicts an archive.
        :raises RegistryError: a blob could not be downloaded.
        :raises VerificationError: a blob does not match its digest.
        """


class ArchiveFiles:
    """Each archive is a file of its own."""

    is_bundle = False

    def file_names(self, archives: Iterable[str]) -> set[str]:
        """See `Output`."""
        return set(archives)

    @contextmanager
    def provide(
        self, package: Package, jobs: Sequence[ArchiveJob], context: FetchContext, outdir: Path, *, strict: bool
    ) -> Iterator[Mapping[str, ArchiveFile]]:
        """See `Output`."""
        with ThreadPoolExecutor(_HASH_THREADS) as pool:
            tasks = [pool.submit(_find_locked, package, job) for job in jobs]
        present = {job.name: location for job, task in zip(jobs, tasks, strict=True) if (location := task.result())}
        contradicted = [job for job in jobs if job.name in present and not _matches_image(package, job)]
        if strict and contradicted:
            raise LockError(
                *(
                    f"{lockfile.FILE_NAME}: {job.reference} for {job.arch}: the documents in its archive do not lead "
                    "from the locked digest to the locked image; run the prefetch without 'locked'"
                    for job in contradicted
                )
            )
        for job in contradicted:
            del present[job.name]
        archives = {job.name: job.locked for job in jobs if job.locked and job.name in present}
        missing = [assemble.single(job) for job in jobs if job.name not in present]
        if missing:
            with assemble.assemble(missing, context, package.archives(), outdir, strict=strict) as written:
                yield {**archives, **written}
        else:
            yield archives
        for name, location in present.items():
            _link(location.path, package.directory / name, outdir)


class BundleFile:
    """All archives are in one cpio archive, with the overlay of the image around them.

    `pack` lays that file out for a lock.
    """

    is_bundle = True

    def __init__(self, pack: Callable[[Lock], Bundle]) -> None:
        self._pack = pack

    def file_names(self, archives: Iterable[str]) -> set[str]:
        """See `Output`."""
        return {cpio.FILE_NAME}

    @contextmanager
    def provide(
        self, package: Package, jobs: Sequence[ArchiveJob], context: FetchContext, outdir: Path, *, strict: bool
    ) -> Iterator[Mapping[str, ArchiveFile]]:
        """See `Output`; the bundle is written again if anything in it changed."""
        # Offsets in a bundle depend on sizes alone, so a placeholder serves where the SHA-256 is not known yet.
        draft = {
            job.name: job.locked or ArchiveFile(name=job.name, size=job.layout.size, sha256="0" * 64) for job in jobs
        }
        bundle = self._pack(lock_of(jobs, draft))
        path = package.find(cpio.FILE_NAME)
        if path and all(_matches_image(package, job) for job in jobs) and is_bundle(path, bundle, draft.values()):
            yield draft
            _link(path, package.directory / cpio.FILE_NAME, outdir)
            return
        output = OutputFile(
            name=cpio.FILE_NAME,
            size=bundle.layout.size,
            jobs=tuple((job, bundle.layout.contents[job.name]) for job in jobs),
            frame=lambda archives: self._pack(lock_of(jobs, archives)).frame(),
        )
        with assemble.assemble([output], context, package.archives(), outdir, strict=strict) as written:
            yield written


def _find_locked(package: Package, job: ArchiveJob) -> ArchiveLocation | None:
    """Return the archive that the lock describes, if it is there as a file of its own."""
    path = package.find(job.name) if job.locked else None
    if path is None or job.locked is None:
        return None
    location = ArchiveLocation(path=path, offset=0, size=path.stat().st_size)
    is_right = location.size == job.locked.size and checksum_cache.sha256_of(path) == job.locked.sha256
    return location if is_right else None


def _matches_image(package: Package, job: ArchiveJob) -> bool:
    """Tell whether the locked archive holds the image: a merge may have made a lock from two."""
    return job.locked is not None and find.matches_claim(package, job.claim, job.name)


def _link(path: Path, own: Path, outdir: Path) -> None:
    """Give a file of an earlier run its name in `outdir`."""
    if path != own:
        with ExitStack() as stack:
            Tree(outdir.resolve()).link(f"/{own.name}", open_source(path, stack))
