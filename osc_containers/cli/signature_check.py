"""The offline check of signatures that `verify` and both ways to inject have in common."""

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from osc_containers.cli import modules
from osc_containers.errors import Error, VerificationError
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import service_file
from osc_containers.obs.package import Package
from osc_containers.oci.reference import Reference

logger = logging.getLogger(__name__)

ANCHOR = Path("/usr/share/osc-containers/policy.json")
"""The policy of the project. The build root's own /etc/containers/policy.json is a distribution's, and not read."""


def list_problems(
    package: Package,
    lock: Lock,
    images: Collection[tuple[Reference, str]],
    locations: Mapping[Reference, str],
    anchor: Path | None = None,
) -> tuple[str, ...]:
    """Return what is wrong with the signatures in the lock: by themselves, and for the policies of the package.

    `images` are the references and architectures to check, `locations` where they came from, and `anchor` is a
    policy outside of the package. Where there are neither signatures nor policies, nothing is loaded.

    :raises Error: a policy is not valid, or a program that verifies signatures is missing.
    """
    parameters = service_file.signature_parameters(package.prefetches)
    # A link to nothing is a broken policy, and not the absence of one.
    has_anchor = anchor is not None and os.path.lexists(anchor)
    is_required = parameters.mode == "required"
    is_signed = any(locked.signatures for _, _, locked in lock.images())
    if not (is_signed or has_anchor or is_required or parameters.policies):
        return ()
    modules.load_late("osc_containers.evidence.offline", "osc_containers.evidence.signatures.programs")
    from osc_containers.evidence import offline
    from osc_containers.evidence.policy import load
    from osc_containers.evidence.signatures import programs
    from osc_containers.fs import program

    # None leaves out the policy of this machine, so that the result is the same on every machine.
    policies = load.of_package(package.directory, parameters.policies, None)
    if has_anchor and anchor is not None:
        policies = (*policies, load.of_file(anchor, anchor.parent))
        logger.info("%s applies to the signatures in the lock", anchor)
    evidence = [
        offline.LockedEvidence(reference, arch, locked, locations.get(reference, "docker://"))
        for reference, arch, locked in lock.images()
        if (reference, arch) in images
    ]
    verifier = programs.Verifier(program.outside(package.directory, os.environ))
    return offline.check(evidence, lock.keys, policies, verifier, is_required=is_required)


def require(
    package: Package, lock: Lock, images: Collection[tuple[Reference, str]], locations: Mapping[Reference, str]
) -> None:
    """Check the signatures before a build uses the images; the policy of the project applies, too.

    :raises VerificationError: a signature is wrong, or a policy does not accept an image.
    """
    try:
        problems = list_problems(package, lock, images, locations, ANCHOR)
    except Error as error:
        raise VerificationError(*(f"signatures: {problem}" for problem in error.problems)) from None
    if problems:
        raise VerificationError(*problems)
