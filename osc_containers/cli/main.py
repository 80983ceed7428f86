# PYTHON_ARGCOMPLETE_OK: for argcomplete's global completion
"""The command line `osc-containers COMMAND`; `osc containers COMMAND` runs the same program.

Every command is a module of `cli.commands` with two functions: `add` declares its arguments, `run` does its work and
returns the exit status.
"""

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from osc_containers import __version__
from osc_containers.cli import installation, modules, process
from osc_containers.cli.output import terminal

COMMANDS = {
    "list": "list the containers that kiwi would put into the image",
    "init": "set up a kiwi package so that it builds on OBS",
    "split": "move <containers> into a file that the description includes",
    "prefetch": "pin every container in containers.lock and download it",
    "outdated": "list tags that now point to a different image",
    "diff": "show what changed in containers.lock",
    "check": "check the package for problems that would break the build or the first boot",
    "verify": "verify offline that lock and images are complete, intact and match the description",
    "signatures": "show what the signature policies say of images, and why",
    "export": "write the archive of one image, for podman, docker or skopeo",
    "sbom": "list the embedded containers as SPDX or CycloneDX",
    "inject": "put the containers into an unpacked root tree, as the build-time service does for kiwi",
}
"""The commands and their summaries."""

_NETWORK_COMMANDS = {"init", "outdated", "prefetch", "signatures"}

_FAILURES = {"check": 3, "diff": 3, "outdated": 3, "signatures": 3, "verify": 3}
"""The exit status of a failure, for the commands that end with 1 if they find what they look for."""


def console() -> NoReturn:
    """Run the console script, or complete its command line if bash requests that (argcomplete's protocol)."""
    if "_ARGCOMPLETE" in os.environ:
        with suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser())
        # Without argcomplete there are no completions, and nothing else may be printed.
        sys.exit(1)
    process.exit_fast(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run `osc-containers` with arguments and return its exit status."""
    # No option of ours comes before the command, so that this is known before the arguments are parsed.
    failure = _FAILURES.get(next(iter(arguments), ""), 1)
    return process.run("osc-containers", lambda: _run(arguments), failure=failure)


def _run(arguments: Sequence[str]) -> int:
    # A value may have the name of a command, too, which only costs the import of its module.
    options, unknown = parser(COMMANDS.keys() & set(arguments)).parse_known_args(arguments)
    # The parser of the command reports these, so that the usage is that of the command.
    if unknown:
        options.refuse(f"unrecognized arguments: {terminal.printable(' '.join(unknown))}")
    process.set_verbosity(options.verbosity)
    if options.name in _NETWORK_COMMANDS:
        modules.load_network()
    else:
        modules.load_offline()
    process.handle_signals()
    status: int = options.run(options)
    return status


def _note() -> str:
    note = installation.note_missing()
    return f" Note: {note}." if note else ""


def parser(loaded: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Only the commands in `loaded` have their arguments: importing all of them would make `--help` slow.
    """
    parser = argparse.ArgumentParser(
        prog="osc-containers",
        description="Pin, prefetch, verify and inject the OCI containers that kiwi descriptions name.",
        epilog=f"'osc-containers COMMAND --help' explains a command with an example.{_note()}",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name in loaded:
            module = import_module(f"osc_containers.cli.commands.{name}")
            command.set_defaults(name=name, run=module.run, refuse=command.error)
            module.add(command)
    return parser
