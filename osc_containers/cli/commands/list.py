"""`osc-containers list`."""

import argparse
import json
from pathlib import Path

from osc_containers.cli import arguments
from osc_containers.cli.output import listing, terminal
from osc_containers.lock.lockfile import EMPTY
from osc_containers.obs import selection
from osc_containers.obs.package import Package


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "The columns PINNED and SIZE show the digest and the size of the images in containers.lock, if the container "
        "is there. JSON also has the path of the archive in the image.",
        "  osc-containers list --arch aarch64 --profile Server appliance.kiwi\n"
        "  osc-containers list --blobs                    # layers and documents, and which images share them",
    )
    parser.add_argument(
        "description",
        nargs="?",
        type=Path,
        metavar="DESCRIPTION",
        help="kiwi file or package (default: those in _service, else all in this directory)",
    )
    arguments.add_format(parser, "table", "json")
    parser.add_argument(
        "--blobs", action="store_true", help="list the blobs in containers.lock instead, and the images that have them"
    )
    arguments.add_parameters(parser, ("arch", "profile"), {"profile": "as kiwi without a profile"})


def run(options: argparse.Namespace) -> int:
    """Print the containers."""
    path: Path = options.description or Path()
    package = Package(path if path.is_dir() else path.parent)
    names = [] if path.is_dir() else [path.name]
    if options.blobs:
        blobs = listing.list_blobs(package.require_lock())
        if options.format == "json":
            print(json.dumps(listing.blobs_as_objects(blobs), indent=2))
        else:
            print(terminal.paint_head(listing.blobs_as_table(blobs)))
        return 0
    request = selection.of_package(
        package, names, arguments.architectures(options.arch), arguments.drop_empty(options.profile)
    )
    package.warn_of_writer()
    # A package without a lock can be listed as well; nothing in it is pinned then.
    rows = listing.list_containers(request, package.read_lock() or EMPTY)
    if options.format == "json":
        print(json.dumps(listing.as_objects(rows), indent=2))
    else:
        print(terminal.paint_head(listing.as_table(rows)))
    return 0
