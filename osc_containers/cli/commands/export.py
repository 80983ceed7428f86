"""`osc-containers export`."""

import argparse
from pathlib import Path

from osc_containers.archive import export
from osc_containers.cli import arguments
from osc_containers.errors import Error, LockError
from osc_containers.formats import human
from osc_containers.lock.lockfile import FILE_NAME, Lock
from osc_containers.obs.package import Package
from osc_containers.oci import platform
from osc_containers.oci.chain import Claim
from osc_containers.oci.reference import Reference

_SHOWN = 20
"""References that an error message lists."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "The archive is made of the files of the package, verified, and can be loaded with podman, docker or skopeo: "
        "podman load -i FILE, docker load -i FILE, skopeo copy oci-archive:FILE TARGET.",
        "  osc-containers export registry.opensuse.org/opensuse/tumbleweed:latest /tmp/tumbleweed.tar\n"
        "  podman load -i /tmp/tumbleweed.tar",
    )
    parser.add_argument("reference", metavar="REFERENCE", help="reference of the image, as in containers.lock")
    parser.add_argument("file", type=Path, metavar="FILE", help="archive to write")
    arguments.add_package(parser)
    parser.add_argument(
        "--arch", metavar="ARCH", help="architecture (default: that of this machine, or the only one that is locked)"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(options: argparse.Namespace) -> int:
    """Write the archive."""
    package = Package(options.directory)
    lock = package.require_lock()
    claim = _choose(lock, options.reference, options.arch)
    size = export.export(package, lock, claim, options.file, force=options.force)
    print(f"{options.file}: {claim.reference} for {claim.arch}, {human.size(size)}")
    return 0


def _choose(lock: Lock, name: str, arch: str | None) -> Claim:
    try:
        reference = Reference.parse(name)
        if arch is not None:
            platform.of_architecture(arch)
    except ValueError as error:
        raise Error(str(error)) from None
    entry = lock.references.get(reference)
    if entry is None:
        names = sorted(map(str, lock.references))
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise LockError(
            f"{FILE_NAME}: {str(reference)[:300]} is not locked; expected one of {', '.join(names[:_SHOWN])}{more}"
        )
    default = platform.of_this_machine() if platform.of_this_machine() in entry.images else min(entry.images)
    claim = lock.claim_for(reference, arch or default)
    # Of several images that are all for other machines, none is a good guess.
    if claim is None or (arch is None and default != platform.of_this_machine() and len(entry.images) > 1):
        what = f"for {arch}" if arch else "for this machine"
        raise LockError(
            f"{FILE_NAME}: {reference} is not locked {what}; choose with --arch from {', '.join(sorted(entry.images))}"
        )
    return claim
