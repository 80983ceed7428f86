"""`osc-containers list`."""

import argparse
import json
from pathlib import Path

from osc_containers.cli import arguments, listing, terminal
from osc_containers.cli.arguments import Commands
from osc_containers.lock.lockfile import EMPTY
from osc_containers.obs import selection
from osc_containers.obs.package import Package


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands,
        "list",
        run,
        "List the containers that kiwi would put into the image.",
        "  osc-containers list --arch aarch64 --profile Server appliance.kiwi",
    )
    parser.add_argument(
        "description",
        nargs="?",
        type=Path,
        metavar="DESCRIPTION",
        help="default: those in _service, else all of this package",
    )
    arguments.add_format(parser, "table", "json")
    arguments.add_parameters(parser, ("arch", "profile"), {"profile": "as kiwi without a profile"})


def run(options: argparse.Namespace) -> int:
    """Print the containers."""
    target: Path | None = options.description
    directory = Path() if target is None else target if target.is_dir() else target.parent
    package = Package(directory)
    names = [target.name] if target and not target.is_dir() else []
    found = selection.of_package(package, names, arguments.words(options.arch), arguments.given(options.profile))
    listed = listing.rows(found, package.read_lock() or EMPTY)
    if options.format == "json":
        print(json.dumps(listing.as_objects(listed), indent=2))
    else:
        print(terminal.paint_head(listing.as_table(listed)))
    return 0
