"""`osc-containers outdated`."""

import argparse
import json

from osc_containers.cli import arguments, modules
from osc_containers.cli.output import changelog, terminal
from osc_containers.formats import human
from osc_containers.lock import diff
from osc_containers.obs import selection
from osc_containers.obs.package import Package


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "Only manifests and configurations are downloaded, and nothing is written. The exit status is 0 if all images "
        "are up to date, 1 if a tag points to a different image or to one that is not locked yet, 2 for wrong usage, "
        "3 if that could not be found out.",
        "  osc-containers outdated\n  if [ $? = 1 ]; then osc service manualrun; fi",
    )
    arguments.add_package(parser)
    arguments.add_format(parser, "table", "json")
    arguments.add_parameters(
        parser, ("description", "arch", "profile"), {"arch": "of OBS-ExclusiveArch, else all that are locked"}
    )
    arguments.add_local_sources(parser)


def run(options: argparse.Namespace) -> int:
    """Compare the lock with the current images of the tags."""
    # The modules were loaded before signals were handled; this only returns the function.
    tls_context = modules.load_network()
    from osc_containers.prefetch.pin import resolve, trusted_entries
    from osc_containers.sources import transports

    package = Package(options.directory)
    package.warn_of_writer()
    lock = package.require_lock()
    names, profiles = arguments.drop_empty(options.description), arguments.drop_empty(options.profile)
    architectures = arguments.architectures(options.arch)
    request = selection.of_package(package, names, architectures, profiles)
    # Without arch in _service, the architectures of earlier runs count, as in verify.
    default = selection.default_architectures(selection.of_package(package), lock)
    requests = selection.image_requests(request.with_default_architectures(default))
    selection.refuse_nothing(requests, (*names, *profiles), architectures)
    modules.load_sources(each.location for each in requests)
    with transports.Sources(package.directory, system_context=tls_context, allow_local=options.allow_local) as sources:
        entries = trusted_entries(package, lock, requests)
        current = {each.reference: each for each in resolve(requests, sources.open, entries)}
    updates = diff.find_updates(lock.references, current)
    if options.format == "json":
        print(json.dumps(diff.as_objects(updates), indent=2))
    elif updates:
        print(terminal.paint_head(changelog.as_text(updates)))
        print(f"\n{human.size(sum(change.fetch_size for change in updates))} to fetch")
    else:
        count = sum(len(each.architectures) for each in requests)
        print("The image is up to date" if count == 1 else f"All {count} images are up to date")
    return 1 if updates else 0
