"""`osc-containers split`."""

import argparse
import logging

from osc_containers.cli import arguments
from osc_containers.kiwi import split
from osc_containers.obs import selection
from osc_containers.obs.package import Package

logger = logging.getLogger(__name__)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "kiwi reads both files. OBS reads only the description, and would require a package for each container in it, "
        "which nothing provides. All other bytes stay the same; if anything would get lost, nothing is changed. `init` "
        "includes this step.",
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
        logger.info("nothing to do: no description has <containers> that OBS can see")
    return 0
