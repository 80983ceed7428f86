"""What is embedded in an image, for its SBOM: from the lock, and from the documents of the images in the package."""

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack

from osc_containers.archive import verify
from osc_containers.archive.blobs import PackageBlobs
from osc_containers.errors import VerificationError
from osc_containers.evidence.sbom import component, document
from osc_containers.evidence.sbom.component import Component, SoftwarePackage
from osc_containers.fs.ranges import FileSlice
from osc_containers.inject.image_file import TextFile
from osc_containers.inject.overlay import Placement
from osc_containers.lock.lockfile import Lock
from osc_containers.obs.package import Package
from osc_containers.oci.chain import Claim
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference

logger = logging.getLogger(__name__)

ReadPackages = Callable[
    [Image, bytes, Callable[[Descriptor], FileSlice]], tuple[tuple[SoftwarePackage, ...], tuple[str, ...]]
]
"""What `packages.installed.read` does."""

DOCUMENTS = "/usr/share/kiwi_containers"
"""The directory for lists of containers in an image."""


def components(
    package: Package,
    lock: Lock,
    images: Collection[tuple[Reference, str]],
    read_packages: ReadPackages | None = None,
) -> tuple[Component, ...]:
    """Return the images of a lock, by references and architectures, with the labels of their configurations.

    An image whose configuration is not in the package has no labels. `read_packages` returns the packages that
    are installed in each; without it, they are not looked for.

    :raises VerificationError: packages are wanted, and an image is not in the package, or does not match the lock.
    """
    with ExitStack() as stack:
        blobs = PackageBlobs(package, lock, stack)
        found = tuple(_components(blobs, lock, images))
        if read_packages is None:
            return found
        problems = verify.check_images(blobs, [(each.reference, each.arch) for each in found])
        if problems:
            raise VerificationError(*problems)
        return tuple(_with_packages(blobs, lock, each, read_packages) for each in found)


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
                labels=component.labels_of(config) if config else {},
                signatures=locked.signatures,
            )


def _with_packages(blobs: PackageBlobs, lock: Lock, each: Component, read_packages: ReadPackages) -> Component:
    claim = lock.claim_for(each.reference, each.arch)
    config = blobs.document(claim, each.image.config) if claim else None
    if claim is None or config is None:  # it was there when it was verified
        raise VerificationError(f"{each.key}: missing; run the prefetch again")

    def open_blob(blob: Descriptor) -> FileSlice:
        found = blobs.find(claim, blob)
        if found is None:
            raise VerificationError(f"{each.key}: {blob.digest} is missing; run the prefetch again")
        return found.content

    packages, gaps = read_packages(each.image, config, open_blob)
    for gap in gaps:
        logger.warning("%s: not all packages can be listed; %s", each.key, gap)
    return each._replace(packages=packages, gaps=gaps)


def list_documents(placements: Sequence[Placement]) -> tuple[TextFile, ...]:
    """Return the list of all containers of one overlay directory, however they get into the image.

    What is in the containers is not in it: scanners would take that for the host's. Overlay directories of profiles can
    end up in one image, so each has the name of its profile.
    """
    if not placements:
        return ()
    found = {(each.claim.reference, each.claim.arch): _component(each.claim) for each in placements}
    text = document.render(component.inventory("containers", "", found.values()), "cyclonedx").decode()
    # All containers in the directory of a profile have its name. Two directories have the same names in common only if
    # they have the same containers, and then the documents are the same, too.
    common = frozenset.intersection(*(frozenset(each.container.profile_names) for each in placements))
    # Names of profiles are free text, and many of them together can be too long for a file name. A plus is between and
    # before names only, so that no other profiles have the same file: the name `A-B` is usual.
    profiles = "+".join(sorted(common))
    if len(profiles) > 200 or not all(re.fullmatch("[A-Za-z0-9_.-]+", name) for name in common):
        profiles = f"+{hashlib.sha256(repr(sorted(common)).encode()).hexdigest()[:8]}"
    name = f"containers-{profiles}" if profiles else "containers"
    return (TextFile(path=f"{DOCUMENTS}/{name}.cdx.json", text=text, mode=0o644),)


def _component(claim: Claim) -> Component:
    return Component(
        reference=claim.reference,
        arch=claim.arch,
        digest=claim.digest,
        image=claim.image,
        created=claim.created,
    )
