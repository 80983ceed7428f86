# PYTHON_ARGCOMPLETE_OK: for argcomplete's global completion
"""The command line: `osc-containers COMMAND`, which `osc containers COMMAND` runs too.

Every command is a module of `osc_containers.commands` with two functions: `add` declares its arguments, `run` does it.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from osc_containers import __version__, program
from osc_containers.commands import check, diff, init, inject, outdated, prefetch, split, verify
from osc_containers.commands import list as listing

_COMMANDS = (listing, init, split, prefetch, outdated, diff, check, verify, inject)


def console() -> NoReturn:
    """Run the console script, or complete its command line where bash asks for that."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run `osc-containers` with arguments and return its exit status."""
    try:
        options = parser().parse_args(arguments)
    except SystemExit as error:
        return int(error.code or 0)
    return program.run("osc-containers", options.verbosity, lambda: options.run(options))


def _complete() -> NoReturn:
    """Write the completions of the line that bash was given (argcomplete's protocol); without argcomplete, none."""
    with suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser())
    sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="osc-containers",
        description="Pin, prefetch, verify and inject the OCI containers that kiwi descriptions name.",
        epilog="'osc-containers COMMAND --help' explains a command with an example.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser
