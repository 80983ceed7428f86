"""Arguments that several commands share."""

import argparse
import textwrap
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from osc_containers.errors import Error
from osc_containers.obs import selection, service_file
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import PREFETCH, SERVICES, Parameter
from osc_containers.oci import platform
from osc_containers.sources import local

drop_empty, architectures = service_file.drop_empty, service_file.architectures
"""Read the values of repeated options in the same way as the services read their parameters."""

_HELP_WIDTH = 80


def describe(parser: argparse.ArgumentParser, text: str, example: str) -> None:
    """Append `text` to the summary in the help of a command, add an example, and add the options -q and -v.

    Paragraphs of `text` are wrapped, except those that start with a space.
    """
    paragraphs = f"{parser.description}\n\n{text}".strip().split("\n\n")
    parser.description = "\n\n".join(
        each if each.startswith(" ") else textwrap.fill(each, _HELP_WIDTH) for each in paragraphs
    )
    parser.epilog = f"example:\n{example}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-q",
        "--quiet",
        dest="verbosity",
        action="store_const",
        const=-1,
        default=0,
        help="print only warnings and errors",
    )
    group.add_argument("-v", "--verbose", dest="verbosity", action="store_const", const=1, help="print more details")


def add_package(parser: argparse.ArgumentParser) -> None:
    """Add the directory of the package as a positional argument."""
    parser.add_argument(
        "directory", nargs="?", type=Path, default=Path(), metavar="DIR", help="package (default: this directory)"
    )


def add_local_sources(parser: argparse.ArgumentParser) -> None:
    """Add the option for images on this machine.

    It is no parameter of a service: `_service` comes with the package, and only the user may allow this.
    """
    parser.add_argument(
        local.OPTION,
        dest="allow_local",
        action="store_true",
        help="also read images on this machine that are not in the package: in other directories and in the stores of "
        "container engines",
    )


def add_format(parser: argparse.ArgumentParser, *formats: str) -> None:
    """Add the option for the output format; the first format is the default."""
    parser.add_argument("--format", choices=formats, default=formats[0], help=f"output format (default: {formats[0]})")


def add_parameters(
    parser: argparse.ArgumentParser,
    names: Collection[str] = (),
    defaults: Mapping[str, str] | None = None,
    *,
    service: str = PREFETCH,
) -> None:
    """Add the options for parameters of a service: for those in `names`, or for all.

    An option that is not given takes its value from the package's `_service`. `defaults` has the help texts for
    defaults that differ from those of the service.
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
        elif parameter.numbers:
            parser.add_argument(option, type=number_of(parameter), metavar=parameter.metavar, help=text)
        else:
            action = parser.add_argument(option, action="append", default=[], metavar=parameter.metavar, help=text)
            action.completer = _COMPLETERS.get(parameter.name)  # type: ignore[attr-defined]  # for argcomplete


def number_of(parameter: Parameter) -> Callable[[str], int]:
    """Return the type of an option for a parameter with `numbers`."""

    def convert(text: str) -> int:
        try:
            return parameter.number(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _architectures(**_: object) -> tuple[str, ...]:
    return platform.ARCHITECTURES


def _profiles(*, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Return the profiles of the package on the command line."""
    try:
        descriptions = selection.of_package(Package(getattr(parsed_args, "directory", Path()))).descriptions
    except (Error, OSError):
        # The shell is completing a line, so that nothing may be printed.
        return []
    return [profile.name for each in descriptions for profile in each.profiles]


_COMPLETERS = {"arch": _architectures, "profile": _profiles}
