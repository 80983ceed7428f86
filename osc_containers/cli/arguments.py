"""Arguments that several commands have."""

import argparse
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from osc_containers.errors import Error
from osc_containers.obs import selection, service_file
from osc_containers.obs.package import Package
from osc_containers.oci import platform

given, words = service_file.given, service_file.words
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
        "directory", nargs="?", type=Path, default=Path(), metavar="DIR", help="the package (default: this directory)"
    )


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the package and, optionally, which descriptions of it."""
    add_package(parser)
    parser.add_argument(
        "--description",
        action="append",
        default=[],
        metavar="F",
        help="a description of it (default: those in _service, else all)",
    )


def add_format(parser: argparse.ArgumentParser, *formats: str) -> None:
    """Add the choice of an output format; the first is the default."""
    parser.add_argument("--format", choices=formats, default=formats[0], help=f"default: {formats[0]}")


def add_arch_and_profile(parser: argparse.ArgumentParser, arch: str, profile: str) -> None:
    """Add the two options that narrow a description down; the texts say what they are for and their default."""
    add_arch(parser, arch)
    action = parser.add_argument("--profile", action="append", default=[], metavar="P", help=profile)
    action.completer = _profiles  # type: ignore[attr-defined]  # for argcomplete


def add_arch(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the choice of architectures."""
    action = parser.add_argument("--arch", action="append", default=[], metavar="A", help=text)
    action.completer = _architectures  # type: ignore[attr-defined]  # for argcomplete


def _architectures(**_: object) -> tuple[str, ...]:
    return platform.ARCHITECTURES


def _profiles(*, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Return the profiles of the package that is named so far."""
    try:
        descriptions = selection.of_package(Package(getattr(parsed_args, "directory", Path()))).descriptions
    except (Error, OSError):
        return []
    return [profile.name for found in descriptions for profile in found.profiles]
