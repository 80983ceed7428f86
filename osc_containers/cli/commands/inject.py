"""`osc-containers inject`, and the service that does the same in a build root."""

import argparse
import logging
from pathlib import Path

from osc_containers.cli import arguments
from osc_containers.cli.arguments import Commands
from osc_containers.errors import DescriptionError
from osc_containers.inject import inject
from osc_containers.kiwi.description import Description
from osc_containers.obs import selection
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import INJECT
from osc_containers.obs.selection import Request

logger = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands,
        "inject",
        run,
        "Put the containers into an unpacked root tree, as the build-time service does for kiwi.",
        "  osc-containers inject --root /path/to/root --arch x86_64 --profile Server",
    )
    arguments.add_package(parser)
    arguments.add_parameters(parser, service=INJECT)
    parser.add_argument("--root", type=Path, required=True, help="the tree; nothing outside of it is touched")
    parser.add_argument("--arch", required=True, metavar="A", help="kiwi's name of the tree's architecture")
    parser.add_argument("--profile", action="append", default=[], metavar="P", help="default: as kiwi does without one")


def run(options: argparse.Namespace) -> int:
    """Inject."""
    package = Package(options.directory)
    given = arguments.given
    found = selection.of_package(package, given(options.description), [options.arch])
    described = the_description(found, options.arch)
    profiles = given(options.profile)
    if not described.select(options.arch, profiles):
        logger.warning("nothing to do: no <containers> for this architecture and these profiles")
    inject.inject_root(package, described, options.arch, profiles, options.root)
    return 0


def the_description(found: Request, arch: str) -> Description:
    """Return the one description that has containers for an architecture: an image has one description.

    Of those that ask for the same, because they include it, it does not matter which.

    :raises DescriptionError: several have others.
    """
    having = [described for described in found.descriptions if described.of_architecture(arch)]
    if len({described.content_key for described in having}) > 1:
        names = ", ".join(described.path.name for described in having)
        raise DescriptionError(f"{names}: several descriptions have <containers>; name the image's with 'description'")
    return (having or list(found.descriptions))[0]
