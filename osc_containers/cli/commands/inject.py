"""`osc-containers inject`, and the choice of the description for it and for the inject service."""

import argparse
import logging
from pathlib import Path

from osc_containers.cli import arguments, signature_check
from osc_containers.cli.commands import sbom
from osc_containers.errors import DescriptionError
from osc_containers.inject import inject
from osc_containers.kiwi.description import Description
from osc_containers.obs import engines, selection, service_file
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import INJECT
from osc_containers.obs.selection import Request
from osc_containers.oci import platform

logger = logging.getLogger(__name__)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "The archives are verified first. The tree gets them, and the systemd units that load them at the first boot.",
        "  osc-containers inject --root /path/to/root --arch x86_64 --profile Server",
    )
    arguments.add_package(parser)
    arguments.add_parameters(parser, service=INJECT)
    parser.add_argument("--root", type=Path, required=True, help="root of the tree; nothing outside it is changed")
    parser.add_argument("--arch", required=True, metavar="ARCH", help="architecture of the tree, as kiwi names it")
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="PROFILE",
        help="kiwi profile; may be repeated (default: as kiwi without a profile)",
    )


def run(options: argparse.Namespace) -> int:
    """Inject the containers."""
    package = Package(options.directory)
    with package.share():
        _inject(package, options)
    return 0


def _inject(package: Package, options: argparse.Namespace) -> None:
    arch = platform.canonical(options.arch)
    request = selection.of_package(package, arguments.drop_empty(options.description), [arch])
    description = select_description(request, arch)
    # Unlike for prefetch, no profile means what kiwi does without one, because the tree is one image.
    profiles = arguments.drop_empty(options.profile)
    if not description.select(arch, profiles):
        logger.warning("nothing to do: no <containers> for this architecture and these profiles")
    containers = description.select(arch, profiles)
    lock = package.read_lock()
    if lock and containers:
        images = {(container.reference, arch) for container in containers}
        signature_check.require(package, lock, images, {each.reference: each.origin for each in containers})
    # Options take their defaults from the entries for this description.
    entries = [each for each in package.service_entries if each.name == INJECT and each.reads(description.path.name)]
    patterns, values = (
        arguments.drop_empty(given) or [value for each in entries for value in each.effective_values(name)]
        for name, given in (("store", options.store), ("engine", options.engine))
    )
    service_file.check_no_bundle(package.service_entries, {"store": patterns, "engine": values})
    choices = engines.parse(values)
    formats = sbom.formats_of(options.sbom)
    suffix = "-".join(profiles)
    named = sbom.documents(package, description, arch, containers, formats, suffix)
    # They are made now, so that an error leaves the tree unchanged.
    documents = list(named) if formats and containers else []
    inject.inject_root(package, description, arch, profiles, options.root, patterns, choices)
    sbom.write(documents, Path())


def select_description(request: Request, arch: str) -> Description:
    """Return the description that has containers for an architecture: an image is built from one description.

    If several descriptions include the same containers, it does not matter which of them is returned.

    :raises DescriptionError: several descriptions have different containers.
    """
    candidates = [each for each in request.descriptions if each.of_architecture(arch)]
    if len({each.content_key for each in candidates}) > 1:
        names = ", ".join(each.path.name for each in candidates)
        raise DescriptionError(f"{names}: several descriptions have <containers>; select one with 'description'")
    return (candidates or list(request.descriptions))[0]
