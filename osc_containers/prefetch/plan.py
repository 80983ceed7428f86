"""What a prefetch has to do: one job for each archive that the package must have."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from osc_containers.archive.layout import Layout, lay_out
from osc_containers.lock import archive_names
from osc_containers.lock.lockfile import ArchiveFile, Lock, LockedImage, LockedReference
from osc_containers.oci.chain import Claim
from osc_containers.oci.image import Image
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.pin import PinnedImage, ResolvedReference


class ArchiveJob(NamedTuple):
    """One archive to provide, from the resolved reference to the file.

    `layout` has the offset of every byte in it. `locked` is the archive as the old lock describes it; None if the old
    lock has another image, or the archive under another name.
    """

    resolved: ResolvedReference
    arch: str
    name: str
    layout: Layout
    locked: ArchiveFile | None

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

    def locked_image(self, archive: ArchiveFile) -> LockedImage:
        """Return the entry of the lock for the image, with this archive."""
        return LockedImage(image=self.image, created=self.pinned.created, archive=archive)


def plan(resolved: Sequence[ResolvedReference], old: Lock, among: Iterable[Reference]) -> list[ArchiveJob]:
    """Return a job for each image of each reference.

    `among` has the other references of the package. They have a say in how archives are named: two references whose
    names would be equal both get a longer one.
    """
    names = archive_names.flatten([*among, *(each.reference for each in resolved)])
    jobs = []
    for each in resolved:
        for arch, pinned in each.images.items():
            entry = old.image_for(each.reference, arch)
            name = archive_names.archive(names[each.reference], arch)
            is_unchanged = entry is not None and entry.image == pinned.image and entry.archive.name == name
            jobs.append(
                ArchiveJob(
                    resolved=each,
                    arch=arch,
                    name=name,
                    layout=lay_out(pinned.image, each.reference),
                    locked=entry.archive if entry and is_unchanged else None,
                )
            )
    return jobs


def lock_of(jobs: Iterable[ArchiveJob], archives: Mapping[str, ArchiveFile]) -> Lock:
    """Return the lock of these jobs, with their archives by name."""
    references: dict[Reference, LockedReference] = {}
    for job in jobs:
        reference = references.setdefault(
            job.reference,
            LockedReference(digest=job.resolved.digest, media_type=job.resolved.media_type, images={}),
        )
        images = {**reference.images, job.arch: job.locked_image(archives[job.name])}
        references[job.reference] = reference._replace(images=images)
    return Lock(references=references)
