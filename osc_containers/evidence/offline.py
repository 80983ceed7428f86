"""The evidence in a lock, checked again without a network: in `verify`, and in the build root.

With keys from the lock, this proves only that whoever wrote the lock had signatures by these keys for these manifests.
A policy that the packager does not control proves more: that which a package of the project puts into the build root.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from osc_containers.evidence import evaluate
from osc_containers.evidence.evaluate import Image, Verifier
from osc_containers.evidence.policy.identity import Identity
from osc_containers.evidence.policy.load import read_keys
from osc_containers.evidence.policy.requirements import Policy
from osc_containers.evidence.signatures import openpgp, payload, public_key
from osc_containers.lock.lockfile import LockedImage
from osc_containers.lock.signature import RecordedSignature
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference

logger = logging.getLogger(__name__)


class LockedEvidence(NamedTuple):
    """An image of a lock with its signatures; `location` is where it came from (containers-transports(5))."""

    reference: Reference
    arch: str
    locked: LockedImage
    location: str = "docker://"


def check(
    images: Iterable[LockedEvidence],
    keys: Mapping[str, bytes],
    policies: Sequence[Policy],
    verifier: Verifier,
    *,
    is_required: bool = False,
) -> tuple[str, ...]:
    """Return a problem for each signature that proves nothing, and for each image that a policy does not accept.

    Whether keys and signatures have expired is judged when an image is pinned. Here it gives a warning, because a
    rebuild must not depend on the clock.

    :raises Error: a program that verifies signatures is missing.
    """
    problems: list[str] = []
    for each in images:
        where = f"{each.reference} ({each.arch})"
        digest = each.locked.image.manifest.digest
        for signature in each.locked.signatures:
            try:
                expired = _check_signature(signature, keys[signature.key], digest, verifier)
            except ValueError as error:
                problems.append(
                    f"{where}: signature by {signature.key}: {error}; remove the lock and run the prefetch again"
                )
                continue
            if expired:
                logger.warning("%s: signature by %s: %s", where, signature.key, expired)
        problems += _policy_problems(each, policies, verifier, where)
        if is_required and not each.locked.signatures:
            problems.append(f"{where}: signatures=required, but the lock has none; run the prefetch again")
    return tuple(problems)


def _policy_problems(each: LockedEvidence, policies: Sequence[Policy], verifier: Verifier, where: str) -> Iterable[str]:
    transport = each.location.partition(":")[0]
    # The path of an image that was in a file is not known here, so only the default of its transport can apply.
    image = Image(
        identity=Identity.of(each.reference) if transport == "docker" else None,
        digest=each.locked.image.manifest.digest,
        transport=transport,
    )
    signatures = [evaluate.signature_of(signature) for signature in each.locked.signatures]
    for policy in policies:
        verdict = evaluate.evaluate(policy, image, signatures, verifier, read_keys, accept_expired=True)
        if not verdict.is_accepted:
            hint = "" if signatures else "; the lock has no signature of it: run the prefetch with this policy"
            yield f"{where}: {verdict.problem()}{hint}"


def _check_signature(signature: RecordedSignature, key: bytes, digest: Digest, verifier: Verifier) -> str:
    """Return why a signature counts no longer, or an empty text.

    :raises ValueError: it is not what the lock says.
    """
    expired = ""
    if signature.type == payload.SIGSTORE:
        parsed = public_key.parse_der(key)
        # A key has one encoding in a lock. Otherwise it could be changed there without a change of its meaning.
        if parsed.id != signature.key or parsed.der != key:
            raise ValueError("the key is another one than its id says")
        if not verifier.is_signed(parsed, signature.payload, signature.signature):
            raise ValueError("it was not made by this key over this payload")
        claim = payload.parse(signature.payload, payload.SIGSTORE)
    else:
        ring = openpgp.keyring(key)
        if ring != key or not ring:
            raise ValueError("the key is not an OpenPGP key")
        if openpgp.uncompressed(signature.signature, payload.LIMIT) != signature.signature:
            raise ValueError("the OpenPGP message is compressed, but the lock has messages without compression")
        opened = verifier.open(ring, signature.signature)
        if opened.fingerprint != signature.key:
            raise ValueError(f"it was made by {opened.fingerprint}")
        claim, expired = payload.parse(opened.payload, payload.SIMPLE), opened.expired
    if claim.digest != digest:
        raise ValueError(f"it is for {claim.digest}, but the image is {digest}")
    if claim.identity != signature.identity:
        raise ValueError(f"it is for {claim.identity[:300]!r}, but the lock says {signature.identity[:300]!r}")
    return expired
