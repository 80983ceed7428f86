"""What a prefetch has to do: one job for each image that the package must have, and the files that hold the images."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from osc_containers.archive.bundle import Bundle
from osc_containers.archive.layout import Layout, has_parts, layout_of
from osc_containers.formats import cpio
from osc_containers.fs.ranges import FileSlice
from osc_containers.lock import archive_names
from osc_containers.lock.lockfile import Lock, LockedImage, LockedReference
from osc_containers.oci.chain import Claim
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.pin import PinnedImage, ResolvedReference

Frame: TypeAlias = Iterable[tuple[int, bytes]]
"""Pairs of an offset and the bytes that go there."""


class ImageJob(NamedTuple):
    """One image to provide; `name` is that of its archive, if the package gets archives."""

    resolved: ResolvedReference
    arch: str
    name: str

    @property
    def reference(self) -> Reference:
        """What the image is called."""
        return self.resolved.reference

    @property
    def pinned(self) -> PinnedImage:
        """The image, and the documents of it that are in memory."""
        return self.resolved.images[self.arch]

    @property
    def image(self) -> Image:
        """The descriptors of the image."""
        return self.pinned.image

    @property
    def claim(self) -> Claim:
        """What the resolution claims of the image."""
        return Claim(
            self.reference,
            self.resolved.digest,
            self.resolved.media_type,
            self.arch,
            self.image,
            self.pinned.created,
        )

    @property
    def archive(self) -> Layout:
        """The layout of the archive of the image."""
        return layout_of(self.claim)


def plan(resolved: Sequence[ResolvedReference], among: Iterable[Reference]) -> list[ImageJob]:
    """Return a job for each image of each reference.

    `among` has the other references of the package. They have a say in how archives are named: two references whose
    names would be equal both get a longer one.
    """
    names = archive_names.flatten([*among, *(each.reference for each in resolved)])
    return [
        ImageJob(resolved=each, arch=arch, name=archive_names.archive(names[each.reference], arch))
        for each in resolved
        for arch in each.images
    ]


def jobs_of(lock: Lock) -> list[ImageJob]:
    """Return a job for each image of a lock, without its source."""
    names = lock.archive_names()
    jobs = []
    for reference, entry in lock.references.items():
        resolved = ResolvedReference(
            reference=reference,
            location="",
            digest=entry.digest,
            media_type=entry.media_type,
            images={arch: PinnedImage.from_lock(locked) for arch, locked in entry.images.items()},
        )
        jobs += [ImageJob(resolved=resolved, arch=arch, name=names[reference, arch]) for arch in entry.images]
    return jobs


def lock_of(jobs: Iterable[ImageJob]) -> Lock:
    """Return the lock of these jobs."""
    references: dict[Reference, LockedReference] = {}
    for job in jobs:
        reference = references.setdefault(
            job.reference,
            LockedReference(digest=job.resolved.digest, media_type=job.resolved.media_type, images={}),
        )
        pinned = job.pinned
        locked_image = LockedImage(image=job.image, created=pinned.created, signatures=pinned.signatures)
        references[job.reference] = reference._replace(images={**reference.images, job.arch: locked_image})
    return Lock(references=references)


class Slot(NamedTuple):
    """Where the blob `digest` of `size` bytes goes in a file."""

    offset: int
    size: int
    digest: Digest


class OutputFile(NamedTuple):
    """A file of `size` bytes: blobs in their slots, with a frame of known bytes around them."""

    name: str
    size: int
    slots: Sequence[Slot]
    frame: Callable[[], Frame] = lambda: ()

    @property
    def key(self) -> str:
        """A hash of what the file will hold: equal keys mean equal bytes."""
        lines = [f"{self.name} {self.size}", *(f"{slot.offset} {slot.digest}" for slot in self.slots)]
        # Equal blobs do not make equal files: an archive has the reference of its image between them.
        lines += [f"{offset} {hashlib.sha256(content).hexdigest()}" for offset, content in self.frame()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def matches(self, content: FileSlice) -> bool:
        """Return whether a file of this size has exactly this content; every byte is read."""
        return has_parts(content, self.frame()) and all(
            content.at(slot.offset).hash(slot.digest.algorithm, slot.size) == slot.digest.hex for slot in self.slots
        )


def archive_files(jobs: Iterable[ImageJob]) -> tuple[OutputFile, ...]:
    """Return the files of a package in which each image is an archive."""
    files = []
    for job in jobs:
        layout = job.archive
        files.append(OutputFile(name=job.name, size=layout.size, slots=_slots(layout), frame=layout.frame))
    return tuple(files)


def blob_files(jobs: Iterable[ImageJob]) -> tuple[OutputFile, ...]:
    """Return the files of a package in which each blob is a file, shared by all images that have it."""
    blobs = {blob.digest: blob for job in jobs for blob in job.image.blobs}
    return tuple(
        OutputFile(
            name=archive_names.blob(digest),
            size=blob.size,
            slots=[Slot(offset=0, size=blob.size, digest=digest)],
        )
        for digest, blob in blobs.items()
    )


def _slots(layout: Layout, start: int = 0) -> list[Slot]:
    """Return the slots of an archive that begins at `start`."""
    return [Slot(offset=start + each.offset, size=each.size, digest=each.digest) for each in layout.blobs()]


def bundle_file(pack: Callable[[Lock], Bundle], jobs: Sequence[ImageJob]) -> tuple[OutputFile, ...]:
    """Return the one file of a package whose images are in a cpio archive, with the overlay of the image around them.

    `pack` lays that file out for a lock.
    """
    bundle = pack(lock_of(jobs))
    slots = [Slot(*each) for each in bundle.blobs()]
    return (OutputFile(name=cpio.FILE_NAME, size=bundle.size, slots=slots, frame=bundle.frame),)
