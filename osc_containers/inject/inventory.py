"""What is embedded in an image, for its SBOM: from the lock, and from the documents of the images in the package."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack

from osc_containers.archive.blobs import PackageBlobs
from osc_containers.evidence import sbom
from osc_containers.evidence.sbom import Component
from osc_containers.lock.lockfile import Lock
from osc_containers.obs.package import Package
from osc_containers.oci.reference import Reference


def components(package: Package, lock: Lock, images: Collection[tuple[Reference, str]]) -> tuple[Component, ...]:
    """Return the images of a lock, by references and architectures, with the labels of their configurations.

    An image whose configuration is not in the package has no labels.
    """
    with ExitStack() as stack:
        return tuple(_components(PackageBlobs(package, lock, stack), lock, images))


def _components(blobs: PackageBlobs, lock: Lock, images: Collection[tuple[Reference, str]]) -> Iterator[Component]:
    for reference, arch, locked in lock.images():
        claim = lock.claim_for(reference, arch) if (reference, arch) in images else None
        if claim:
            config = blobs.document(claim, claim.image.config)
            yield Component(
                reference=reference,
                arch=arch,
                digest=claim.digest,
                image=claim.image,
                created=claim.created,
                labels=sbom.labels_of(config) if config else {},
                signatures=locked.signatures,
            )
