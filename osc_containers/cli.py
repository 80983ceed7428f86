"""The front doors: command line and services. They parse arguments, call one use case, print.

Results go to standard output, everything else through logging to standard error. Exit status: 0, 1 for a said error,
2 for wrong usage. The last line of a failed run is the message, since a build server shows that line alone.
"""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeAlias

from osc_containers import __version__, inject, listing, platforms, request, verify
from osc_containers.description import Description
from osc_containers.errors import DescriptionError, Error, LockError, VerificationError
from osc_containers.lock import EMPTY, FILE_NAME, Lock
from osc_containers.package import Package
from osc_containers.request import Request

logger = logging.getLogger(__name__)

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def console() -> NoReturn:
    """Run the console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run `osc-containers` with arguments and return its exit status."""
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as error:
        return int(error.code or 0)
    return _run("osc-containers", options.verbosity, lambda: options.handler(options))


def service_prefetch(arguments: Sequence[str]) -> int:
    """Run the source service `kiwi_containers` as OBS does: `--name value …`, in the package's directory."""
    parser = _service_parser("kiwi_containers")
    for name in ("description", "arch", "profile"):
        parser.add_argument(f"--{name}", action="append", default=[])
    parser.add_argument("--locked", default="no", choices=("yes", "no", "", "0"))
    options = _parse(parser, arguments)
    if options is None:
        return 2
    options.directory = Path()
    options.locked = options.locked == "yes"
    return _run("kiwi_containers", 0, lambda: _prefetch(options))


def service_inject(arguments: Sequence[str]) -> int:
    """Run the service `kiwi_containers_inject`; outside a build root it verifies and changes nothing."""
    parser = _service_parser("kiwi_containers_inject")
    parser.add_argument("--description", action="append", default=[])
    options = _parse(parser, arguments)
    if options is None:
        return 2
    return _run("kiwi_containers_inject", 0, lambda: _inject_service(_words(options.description)))


def _service_parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
    parser.add_argument("--outdir", type=Path, required=True)
    return parser


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace | None:
    try:
        return parser.parse_args(arguments)
    except SystemExit:
        return None


class _Printable(logging.Formatter):
    """Messages with whatever could drive a terminal made visible."""

    def format(self, record: logging.LogRecord) -> str:
        return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in super().format(record))


def _run(name: str, verbosity: int, handler: Callable[[], int]) -> int:
    """Call a handler, and turn what a user, a registry or a disk can cause into a message and an exit status."""
    output = logging.StreamHandler()
    output.setFormatter(_Printable(f"{name}: %(message)s"))
    logging.basicConfig(handlers=[output], level=logging.INFO - 10 * verbosity, force=True)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return handler()
    except Error as error:
        for problem in error.problems:
            logger.error("%s", problem)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on; nothing to say
    except OSError as error:
        logger.error("%s: %s", error.filename or "system", error.strerror or error)
    except KeyboardInterrupt:
        logger.error("interrupted; nothing was changed")
        return 130
    return 1


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that what is half done is removed."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="osc-containers",
        description="Pin, prefetch, verify and inject the OCI containers that kiwi descriptions name.",
        epilog="'osc-containers COMMAND --help' explains a command with an example.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_list(commands)
    _add_prefetch(commands)
    _add_verify(commands)
    _add_inject(commands)
    return parser


def _command(
    commands: _Commands, name: str, handler: Callable[[argparse.Namespace], int], text: str, example: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text[0].lower() + text[1:].partition(".")[0],
        description=text,
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument("-q", "--quiet", dest="verbosity", action="store_const", const=-1, default=0, help="warnings and errors only")
    noise.add_argument("-v", "--verbose", dest="verbosity", action="store_const", const=1, help="more of what is done")
    parser.set_defaults(handler=handler)
    return parser


def _add_arch_and_profile(parser: argparse.ArgumentParser, arch: str, profile: str) -> None:
    parser.add_argument("--arch", action="append", default=[], metavar="A", help=arch)
    parser.add_argument("--profile", action="append", default=[], metavar="P", help=profile)


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", nargs="?", type=Path, default=Path(), metavar="DIR", help="the package (default: this directory)"
    )
    parser.add_argument(
        "--description", action="append", default=[], metavar="F", help="a description of it (default: all)"
    )


def _add_list(commands: _Commands) -> None:
    parser = _command(
        commands,
        "list",
        _list,
        "List the containers that kiwi would put into the image.",
        "  osc-containers list --arch aarch64 --profile Server appliance.kiwi",
    )
    parser.add_argument("description", nargs="?", type=Path, metavar="DESCRIPTION", help="default: all of this package")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    _add_arch_and_profile(parser, "kiwi's name (default: this machine's)", "default: as kiwi does without one")


def _list(options: argparse.Namespace) -> int:
    target: Path | None = options.description
    directory = Path() if target is None else target if target.is_dir() else target.parent
    package = Package(directory)
    names = [target.name] if target and not target.is_dir() else []
    architectures = _words(options.arch) or [platforms.of_this_machine()]
    found = request.read(package, names, architectures, _words(options.profile))
    listed = listing.rows(found.descriptions, architectures, found.profiles, package.read_lock() or EMPTY)
    if options.format == "json":
        print(json.dumps(listing.as_objects(listed), indent=2))
    else:
        print(listing.as_table(listed))
    return 0


