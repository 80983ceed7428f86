"""Arguments that several commands have."""

import argparse
import re
import textwrap
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeAlias

from osc_containers.errors import Error
from osc_containers.obs import selection, service_file
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import PREFETCH, SERVICES
from osc_containers.oci import platform

given, words = service_file.drop_empty, service_file.split_lists
"""Read repeated options as the services read their parameters."""

_HELP_WIDTH = 80

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
) -> argparse.ArgumentParser:
    """Add a command; the first sentence of `text` is what the list of commands says of it.

    Paragraphs of `text` that begin with blanks stay as they are, the others are wrapped.
    """
    sentence = re.split(r"[.:](?:\s|$)", text, maxsplit=1)[0]
    parser = commands.add_parser(
        name,
        help=sentence[0].lower() + sentence[1:],
        description="\n\n".join(
            part if part.startswith(" ") else textwrap.fill(part, _HELP_WIDTH) for part in text.split("\n\n")
        ),
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument(
        "-q", "--quiet", dest="verbosity", action="store_const", const=-1, default=0, help="warnings and errors only"
    )
    noise.add_argument("-v", "--verbose", dest="verbosity", action="store_const", const=1, help="more of what is done")
    parser.set_defaults(run=run, refuse=parser.error)
    return parser


def add_package(parser: argparse.ArgumentParser) -> None:
    """Add the package."""
    parser.add_argument(
        "directory", nargs="?", type=Path, default=Path(), metavar="DIR", help="package (default: this directory)"
    )


def add_format(parser: argparse.ArgumentParser, *formats: str) -> None:
    """Add the choice of an output format; the first is the default."""
    parser.add_argument("--format", choices=formats, default=formats[0], help=f"default: {formats[0]}")


def add_parameters(
    parser: argparse.ArgumentParser,
    names: Collection[str] = (),
    defaults: Mapping[str, str] | None = None,
    *,
    service: str = PREFETCH,
) -> None:
    """Add options for parameters of a service: for those in `names`, or else for all.

    What such an option does not say, the package's `_service` says. `defaults` has the texts for options that have
    another default here than in the service.
    """
    for parameter in SERVICES[service].parameters.values():
        if names and parameter.name not in names:
            continue
        default = (defaults or {}).get(parameter.name) or parameter.default or parameter.choices[0]
        option, text = f"--{parameter.name}", f"{parameter.option} (default: as in _service, else {default})"
        if parameter.choices == ("no", "yes"):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, help=text)
        elif parameter.choices:
            parser.add_argument(option, choices=parameter.choices, help=text)
        else:
            action = parser.add_argument(option, action="append", default=[], metavar=parameter.metavar, help=text)
            action.completer = _COMPLETERS.get(parameter.name)  # type: ignore[attr-defined]  # for argcomplete


def _architectures(**_: object) -> tuple[str, ...]:
    return platform.ARCHITECTURES


def _profiles(*, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Return the profiles of the package that is named so far."""
    try:
        descriptions = selection.of_package(Package(getattr(parsed_args, "directory", Path()))).descriptions
    except (Error, OSError):
        return []
    return [profile.name for found in descriptions for profile in found.profiles]


_COMPLETERS = {"arch": _architectures, "profile": _profiles}
