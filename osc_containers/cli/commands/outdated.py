"""`osc-containers outdated`."""

import argparse
import json

from osc_containers.cli import arguments, changelog, terminal
from osc_containers.cli.arguments import Commands
from osc_containers.formats import human
from osc_containers.lock import diff
from osc_containers.obs import selection
from osc_containers.obs.package import Package


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands,
        "outdated",
        run,
        "Say which tags name another image than the locked one.\n\n"
        "Registries are asked for manifests and configurations only; nothing is written. The exit status is 1 if an\n"
        "image moved or is not locked yet, else 0.",
        "  osc-containers outdated || osc service manualrun",
    )
    arguments.add_package(parser)
    arguments.add_format(parser, "table", "json")
    arguments.add_parameters(
        parser, ("description", "arch", "profile"), {"arch": "of OBS-ExclusiveArch, else all that are locked"}
    )


def run(options: argparse.Namespace) -> int:
    """Compare what is locked with what the tags name now."""
    from osc_containers.prefetch.pin import resolve, trusted_entries
    from osc_containers.sources import transports  # slow to load, and not in build roots

    package, given = Package(options.directory), arguments.given
    lock = package.require_lock()
    found = selection.of_package(
        package,
        given(options.description),
        arguments.words(options.arch),
        given(options.profile),
    )
    wanted = selection.wanted(
        found.with_default_architectures(selection.default_architectures(selection.of_package(package), lock))
    )
    with transports.Sources(package.directory) as sources:
        now = {each.reference: each for each in resolve(wanted, sources.open, trusted_entries(package, lock, wanted))}
    moved = diff.find_updates(lock.references, now)
    if options.format == "json":
        print(json.dumps(diff.as_objects(moved), indent=2))
    elif moved:
        print(terminal.paint_head(changelog.as_text(moved)))
        print(f"\n{human.size(sum(change.fetch_size for change in moved))} to fetch")
    else:
        count = sum(len(item.architectures) for item in wanted)
        print("1 image is what its tag names" if count == 1 else f"{count} images are what their tags name")
    return 1 if moved else 0
