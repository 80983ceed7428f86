"""`osc-containers verify`, and the work of the inject service outside a build root."""

import argparse
import logging
from collections.abc import Sequence
from contextlib import ExitStack

from osc_containers.archive import verify
from osc_containers.archive.blobs import PackageBlobs
from osc_containers.cli import arguments, process, signature_check
from osc_containers.errors import LockError, VerificationError
from osc_containers.formats import human
from osc_containers.fs import atomic
from osc_containers.inject import bundle
from osc_containers.obs import selection
from osc_containers.obs.package import Package

logger = logging.getLogger(__name__)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "Every byte of every archive is compared with what containers.lock pins. The exit status is 0 if everything "
        "matches, 1 if something does not, 2 for wrong usage, 3 if that could not be found out.",
        "  osc-containers verify\n  osc-containers verify --arch x86_64 ~/obs/home:ann/appliance",
    )
    arguments.add_package(parser)
    arguments.add_parameters(
        parser, ("description", "arch", "profile"), {"arch": "of OBS-ExclusiveArch, else all that are locked"}
    )


def run(options: argparse.Namespace) -> int:
    """Verify the package."""
    package = Package(options.directory)
    try:
        with package.share():
            count = verify_all(
                package,
                arguments.drop_empty(options.description),
                arguments.architectures(options.arch),
                arguments.drop_empty(options.profile),
                may_be_nothing=False,
            )
    except (LockError, VerificationError) as error:
        # That is what the command looks for. Other errors are failures.
        process.report(error)
        return 1
    print(f"{human.count(count, 'image')} verified: all match containers.lock and the description")
    return 0


def verify_all(
    package: Package,
    names: Sequence[str],
    architectures: Sequence[str],
    profiles: Sequence[str],
    *,
    may_be_nothing: bool = True,
) -> int:
    """Verify the archives in the lock, and that the lock matches what the package requests.

    :return: the number of images.
    :raises DescriptionError: the arguments select no image, and `may_be_nothing` is not set.
    :raises LockError: the lock is missing or broken, or does not match the descriptions.
    :raises VerificationError: an archive or bundle does not match the lock.
    """
    configured = selection.of_package(package)
    request = selection.of_package(package, names, architectures, profiles)
    lock = package.require_lock()
    package.refuse_pointers()
    default = selection.default_architectures(configured, lock)
    requests = selection.image_requests(request.with_default_architectures(default))
    if not may_be_nothing:
        selection.refuse_nothing(requests, (*names, *profiles), architectures)
    images = [(each.reference, arch, each.where) for each in requests for arch in each.architectures]
    # Options can narrow the request. Other requests of _service are in the lock for a good reason.
    all_requests = (*requests, *selection.image_requests(configured.with_default_architectures(default)))
    # Missing images come last, because a build server shows only the last line.
    problems = (
        *verify.check_use({each.reference for each in all_requests}, lock),
        *verify.check_coverage(images, lock),
    )
    locked_images = [(reference, arch) for reference, arch, _ in lock.images() if arch in (architectures or [arch])]
    with ExitStack() as stack:
        blobs = PackageBlobs(package, lock, stack)
        # Every file stays open until the end, and there may be more of them than the soft limit allows (getrlimit(2)).
        atomic.allow_open(len(blobs.files))
        damage = verify.check_images(blobs, locked_images)
    # The bundle has all that _service requests, even if options select a part of it.
    bundled = (configured if package.prefetches else request).with_default_architectures(default)
    locations = {each.reference: each.location for each in all_requests}
    damage += signature_check.list_problems(package, lock, locked_images, locations)
    damage += tuple(f"{name}: {why}" for name, why in bundle.list_problems(package, bundled, lock))
    for name, why in bundle.list_intrusions(package, bundled):
        logger.warning("%s: %s", name, why)
    if problems:
        raise LockError(*problems, *damage)
    if damage:
        raise VerificationError(*damage)
    return len(locked_images)
