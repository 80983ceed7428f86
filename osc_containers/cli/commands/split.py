"""`osc-containers split`."""

import argparse
import logging

from osc_containers.cli import arguments
from osc_containers.cli.arguments import Commands
from osc_containers.kiwi import split
from osc_containers.obs import selection
from osc_containers.obs.package import Package

logger = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands,
        "split",
        run,
        "Move <containers> into a file that the description includes.\n\n"
        "kiwi reads both files. OBS reads the description alone, and would take every container in it for a package\n"
        "that has to be there before the build. Every other byte stays, and where anything would be lost, nothing is\n"
        "done. `init` does this too.",
        '  osc-containers split            # appliance.kiwi gets <include from="this://./containers.xml"/>\n'
        "  osc add containers.xml",
    )
    arguments.add_package(parser)


def run(options: argparse.Namespace) -> int:
    """Split every description of the package."""
    package = Package(options.directory)
    with package.hold():
        splits = split.plan(selection.read(package, [], [], []).descriptions)
        split.apply(splits)
    if not splits:
        logger.info("nothing to do: OBS sees no <containers>")
    return 0