def _add_prefetch(commands: _Commands) -> None:
    parser = _command(
        commands,
        "prefetch",
        _prefetch,
        "Pin every container in containers.lock and fetch its archive. Follows tags and says what moved.",
        "  osc-containers prefetch --arch x86_64 --arch aarch64\n  osc-containers prefetch --locked   # what is pinned",
    )
    _add_directory(parser)
    _add_arch_and_profile(
        parser, "kiwi's name (default: those of OBS-ExclusiveArch, else this machine's)", "default: every section"
    )
    parser.add_argument(
        "--locked", action="store_true", help="fetch exactly what the lock says, and do not follow tags"
    )
    parser.add_argument("--outdir", type=Path, metavar="D", help="where new files go (default: DIR)")


def _prefetch(options: argparse.Namespace) -> int:
    from osc_containers import prefetch, transports  # slow to load, and not in build roots

    package = Package(options.directory)
    found = request.read(package, _words(options.description), _words(options.arch), _words(options.profile))
    _warn_of_visible(found)
    wanted = request.wanted(found)
    if not wanted:
        logger.warning("nothing to do: no <containers> for these architectures and profiles")
    source = transports.open_source()
    outdir = options.outdir or options.directory
    prefetch.prefetch(package, wanted, lambda _: source, outdir=outdir, locked=options.locked)
    return 0


def _warn_of_visible(found: Request) -> None:
    for described in found.descriptions:
        for container in described.visible[:1]:
            logger.warning(
                "%s:%d: obs-build sees this <containers> and asks OBS for packages that nobody provides; "
                "run 'osc containers split'",
                container.file,
                container.line,
            )


def _add_verify(commands: _Commands) -> None:
    parser = _command(
        commands,
        "verify",
        _verify,
        "Check offline that lock and archives are complete, intact and what the description asks for.",
        "  osc-containers verify",
    )
    _add_directory(parser)
    _add_arch_and_profile(parser, "default: all that are locked", "default: every section")


def _verify(options: argparse.Namespace) -> int:
    package = Package(options.directory)
    count = _check(package, _words(options.description), _words(options.arch), _words(options.profile))
    print(f"{count} archives verified: they are what the lock and the description say")
    return 0


def _check(package: Package, names: Sequence[str], architectures: Sequence[str], profiles: Sequence[str]) -> int:
    """Verify all archives that the lock names, and that it names what the descriptions ask for; return their number."""
    lock = _require_lock(package)
    locked = tuple(dict.fromkeys(arch for _, arch, _ in lock.images()))
    found = request.read(package, names, architectures or locked, profiles)
    wanted = [(item.reference, arch, item.where) for item in request.wanted(found) for arch in item.architectures]
    problems = verify.check_coverage(wanted, lock)
    images = [image for image in lock.images() if not architectures or image[1] in architectures]
    damage = verify.check_archives(package, images)
    if problems:
        raise LockError(*problems, *damage)
    if damage:
        raise VerificationError(*damage)
    return len(images)


def _require_lock(package: Package) -> Lock:
    lock = package.read_lock()
    if lock is None:
        raise LockError(f"{FILE_NAME}: not there; run the prefetch and commit what it writes")
    if lock.newer:
        logger.warning("%s: it was written by a newer release, which may say more than this one reads", FILE_NAME)
    return lock


def _add_inject(commands: _Commands) -> None:
    parser = _command(
        commands,
        "inject",
        _inject,
        "Put the containers into an unpacked root tree, as the build-time service does for kiwi.",
        "  osc-containers inject --root /path/to/root --arch x86_64 --profile Server",
    )
    _add_directory(parser)
    parser.add_argument("--root", type=Path, required=True, help="the tree; nothing outside of it is touched")
    parser.add_argument("--arch", required=True, metavar="A", help="kiwi's name of the tree's architecture")
    parser.add_argument("--profile", action="append", default=[], metavar="P", help="default: as kiwi does without one")


def _inject(options: argparse.Namespace) -> int:
    package = Package(options.directory)
    found = request.read(package, _words(options.description), [options.arch], _words(options.profile))
    described = _only_one(found, options.arch)
    inject.inject_root(package, described, options.arch, found.profiles, options.root)
    return 0


def _only_one(found: Request, arch: str) -> Description:
    """Return the one description that has containers for an architecture: an image has one description."""
    having = [described for described in found.descriptions if described.of_architecture(arch)]
    if len(having) > 1:
        names = ", ".join(described.path.name for described in having)
        raise DescriptionError(f"{names}: several descriptions have <containers>; name the image's with 'description'")
    return (having or list(found.descriptions))[0]


def _inject_service(names: Sequence[str]) -> int:
    package = Package(Path())
    if not _is_build_root():
        count = _check(package, names, [], [])
        logger.info("not in a build root: %d archives verified, nothing changed", count)
        return 0
    # The scheduler's architecture may be a path of compatible ones, the best first (obs-build, BUILD_ARCH).
    arch = os.environ["BUILD_ARCH"].partition(":")[0]
    found = request.read(package, names, [arch], [])
    inject.inject_sources(package, _only_one(found, arch), arch)
    return 0


def _is_build_root() -> bool:
    """Tell whether this is obs-build's chroot or virtual machine, where the sources are a copy that nobody keeps."""
    elsewhere = "OSC_VERSION" in os.environ or "OBS_SERVICE_DAEMON" in os.environ
    working_copy = any(Path(name).exists() for name in (".osc", ".git"))
    return bool(os.environ.get("BUILD_ARCH")) and os.geteuid() == 0 and not elsewhere and not working_copy


def _words(values: Sequence[str]) -> list[str]:
    """Split repeated parameters at blanks and commas; OBS drops the empty value and "0", osc does not."""
    words = [word for value in values for word in value.replace(",", " ").split()]
    return [word for word in words if word != "0"]
