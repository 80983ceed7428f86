# PYTHON_ARGCOMPLETE_OK: for argcomplete's global completion
"""The command line: `osc-containers COMMAND`, which `osc containers COMMAND` runs too.

Every command is a module of `cli.commands` with two functions: `add` declares its arguments, `run` does its work.
"""

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from osc_containers import __version__
from osc_containers.cli import process, terminal

COMMANDS = {
    "list": "list the containers that kiwi would put into the image",
    "init": "make a package that builds on OBS out of a plain kiwi description",
    "split": "move <containers> into a file that the description includes",
    "prefetch": "pin every container in containers.lock and fetch its archive",
    "outdated": "say which tags name another image than the locked one",
    "diff": "say what changed in containers.lock",
    "check": "find what would go wrong later",
    "verify": "check offline that lock and archives are complete, intact and what the description asks for",
    "inject": "put the containers into an unpacked root tree, as the build-time service does for kiwi",
}
"""What the list of commands says of each."""


def console() -> NoReturn:
    """Run the console script, or complete its command line where bash asks for that."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    process.exit_fast(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run `osc-containers` with arguments and return its exit status."""
    return process.run("osc-containers", lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    options, unknown = parser(COMMANDS.keys() & set(arguments)).parse_known_args(arguments)
    if unknown:
        options.refuse(f"unrecognized arguments: {terminal.printable(' '.join(unknown))}")
    process.set_verbosity(options.verbosity)
    status: int = options.run(options)
    return status


def _complete() -> NoReturn:
    """Write the completions of the line that bash was given (argcomplete's protocol); without argcomplete, none."""
    with suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser())
    sys.exit(1)


def parser(loaded: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of all commands; only those in `loaded` know their arguments, since loading one takes time."""
    parser = argparse.ArgumentParser(
        prog="osc-containers",
        description="Pin, prefetch, verify and inject the OCI containers that kiwi descriptions name.",
        epilog="'osc-containers COMMAND --help' explains a command with an example.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name in loaded:
            import_module(f"osc_containers.cli.commands.{name}").add(commands)
        else:
            commands.add_parser(name, help=summary)
    return parser
