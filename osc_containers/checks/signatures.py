"""Checks that images are signed where a policy asks for it, and that this stays so."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity
from osc_containers.errors import Error
from osc_containers.evidence import evaluate
from osc_containers.evidence.policy import load
from osc_containers.evidence.policy.identity import Identity
from osc_containers.evidence.policy.requirements import Policy
from osc_containers.evidence.signatures import openpgp
from osc_containers.lock.lockfile import FILE_NAME
from osc_containers.obs import service_file
from osc_containers.obs.parameters import PREFETCH

_SOON = 60 * 24 * 3600
"""Seconds before a key expires in which there is a warning."""


def check(context: Context) -> Iterator[Finding]:
    """Check policies, the evidence in the lock, and the parameter `signatures`."""
    entries = context.entries_of(PREFETCH)
    for entry in entries:
        if entry.value("signatures") == "ignore":
            why = "signatures=ignore: the policies of this package are not used"
            yield Finding(
                Severity.WARNING, "signatures", service_file.FILE_NAME, why, entry.line, "remove the parameter"
            )
    names = service_file.signature_parameters(entries).policies
    try:
        policies = load.of_package(context.package.directory, names)
    except (Error, OSError) as error:
        for problem in str(error).splitlines():
            yield Finding(Severity.ERROR, "signatures", service_file.FILE_NAME, problem)
        return
    if context.lock is None:
        return
    if not all(each.accepts_anything for each in policies):
        yield from _unsigned(context, policies)
    if context.lock.keys:
        yield from _expiring(context.lock.keys)


def _unsigned(context: Context, policies: tuple[Policy, ...]) -> Iterator[Finding]:
    for reference, arch, locked in context.lock.images() if context.lock else ():
        image = evaluate.Image(identity=Identity.of(reference), digest=locked.image.manifest.digest)
        if not locked.signatures and evaluate.is_needed(policies, image):
            why = f"a policy asks for signatures of {reference} ({arch}), but the lock has none"
            yield Finding(Severity.WARNING, "signatures", FILE_NAME, why, fix=context.prefetch_command)


def _expiring(keys: Mapping[str, bytes]) -> Iterator[Finding]:
    now = time.time()
    for name, key in sorted(keys.items()):
        # Public keys of sigstore are named by their SHA-256 and have no date. The others are OpenPGP keys.
        expiry = None if name.startswith("sha256:") else openpgp.expiry(key)
        if expiry is not None and expiry < now + _SOON:
            day = datetime.fromtimestamp(expiry, UTC).date()
            why = f"the key {name} {'expires' if expiry > now else 'has expired'} on {day}"
            fix = "get the new key, name it in the policy, and run the prefetch again"
            yield Finding(Severity.WARNING, "signatures", FILE_NAME, why, fix=fix)
