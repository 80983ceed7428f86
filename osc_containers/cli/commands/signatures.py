"""`osc-containers signatures`."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from osc_containers.cli import arguments, modules
from osc_containers.cli.output import terminal
from osc_containers.errors import RegistryError
from osc_containers.obs import selection, service_file
from osc_containers.obs.package import Package
from osc_containers.obs.selection import ImageRequest
from osc_containers.oci import platform
from osc_containers.oci.reference import Reference

if TYPE_CHECKING:
    from osc_containers.evidence.evaluate import Outcome
    from osc_containers.evidence.signatures.signature import Signature
    from osc_containers.prefetch.signatures import Judgement


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "For each image: the scope of each policy that applies, its requirements, and which signature meets them. "
        "Nothing is written. The policies are that of this machine and those of the package. The exit status is 0 if "
        "prefetch would take all images, 1 if not, 2 for wrong usage, 3 if that could not be found out.",
        "  osc-containers signatures                       # the containers of this package\n"
        "  osc-containers signatures registry.suse.com/bci/bci-base:15.6",
    )
    parser.add_argument(
        "references", nargs="*", metavar="REFERENCE", help="image (default: the containers of the package)"
    )
    parser.add_argument("--package", type=Path, default=Path(), metavar="DIR", help="package (default: this directory)")
    arguments.add_parameters(parser, ("arch", "signatures", "policy"))


def run(options: argparse.Namespace) -> int:
    """Show what the policies say of images."""
    tls_context = modules.load_network()
    modules.load_late("osc_containers.prefetch.signatures", "yaml")
    from osc_containers.evidence.policy import load
    from osc_containers.lock.lockfile import EMPTY
    from osc_containers.prefetch import signature_finder, signatures
    from osc_containers.prefetch.pin import resolve
    from osc_containers.sources import transports

    package = Package(options.package)
    entries = package.prefetches
    mode, names, _ = service_file.signature_parameters(entries, options.signatures, options.policy)
    policies = load.of_package(package.directory, names)
    requests = _requests(package, options.references, arguments.architectures(options.arch))
    reader = signature_finder.StoreReader()
    is_accepted = True
    modules.load_sources(each.location for each in requests)
    with transports.Sources(package.directory, system_context=tls_context) as sources:
        # With an empty lock, nothing is taken from earlier runs.
        for resolved in resolve(requests, sources.open, EMPTY):
            for arch, pinned in resolved.images.items():
                image = signatures.checked_image("", resolved, arch)
                judgement = signatures.judge(
                    image, policies, sources.open, package.directory, reader, is_required=mode == "required"
                )
                is_accepted &= not judgement.problem
                manifest = pinned.image.manifest.digest
                print(terminal.paint_head(f"{resolved.reference} ({arch})  {manifest}"))
                for line in _lines(judgement):
                    print(f"  {line}")
    return 0 if is_accepted else 1


def _requests(package: Package, references: list[str], architectures: list[str]) -> tuple[ImageRequest, ...]:
    if not references:
        request = selection.of_package(package, [], architectures)
        requests = selection.image_requests(request)
        selection.refuse_nothing(requests, [], architectures)
        return requests
    chosen = tuple(architectures) or (platform.of_this_machine(),)
    result = []
    for text in references:
        try:
            reference = Reference.parse(text.removeprefix("docker://"))
        except ValueError as error:
            raise RegistryError(f"{text[:160]!r}: {error}") from None
        result.append(
            ImageRequest(reference=reference, location=f"docker://{reference}", architectures=chosen, where="arguments")
        )
    return tuple(result)


def _lines(judgement: "Judgement") -> Iterator[str]:
    for verdict in judgement.verdicts:
        yield f"{verdict.policy} (scope {verdict.scope}):"
        for outcome in verdict.outcomes:
            yield f"  {_requirement(outcome)}: {_outcome(outcome)}"
    if not judgement.verdicts:
        yield "no policy.json: every image is accepted"
    for each in judgement.found.signatures:
        yield f"signature: {_signature(each)}"
    if judgement.problem:
        yield f"refused: {judgement.problem}"


def _requirement(outcome: "Outcome") -> str:
    requirement = outcome.requirement
    if not requirement.needs_signature:
        return requirement.type
    keys = ", ".join(requirement.keys.paths) or f"{len(requirement.keys.data)} keys in the policy"
    return f"{requirement.type} by {keys}, {requirement.identity.type}"


def _outcome(outcome: "Outcome") -> str:
    if outcome.evidence:
        signature = outcome.evidence.signature
        return f"met, signed as {signature.identity} by {signature.key}"
    if outcome.is_met:
        return "met"
    return f"not met{f': {outcome.reasons[0]}' if outcome.reasons else ''}"


def _signature(signature: "Signature") -> str:
    from osc_containers.evidence.signatures import payload

    if signature.format == payload.SIMPLE:
        return "OpenPGP"
    try:
        claim = payload.parse(signature.payload, payload.SIGSTORE)
    except ValueError as error:
        return f"sigstore, {signature.media_type}: {terminal.printable(str(error))}"
    return f"sigstore, says that it is for {terminal.printable(claim.identity)}, {claim.digest}"
