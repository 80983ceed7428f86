"""`osc-containers prefetch`, and the service that does the same."""

import argparse
import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from osc_containers.cli import arguments, progress
from osc_containers.cli.arguments import Commands
from osc_containers.errors import DescriptionError
from osc_containers.formats import cpio
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import selection, service_file
from osc_containers.obs.package import Package
from osc_containers.obs.selection import ImageRequest, Request
from osc_containers.sources.interface import FetchContext
from osc_containers.sources.progress import NullProgress, Progress

if TYPE_CHECKING:
    from osc_containers.archive.bundle import Bundle

logger = logging.getLogger(__name__)

_MOST = 64


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands,
        "prefetch",
        run,
        "Pin every container in containers.lock and fetch its archive. Follows tags and says what moved.\n\n"
        "What the service kiwi_containers is told in _service is the default of the options here.",
        "  osc-containers prefetch --arch x86_64 --arch aarch64\n  osc-containers prefetch --locked   # what is pinned",
    )
    arguments.add_package(parser)
    arguments.add_parameters(parser)
    parser.add_argument("--outdir", type=Path, metavar="D", help="where new files go (default: DIR)")
    parser.add_argument(
        "--connections",
        type=_connections,
        metavar="N",
        help=f"requests for blobs at a time, from 1 to {_MOST} "
        "(default: one for each core, up to 4; 20 where a registry takes 10 ms to answer)",
    )


def _connections(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected a number from 1 to {_MOST}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Prefetch."""
    package, given = Package(options.directory), arguments.given
    names, profiles = given(options.description), given(options.profile)
    found = selection.of_package(package, names, arguments.words(options.arch), profiles)
    entries = package.prefetches
    told = [entry for entry in entries if any(map(entry.reads, names))] or entries
    outdir = options.outdir or options.directory
    is_watched = sys.stderr.isatty() and options.verbosity >= 0
    with progress.on_terminal() if is_watched else nullcontext(NullProgress()) as watcher:
        prefetch_all(
            package,
            found,
            outdir=outdir,
            locked=options.locked if options.locked is not None else service_file.is_locked(told),
            bundled=options.inject == "source" if options.inject else service_file.is_bundled(told),
            connections=options.connections,
            watcher=watcher,
        )
    return 0


def prefetch_all(
    package: Package,
    request: Request,
    *,
    outdir: Path,
    locked: bool,
    bundled: bool,
    connections: int | None = None,
    watcher: Progress | None = None,
) -> None:
    """Pin and download what is requested, and write it to `outdir`."""
    # These imports take time, and a build root has no network libraries. Meanwhile a thread reads the system's
    # certificate authorities, which takes as long.
    from concurrent.futures import ThreadPoolExecutor

    from osc_containers.registry.config import certs_d

    with ThreadPoolExecutor(1) as pool:
        tls_context = pool.submit(certs_d.system_context)
        from osc_containers.prefetch import prefetch
        from osc_containers.prefetch.output import ArchiveFiles, BundleFile
        from osc_containers.registry.retry import Policy
        from osc_containers.sources import transports

    if not bundled:
        _warn_of_visible(request)
    image_requests = selection.wanted(request)
    if not image_requests:
        logger.warning("nothing to do: no <containers> for these architectures and profiles")
    output = BundleFile(_pack_for(request)) if bundled and image_requests else ArchiveFiles()
    with transports.Sources(
        package.directory, policy=Policy(connections=connections or _MOST), system_context=tls_context.result
    ) as sources:
        context = FetchContext(
            open_source=sources.open,
            cancel=sources.cancel,
            connections=connections,
            progress=watcher or NullProgress(),
        )
        prefetch.prefetch(
            package,
            image_requests,
            context,
            outdir=outdir,
            locked=locked,
            output=output,
            all_requests=_all_requests(package, request),
        )


def _all_requests(package: Package, request: Request) -> tuple[ImageRequest, ...]:
    """Return everything that the package requests by itself.

    Where `_service` names no architecture, those of this run count as its default: they may come from an option.
    """
    configured = selection.of_package(package)
    explicit = {arch for part in configured.with_explicit_arch.parts for arch in part.explicit_architectures}
    default = dict.fromkeys(arch for part in request.parts for arch in part.architectures if arch not in explicit)
    return selection.wanted(configured.with_default_architectures(tuple(default)))


def _pack_for(found: Request) -> "Callable[[Lock], Bundle]":
    """Return the function that lays out the overlay of the one image that a bundle is for."""
    from osc_containers.inject import (
        bundle,
        overlay,  # few ask for it
    )

    described = next(iter(found.descriptions))
    architectures = found.architectures_of(described)
    if len(found.descriptions) > 1 or len(architectures) > 1:
        names = ", ".join(each.path.name for each in found.descriptions)
        raise DescriptionError(
            f"{cpio.FILE_NAME}: got {names} for {', '.join(architectures)}, but it holds the containers of one "
            "description for one architecture; name them with 'description' and 'arch'"
        )
    (arch,) = architectures
    containers = found.containers(described, arch)
    paths = overlay.assign_paths(described.of_architecture(arch))
    return lambda lock: bundle.pack(overlay.place(containers, paths, arch, lock))


def _warn_of_visible(found: Request) -> None:
    for described in found.descriptions:
        for container in described.seen_by_obs_build[:1]:
            logger.warning(
                "%s:%d: obs-build sees this <containers> and asks OBS for packages that nobody provides; "
                "run 'osc containers split'",
                container.file,
                container.line,
            )
