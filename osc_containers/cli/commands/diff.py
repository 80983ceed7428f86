"""`osc-containers diff`."""

import argparse
import json
from pathlib import Path

from osc_containers.cli import arguments, changelog, terminal
from osc_containers.cli.arguments import Commands
from osc_containers.errors import LockError
from osc_containers.lock import diff, lockfile
from osc_containers.lock.lockfile import EMPTY, FILE_NAME, Lock
from osc_containers.obs import working_copy
from osc_containers.obs.package import Package


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands,
        "diff",
        run,
        f"Say what changed in {FILE_NAME}.\n\n"
        "The package's is compared with the committed one, with that of another revision (of git, or of OBS, by\n"
        "osc cat), or with another file.",
        "  osc-containers diff                       # what will be committed\n"
        "  osc-containers diff 7                     # since revision 7 on OBS\n"
        "  osc-containers diff --format changes      # lines for 'osc vc'",
    )
    parser.add_argument(
        "old",
        nargs="?",
        metavar="REV|FILE",
        help="what to compare with (default: the last revision known here)",
    )
    parser.add_argument(
        "--directory", type=Path, default=Path(), metavar="DIR", help="the package (default: this directory)"
    )
    arguments.add_format(parser, "text", "changes", "json")


def run(options: argparse.Namespace) -> int:
    """Compare two locks."""
    package = Package(options.directory)
    old, new = _old(options.directory, options.old), package.require_lock()
    changes = diff.compare(old.references, new.references)
    if options.format == "json":
        print(json.dumps(diff.as_objects(changes), indent=2))
    elif changes:
        as_text = terminal.paint_head(changelog.as_text(changes))
        print(changelog.as_changes(changes) if options.format == "changes" else as_text)
    return 0


def _old(directory: Path, name: str | None) -> Lock:
    """Read the lock to compare with; a revision without one has no containers."""
    if name is not None and Path(name).is_file():
        with Path(name).open("rb") as file:
            content: bytes | None = file.read(lockfile.LIMIT + 1)
        where = name
    else:
        content = working_copy.committed(directory, FILE_NAME, name)
        where = f"{FILE_NAME} of {name or 'the last revision'}"
    if content is not None and len(content) > lockfile.LIMIT:
        raise LockError(f"{where}: got more than {lockfile.LIMIT} bytes, which no lock has")
    try:
        return EMPTY if content is None else lockfile.loads(content.decode(), where)
    except UnicodeDecodeError:
        raise LockError(f"{where}: not UTF-8 text") from None
