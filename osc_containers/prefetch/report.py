"""What a prefetch says at its end: one line for each image."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence

from osc_containers.formats import human
from osc_containers.lock.lockfile import Lock, LockedImage
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.plan import ImageJob, OutputFile

logger = logging.getLogger(__name__)


def report(
    old: Lock, new: Lock, jobs: Sequence[ImageJob], written: Sequence[OutputFile], access: Mapping[Reference, str]
) -> None:
    """Report each image of `jobs`, which `new` locks; `written` has the files that the package did not have.

    `access` says of some that they may be private: the package must not get them unnoticed.
    """
    archives = {job.name for job in jobs}
    names = {file.name for file in written}
    # In a file that is no archive of one image, a blob may be anybody's.
    blobs = {slot.digest for file in written if file.name not in archives for slot in file.slots}
    for job in jobs:
        is_written = job.name in names or not blobs.isdisjoint(blob.digest for blob in job.image.blobs)
        facts = list(_facts(old, new, job, is_written=is_written))
        if access.get(job.reference):
            facts.append(access[job.reference])
        logger.info("%s (%s): %s", job.reference, job.arch, ", ".join(facts))


def _facts(old: Lock, new: Lock, job: ImageJob, *, is_written: bool) -> Iterator[str]:
    before, after = old.image_for(job.reference, job.arch), new.image_for(job.reference, job.arch)
    digest = job.image.manifest.digest
    if before is None or after is None:
        yield f"pinned to {_short(digest)}"
        yield human.size(sum(blob.size for blob in job.image.blobs))
        return
    old_digest, new_digest = (lock.references[job.reference].digest for lock in (old, new))
    if before.image.manifest.digest != digest:
        yield f"moved from {_short(before.image.manifest.digest)} to {_short(digest)}"
    elif old_digest != new_digest:
        yield f"the index moved from {_short(old_digest)} to {_short(new_digest)}"
        yield f"the image for {job.arch} is still {_short(digest)}"
    elif corrections := list(_differences(before, after)):
        yield f"still {_short(digest)}"
        yield f"the lock had another {' and '.join(corrections)}"
    elif is_written:
        yield f"fetched again, {_short(digest)}"
    else:
        yield f"unchanged, {_short(digest)}"


def _differences(before: LockedImage, after: LockedImage) -> Iterator[str]:
    """Yield what differs between two entries of the lock for the same manifest: one of them is wrong."""
    fields: Collection[tuple[str, object, object]] = (
        ("size or type of the manifest", before.image.manifest, after.image.manifest),
        ("config", before.image.config, after.image.config),
        ("list of layers", before.image.layers, after.image.layers),
        ("list of indexes", before.image.indexes, after.image.indexes),
        ("creation date", before.created, after.created),
        ("start", before.image.starts_at_manifest, after.image.starts_at_manifest),
    )
    for name, old, new in fields:
        if old != new:
            yield name


def _short(digest: Digest) -> str:
    return f"{digest.algorithm}:{digest.short}"
