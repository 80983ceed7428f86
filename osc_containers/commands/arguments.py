"""Arguments that several commands have."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
) -> argparse.ArgumentParser:
    """Add a command; the first sentence of `text` is what the list of commands says of it."""
    parser = commands.add_parser(
        name,
        help=text[0].lower() + text[1:].partition(". ")[0].rstrip("."),
        description=text,
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument(
        "-q", "--quiet", dest="verbosity", action="store_const", const=-1, default=0, help="warnings and errors only"
    )
    noise.add_argument("-v", "--verbose", dest="verbosity", action="store_const", const=1, help="more of what is done")
    parser.set_defaults(run=run)
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
        "--description", action="append", default=[], metavar="F", help="a description of it (default: all)"
    )


def add_format(parser: argparse.ArgumentParser, *formats: str) -> None:
    """Add the choice of an output format; the first is the default."""
    parser.add_argument("--format", choices=formats, default=formats[0], help=f"default: {formats[0]}")


def add_arch_and_profile(parser: argparse.ArgumentParser, arch: str, profile: str) -> None:
    """Add the two options that narrow a description down; the texts say what they are for and their default."""
    parser.add_argument("--arch", action="append", default=[], metavar="A", help=arch)
    parser.add_argument("--profile", action="append", default=[], metavar="P", help=profile)


def words(values: Sequence[str]) -> list[str]:
    """Split repeated parameters at blanks and commas; OBS drops the empty value and "0", osc does not."""
    found = [word for value in values for word in value.replace(",", " ").split()]
    return [word for word in found if word != "0"]
