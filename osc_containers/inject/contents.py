"""What is injected: the containers of an image, and the open files that their blobs are in."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from osc_containers.archive import verify
from osc_containers.archive.blobs import PackageBlobs
from osc_containers.archive.layout import layout_of
from osc_containers.errors import LockError, VerificationError
from osc_containers.fs import atomic
from osc_containers.fs.ranges import FileSlice
from osc_containers.inject import overlay, units
from osc_containers.inject.image_file import ArchiveFile, BlobFile, TextFile
from osc_containers.inject.overlay import Placement
from osc_containers.inject.store.build import OpenBlob
from osc_containers.inject.store.selection import select
from osc_containers.inject.store.stores import StoredContainer
from osc_containers.kiwi.backend import STORE_BACKEND
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.lock.lockfile import EMPTY
from osc_containers.obs import engines
from osc_containers.obs.engines import Choice
from osc_containers.obs.package import Package
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor

logger = logging.getLogger(__name__)

_BLOCK = 4096
"""Bytes of a block of the usual file systems: each file takes whole blocks."""


class Contents(NamedTuple):
    """Containers, and the blobs that they need. Files are opened once, so that what was verified is what is written.

    `stored` are the containers that go into a store.
    """

    blobs: PackageBlobs
    placements: tuple[Placement, ...]
    stored: frozenset[Container] = frozenset()

    def verify(self) -> None:
        """Verify the blobs.

        :raises VerificationError: one is missing or does not match the lock.
        """
        # Several containers can have the same image, which then is verified only once.
        images = {(each.claim.reference, each.claim.arch): None for each in self.placements}
        problems = verify.check_images(self.blobs, images)
        if problems:
            raise VerificationError(*problems)

    def stored_by(self, groups: Mapping[str, Sequence[Placement]]) -> Mapping[str, list[StoredContainer]]:
        """Return the containers for the store of each overlay directory that has one."""
        stored = {
            name: [
                StoredContainer(
                    reference=each.claim.reference, image=each.claim.image, unit=units.unit_name(STORE_BACKEND, each.id)
                )
                for each in members
                if each.container in self.stored
            ]
            for name, members in groups.items()
        }
        return {name: containers for name, containers in stored.items() if containers}

    def open_blobs(self) -> OpenBlob:
        """Return a function that returns the content of a blob of any of the containers."""
        claims = {blob.digest: each.claim for each in self.placements for blob in each.claim.image.blobs}

        def open_blob(blob: Descriptor) -> FileSlice:
            found = self.blobs.find(claims[blob.digest], blob)
            if not found:  # it was there when it was verified
                raise VerificationError(f"{blob.digest}: missing; run the prefetch again and commit the result")
            return found.content

        return open_blob

    @property
    def others(self) -> "Contents":
        """The containers that are written as archives or loaded."""
        others = (each for each in self.placements if not each.targets or each.container not in self.stored)
        return self._replace(placements=tuple(others))

    @property
    def copied_bytes(self) -> int:
        """The number of bytes that a tree without links to the package needs, in whole blocks."""
        placements = self.others.placements
        claims = {each.archive: each.claim for each in placements}
        sizes: list[int] = []
        blobs: dict[Digest, int] = {}
        for file in overlay.list_files(placements):
            if isinstance(file, ArchiveFile):
                sizes.append(layout_of(claims[file.name]).size)
            elif isinstance(file, BlobFile):
                blobs[file.blob.digest] = file.blob.size
            elif isinstance(file, TextFile):
                sizes.append(len(file.text))
        # The two minus signs round up. A blob counts once, however many files it is: they are hard links.
        return sum(-(-size // _BLOCK) * _BLOCK for size in (*sizes, *blobs.values()))


def open_contents(
    package: Package,
    description: Description,
    containers: Sequence[Container],
    arch: str,
    stack: ExitStack,
    store: Sequence[str],
    choices: Sequence[Choice],
) -> Contents:
    """Return containers with their blobs, whose files stay open in `stack`; `store` has patterns for the store.

    :raises LockError: the lock is missing, broken or does not cover the containers.
    :raises DescriptionError: as `obs.engines.select` and `store.selection.select`.
    """
    targets = engines.select(containers, choices)
    for choice in engines.unused(containers, choices):
        logger.warning("%s matches no container of this image", choice)
    stored = select(containers, store, targets)
    if not containers:
        return Contents(PackageBlobs(package, EMPTY, stack), ())
    lock = package.require_lock()
    package.refuse_pointers()
    images = [(container.reference, arch, f"{container.file}:{container.line}") for container in containers]
    problems = verify.check_coverage(images, lock)
    if problems:
        raise LockError(*problems)
    paths = overlay.assign_paths(description.of_architecture(arch))
    placements = overlay.place(containers, paths, arch, lock, choices)
    for each, reason in overlay.list_relocations({each.container: each.path for each in placements}):
        logger.warning("%s:%d: %s: stored at %s, because %s", each.file, each.line, each.reference, paths[each], reason)
    blobs = PackageBlobs(package, lock, stack)
    # A file that was opened stays open until everything is written.
    atomic.allow_open(len(blobs.files))
    return Contents(blobs, placements, stored)
