"""Checks that the engines of a description can load the images that are locked; layers are not read."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from osc_containers.archive.blobs import PackageBlobs
from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity
from osc_containers.errors import DescriptionError
from osc_containers.obs import service_file
from osc_containers.obs.loadability import Judgement, judge
from osc_containers.obs.selection import image_requests
from osc_containers.oci import quirk
from osc_containers.oci.chain import Claim
from osc_containers.oci.manifest import Manifest, parse_document


def check(context: Context) -> Iterator[Finding]:
    """Check each image by its manifest in the package, or else by what the lock says of it."""
    if context.lock is None:
        return
    try:
        requests = image_requests(context.request)
    except DescriptionError:  # reported by the check of the layout
        return
    choices = service_file.engine_choices(context.entries)
    with ExitStack() as stack:
        blobs = PackageBlobs(context.package, context.lock, stack)
        for request in requests:
            entry = context.lock.references.get(request.reference)
            for arch in request.architectures:
                if entry is None or arch not in entry.images:  # reported by the check of the archives
                    continue
                claim = entry.claim(request.reference, arch)
                manifest = _manifest(blobs, claim)
                found = quirk.find(manifest)
                # The configuration and the layers may be missing or damaged, so each of the three is judged by itself.
                if config := blobs.document(claim, claim.image.config):
                    found += quirk.find_in_config(config, manifest)
                read_start = partial(blobs.read_start, claim, size=quirk.MAGIC_SIZE)
                found += quirk.find_in_layers(manifest, read_start)
                for judgement in judge(request.reference, arch, request.uses, found, choices):
                    yield _finding(judgement)


def _manifest(blobs: PackageBlobs, claim: Claim) -> Manifest:
    """Return the manifest of an image; if the package lacks it, what the lock says of it, which has no URLs."""
    descriptor = claim.image.manifest
    if raw := blobs.document(claim, descriptor):
        try:
            document = parse_document(raw, descriptor.media_type, str(claim.reference))
        except ValueError:  # reported by verify
            document = None
        if isinstance(document, Manifest):
            return document
    return Manifest(raw=b"", media_type=descriptor.media_type, config=claim.image.config, layers=claim.image.layers)


def _finding(judgement: Judgement) -> Finding:
    severity = Severity.INFO if judgement.is_fetch_only else Severity.WARNING
    file, _, line = judgement.where.rpartition(":")
    return Finding(
        severity=Severity.ERROR if judgement.will_fail else severity,
        check="load",
        file=file,
        line=int(line),
        why=judgement.why,
        fix=judgement.fix,
    )
