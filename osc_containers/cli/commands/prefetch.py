"""`osc-containers prefetch`, and the work of the prefetch service and of `init`."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from osc_containers.cli import arguments, modules
from osc_containers.cli.output import progress
from osc_containers.errors import DescriptionError
from osc_containers.evidence.policy import locations
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import hints, selection, service_file
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import PREFETCH, SERVICES
from osc_containers.obs.selection import ImageRequest, Request
from osc_containers.obs.service_file import SignatureParameters
from osc_containers.sources import local
from osc_containers.sources.interface import FetchContext
from osc_containers.sources.progress import NullProgress, Progress

if TYPE_CHECKING:
    from osc_containers.archive.bundle import Bundle
    from osc_containers.prefetch.pin import Checked, ResolvedReference
    from osc_containers.prefetch.prefetch import CheckSignatures

logger = logging.getLogger(__name__)

_MAX_CONNECTIONS = SERVICES[PREFETCH].parameters["connections"].numbers[-1]
_BY_POLICY = SignatureParameters(mode="policy", policies=(), is_user_choice=False)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "By default, prefetch follows tags and reports those that moved to a different image. Options that are not "
        "given take their value from the service kiwi_containers in _service.",
        "  osc-containers prefetch --arch x86_64 --arch aarch64\n"
        "  osc-containers prefetch --locked                # download what containers.lock pins",
    )
    arguments.add_package(parser)
    arguments.add_parameters(parser)
    arguments.add_local_sources(parser)
    parser.add_argument("--outdir", type=Path, metavar="DIR", help="where to write files (default: the package)")


def run(options: argparse.Namespace) -> int:
    """Prefetch the containers."""
    package, names = Package(options.directory), arguments.drop_empty(options.description)
    request = selection.of_package(
        package, names, arguments.architectures(options.arch), arguments.drop_empty(options.profile)
    )
    # Options take their defaults from the entries for these descriptions, or from all if there is none for them.
    entries = [entry for entry in package.prefetches if any(map(entry.reads, names))] or package.prefetches
    parameters = service_file.signature_parameters(entries, options.signatures, options.policy)
    shows_progress = sys.stderr.isatty() and options.verbosity >= 0
    with progress.on_terminal() if shows_progress else nullcontext(NullProgress()) as watcher:
        prefetch_all(
            package,
            request,
            outdir=options.outdir or options.directory,
            locked=options.locked if options.locked is not None else service_file.is_locked(entries),
            signatures=parameters,
            # All entries count, also those that this run does not use: a package has one layout.
            layout=options.layout or service_file.layout(package.prefetches),
            bundled=options.inject == "source" if options.inject else service_file.is_bundled(entries),
            connections=options.connections or service_file.connections(entries),
            watcher=watcher,
            allow_local=options.allow_local,
        )
    return 0


def prefetch_all(
    package: Package,
    request: Request,
    *,
    outdir: Path,
    locked: bool,
    bundled: bool,
    layout: str,
    signatures: SignatureParameters = _BY_POLICY,
    connections: int | None = None,
    watcher: Progress | None = None,
    allow_local: bool = False,
) -> None:
    """Pin and download what is requested, and write it to `outdir`.

    :raises DescriptionError: an image is on this machine, but not in the package, and `allow_local` is not set; or a
        bundle is to have a layout.
    """
    if bundled and layout == "blobs":
        raise DescriptionError(service_file.BUNDLE_HAS_NO_LAYOUT)
    # A build root has no network libraries.
    tls_context = modules.load_network()
    from osc_containers.prefetch import prefetch
    from osc_containers.prefetch.download import partial_file
    from osc_containers.prefetch.plan import archive_files, blob_files, bundle_file
    from osc_containers.registry.retry import Policy
    from osc_containers.sources import transports

    service_file.check_no_bundle(package.service_entries, bundled=bundled)
    if not bundled:
        _warn_of_visible(request)
    _warn_of_undeclared(request)
    image_requests = selection.image_requests(request)
    if not image_requests:
        logger.warning("nothing to do: no <containers> for these architectures and profiles")
    modules.load_sources(each.location for each in image_requests)
    # A locked run reads only the images whose archives are missing.
    if not allow_local and not locked:
        _refuse_local(package, image_requests)
    is_bundle = bundled and bool(image_requests)
    files_of = blob_files if layout == "blobs" else archive_files
    if is_bundle:
        files_of = partial(bundle_file, _pack_for(request))
    with transports.Sources(
        package.directory,
        # Idle connections to keep. Without a limit, the downloads choose their number by cores and latency.
        policy=Policy(connections=connections or _MAX_CONNECTIONS),
        system_context=tls_context,
        allow_local=allow_local,
    ) as sources:
        context = FetchContext(
            open_source=sources.open,
            cancel=sources.cancel,
            connections=connections,
            progress=watcher or NullProgress(),
            describe_access=sources.describe_access,
        )
        try:
            prefetch.prefetch(
                package,
                image_requests,
                context,
                outdir=outdir,
                locked=locked,
                files_of=files_of,
                is_bundle=is_bundle,
                all_requests=_all_requests(package, request),
                check=_signature_check(package, signatures, context),
            )
        except KeyboardInterrupt:
            if partial_file.has_content(partial_file.owner_of(package.directory)):
                raise KeyboardInterrupt("the next run resumes the downloads") from None
            raise


def _signature_check(
    package: Package, parameters: SignatureParameters, context: FetchContext
) -> "CheckSignatures | None":
    """Return the function that judges signatures, or None if nothing asks for one: then nothing more is loaded.

    What the policy of this machine demands, only its user can lift, by an option, and not the package.

    :raises PolicyError: a policy is not valid.
    """
    if parameters.mode == "ignore" and parameters.is_user_choice:
        return None
    is_required = parameters.mode == "required"
    if not (is_required or parameters.policies or locations.policy_json()):
        return None
    modules.load_late("osc_containers.evidence.policy.load")
    from osc_containers.evidence.policy import load

    policies = load.of_package(package.directory, parameters.policies)
    if not is_required and all(each.accepts_anything for each in policies):
        return None
    modules.load_late("osc_containers.prefetch.signatures", "yaml")
    from osc_containers.prefetch import signatures

    def check(resolved: "Sequence[ResolvedReference]", requests: Sequence[ImageRequest]) -> "Checked":
        where_of = {request.reference: request.where for request in requests}
        return signatures.check(
            resolved, where_of, policies, context.open_source, package.directory, is_required=is_required
        )

    return check


def _refuse_local(package: Package, requests: Sequence[ImageRequest]) -> None:
    """Refuse images on this machine before anything is requested, so that the last message is how to allow them."""
    problems = [
        problem
        for each in requests
        if local.is_local(package.directory, each.location)
        for problem in local.refusal(f"{each.where}: {each.location}").problems
    ]
    if problems:
        raise DescriptionError(*problems)


def _all_requests(package: Package, request: Request) -> tuple[ImageRequest, ...]:
    """Return everything that the package requests by itself.

    Where `_service` names no architecture, those of this run count as its default: they may come from an option.
    """
    configured = selection.of_package(package)
    explicit = {arch for part in configured.with_explicit_arch.parts for arch in part.explicit_architectures}
    default = dict.fromkeys(arch for part in request.parts for arch in part.architectures if arch not in explicit)
    return selection.image_requests(configured.with_default_architectures(tuple(default)))


def _pack_for(request: Request) -> "Callable[[Lock], Bundle]":
    modules.load_late("osc_containers.inject.bundle")  # needed for bundles only
    from osc_containers.inject import bundle

    return bundle.pack_for(request)


def _warn_of_visible(request: Request) -> None:
    """Warn once for each description whose containers obs-build would turn into build dependencies."""
    for description in request.descriptions:
        for container in description.seen_by_obs_build[:1]:
            logger.warning(
                "%s:%d: OBS would require a package for each of these containers and report the build as unresolvable; "
                "run '%s'",
                *(container.file, container.line, hints.own(description.path.parent, "split")),
            )


def _warn_of_undeclared(request: Request) -> None:
    """Warn of containers that are not fetched because no image can have them, which may be a misspelled profile."""
    for description in request.descriptions:
        declared = {profile.name for profile in description.profiles}
        for container in description.containers:
            if container.profiles and not description.is_fragment and declared.isdisjoint(container.profile_names):
                where = f"{container.file}:{container.line}"
                logger.warning("%s: not fetched, because no profile of its section is declared", where)
