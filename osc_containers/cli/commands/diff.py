"""`osc-containers diff`."""

import argparse
import json
from pathlib import Path

from osc_containers.cli import arguments
from osc_containers.cli.output import changelog, terminal
from osc_containers.errors import LockError
from osc_containers.fs import lfs_pointer
from osc_containers.lock import diff, lockfile
from osc_containers.lock.lockfile import EMPTY, FILE_NAME, Lock
from osc_containers.obs import working_copy
from osc_containers.obs.package import Package


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "The lock of the package is compared with the committed one, with that of another revision (of git, or of OBS "
        "by means of 'osc cat'), or with another file. The exit status is 0 if the locks are equal, 1 if they differ, "
        "2 for wrong usage, 3 if they cannot be compared.",
        "  osc-containers diff                       # what will be committed\n"
        "  osc-containers diff 7                     # since revision 7 on OBS\n"
        "  osc-containers diff --format changes >FILE; osc vc -F FILE",
    )
    parser.add_argument(
        "old",
        nargs="?",
        metavar="REV|FILE",
        help="revision or lock file to compare with (default: the last commit in this working copy)",
    )
    parser.add_argument(
        "--directory", type=Path, default=Path(), metavar="DIR", help="package (default: this directory)"
    )
    arguments.add_format(parser, "text", "changes", "json")


def run(options: argparse.Namespace) -> int:
    """Compare two locks."""
    package = Package(options.directory)
    package.warn_of_writer()
    old, new = _read_old(options.directory, options.old), package.require_lock()
    changes = diff.compare(old.references, new.references)
    signers = diff.compare_signers(old, new)
    if options.format == "json":
        print(json.dumps(diff.as_objects(changes), indent=2))
    elif changes and options.format == "changes":
        print(changelog.as_changes(changes))
    elif changes:
        print(terminal.paint_head(changelog.as_text(changes)))
    if signers and options.format == "text":
        print(changelog.signers_as_text(signers))
    return 1 if changes or signers else 0


def _read_old(directory: Path, name: str | None) -> Lock:
    """Return the lock to compare with; it is empty for a revision without a lock file."""
    # A file takes precedence over a revision of the same name.
    if name is not None and Path(name).is_file():
        with Path(name).open("rb") as file:
            # One byte more than is allowed shows that the file is too large, whatever its real size is.
            content: bytes | None = file.read(lockfile.LIMIT + 1)
        where = name
    else:
        content = working_copy.committed(directory, FILE_NAME, name, lockfile.LIMIT)
        where = f"{FILE_NAME} of {name or 'the last revision'}"
    if content is None:
        return EMPTY
    if lfs_pointer.is_pointer(content):
        raise LockError(f"{where}: is a git-lfs pointer, expected the lock itself; keep it out of git-lfs")
    if len(content) > lockfile.LIMIT:
        raise LockError(f"{where}: got more than {lockfile.LIMIT} bytes, expected a lock file")
    try:
        return lockfile.loads(content.decode(), where)
    except UnicodeDecodeError:
        raise LockError(f"{where}: not UTF-8 text, expected a lock file") from None
