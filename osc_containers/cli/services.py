"""The front doors of the two source services, as osc, the OBS server and obs-build call them: `--name value …`."""

import argparse
import html
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from osc_containers.cli import arguments, process
from osc_containers.cli.commands.inject import the_description
from osc_containers.cli.commands.prefetch import prefetch_all
from osc_containers.cli.commands.verify import verify_all
from osc_containers.formats import human
from osc_containers.inject import inject as injection
from osc_containers.lock.lockfile import EMPTY
from osc_containers.obs import selection
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import INJECT, NO_VALUE, PREFETCH, SERVICES

logger = logging.getLogger(__name__)

_BUILD_ENVIRONMENT = Path("/.buildenv")
"""What the script `build` of obs-build writes into every root that it makes."""


def prefetch(parameters: Sequence[str]) -> int:
    """Run `kiwi_containers` in the package's directory."""
    return process.run(PREFETCH, lambda: _prefetch(parameters))


def _prefetch(parameters: Sequence[str]) -> int:
    options = _parser(PREFETCH).parse_args(parameters)
    package, given = Package(Path()), arguments.given
    found = selection.read(package, given(options.description), arguments.words(options.arch), given(options.profile))
    prefetch_all(
        package,
        found,
        outdir=options.outdir,
        locked=options.locked == "yes",
        bundled=options.inject == "source",
    )
    return 0


def inject(parameters: Sequence[str]) -> int:
    """Run `kiwi_containers_inject`; outside a build root it verifies and changes nothing."""
    return process.run(INJECT, lambda: _inject(parameters))


def _inject(parameters: Sequence[str]) -> int:
    options = _parser(INJECT).parse_args(parameters)
    package, names = Package(Path()), arguments.given(options.description)
    if not _is_build_root():
        count = verify_all(package, names, [], [])
        logger.info("not in a build root: %s verified, nothing changed", human.count(count, "archive"))
        return 0
    # The scheduler's architecture may be a path of compatible ones, the best first (obs-build, BUILD_ARCH).
    arch = os.environ["BUILD_ARCH"].partition(":")[0]
    # obs-build's parser of _service leaves references to characters as they are (Build/SimpleXML.pm).
    names = list(map(html.unescape, names))
    described = the_description(selection.read(package, names, [arch], []), arch)
    told = selection.of_entries(package, package.prefetches, [described.path.name])
    told = told.with_default_architectures(
        selection.default_architectures(told, package.read_lock() or EMPTY) or [arch]
    )
    injection.inject_sources(package, described, arch, told.used_profiles(described, arch))
    return 0


def _is_build_root() -> bool:
    """Tell whether this is obs-build's chroot or virtual machine, where the sources are a copy that nobody keeps.

    By the file kiwi knows it, too (`Defaults.is_buildservice_worker`): the environment may be that of a shell.
    """
    return bool(os.environ.get("BUILD_ARCH")) and _BUILD_ENVIRONMENT.exists()


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
    parser.add_argument("--outdir", type=Path, required=True)
    for parameter in SERVICES[name].parameters.values():
        if parameter.choices:
            allowed = (*parameter.choices, *NO_VALUE)
            # Blanks around a value are layout of the XML, as in `service_file.drop_empty`.
            parser.add_argument(
                f"--{parameter.name}", type=str.strip, choices=allowed, metavar="|".join(parameter.choices)
            )
        else:
            parser.add_argument(f"--{parameter.name}", action="append", default=[])
    return parser
