"""What a policy says of an image with given signatures.

The outcome is that of podman and skopeo (containers/image, `signature/policy_eval*.go`): every requirement of the scope
must be met, and one signature is enough for each. Only the programs that verify signatures are I/O here.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from osc_containers.errors import Error
from osc_containers.evidence import json_object
from osc_containers.evidence.policy.identity import Identity
from osc_containers.evidence.policy.requirements import ACCEPT, GPG, REJECT, Policy, Requirement
from osc_containers.evidence.signatures import openpgp, payload, public_key
from osc_containers.evidence.signatures.payload import SIGSTORE, SIMPLE, Claim
from osc_containers.evidence.signatures.programs import Opened
from osc_containers.evidence.signatures.public_key import PublicKey
from osc_containers.evidence.signatures.signature import MEDIA_TYPE, Signature
from osc_containers.lock.signature import RecordedSignature
from osc_containers.oci.digest import Digest


class Verifier(Protocol):
    """What `programs.Verifier` does."""

    def is_signed(self, key: PublicKey, payload: bytes, signature: bytes, /) -> bool:
        """Return whether the signature is right."""

    def open(self, ring: bytes, message: bytes, /) -> Opened:
        """Return what is in a message with one good signature."""


class Image(NamedTuple):
    """The image that is judged: its name, and the digest of the manifest for its platform.

    `identity` is None for images that are not in a registry; `path_scopes` are the scopes of those.
    """

    identity: Identity | None
    digest: Digest
    transport: str = "docker"
    path_scopes: tuple[str, ...] = ()

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that it belongs to, the narrowest first."""
        return tuple(self.identity.scopes()) if self.identity else self.path_scopes


class Evidence(NamedTuple):
    """A signature that met a requirement, and the key that made it; `expired` is a warning or empty."""

    signature: RecordedSignature
    key: bytes
    expired: str = ""


class Outcome(NamedTuple):
    """Whether a requirement is met, by which evidence, or why not: a reason for each signature."""

    requirement: Requirement
    is_met: bool
    evidence: Evidence | None = None
    reasons: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What one policy says of one image; `scope` is the one that applied."""

    policy: str
    scope: str
    outcomes: tuple[Outcome, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether every requirement is met."""
        # `all` is true for no outcomes, but no policy accepts an image without saying so.
        return bool(self.outcomes) and all(outcome.is_met for outcome in self.outcomes)

    @property
    def is_signed(self) -> bool:
        """Whether a signature was needed and found."""
        return any(outcome.evidence for outcome in self.outcomes)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The signatures that met requirements."""
        return tuple(outcome.evidence for outcome in self.outcomes if outcome.evidence)

    def problem(self) -> str:
        """Return in one sentence why the image is not accepted."""
        outcome = next(outcome for outcome in self.outcomes if not outcome.is_met)
        scope = f"(scope {self.scope})"
        requirement = outcome.requirement
        if requirement.type == REJECT:
            return f"{self.policy} rejects it {scope}; choose another image, or ask who wrote the policy"
        if requirement.unsupported:
            return (
                f"{self.policy} asks for {requirement.unsupported} {scope}, which is not supported; use a key, as in "
                '{"type": "sigstoreSigned", "keyPath": …}'
            )
        if not outcome.reasons:
            return f"{self.policy} asks for a signature {scope}, but the image has none"
        return f"{self.policy} accepts none of its signatures {scope}: {'; '.join(dict.fromkeys(outcome.reasons))}"


def signature_of(recorded: RecordedSignature) -> Signature:
    """Return a signature of a lock as one to judge."""
    if recorded.type == SIMPLE:
        return Signature(format=SIMPLE, payload=b"", value=recorded.signature)
    value = b64encode(recorded.signature).decode()
    return Signature(format=SIGSTORE, payload=recorded.payload, value=value)


def is_needed(policies: Iterable[Policy], image: Image) -> bool:
    """Return whether signatures decide what the policies say, so that they must be looked for."""
    return any(
        each.needs_signature for policy in policies for each in policy.requirements(image.transport, image.scopes)[1]
    )


def evaluate(
    policy: Policy,
    image: Image,
    signatures: Sequence[Signature],
    verifier: Verifier,
    keys_of: Callable[[Policy, Requirement], tuple[bytes, ...]],
    *,
    accept_expired: bool = False,
) -> Verdict:
    """Judge an image by one policy. `keys_of` returns the content of the files with the keys of a requirement.

    :raises Error: a program that verifies signatures is missing or cannot work.
    """
    scope, requirements = policy.requirements(image.transport, image.scopes)
    outcomes = []
    for requirement in requirements:
        if requirement.type == ACCEPT:
            outcome = Outcome(requirement, is_met=True)
        elif requirement.unsupported or not requirement.needs_signature:
            outcome = Outcome(requirement, is_met=False)
        else:
            outcome = _judge(policy, requirement, image, signatures, verifier, keys_of, accept_expired)
        outcomes.append(outcome)
    return Verdict(policy=policy.where, scope=scope, outcomes=tuple(outcomes))


class _Refused(ValueError):
    """A signature does not meet the requirement."""


def _judge(
    policy: Policy,
    requirement: Requirement,
    image: Image,
    signatures: Sequence[Signature],
    verifier: Verifier,
    keys_of: Callable[[Policy, Requirement], tuple[bytes, ...]],
    accept_expired: bool,
) -> Outcome:
    format_ = SIMPLE if requirement.type == GPG else SIGSTORE
    # As in podman, signatures of another kind neither meet the requirement nor spoil it.
    fitting = [each for each in signatures if each.format == format_ and each.media_type == MEDIA_TYPE]
    others = len(signatures) - len(fitting)
    if not fitting:
        kind = "OpenPGP signature" if format_ == SIMPLE else "sigstore signature"
        reason = f"it has no {kind}, but {others} of another kind"
        return Outcome(requirement, is_met=False, reasons=(reason,) if others else ())
    reasons: list[str] = []
    try:
        keys = keys_of(policy, requirement)
        judge = _open_simple(requirement, keys) if format_ == SIMPLE else _open_sigstore(requirement, keys)
    except Error as error:
        return Outcome(requirement, is_met=False, reasons=tuple(error.problems))
    except ValueError as error:
        return Outcome(requirement, is_met=False, reasons=(f"{requirement.where}: {error}",))
    for each in fitting:
        try:
            claim, evidence = judge(each, verifier)
            if evidence.expired and not accept_expired:
                raise _Refused(evidence.expired)
            _check_claim(claim, requirement, image)
            return Outcome(requirement, is_met=True, evidence=evidence)
        except ValueError as error:
            reasons.append(str(error))
    return Outcome(requirement, is_met=False, reasons=tuple(reasons))


_Judge = Callable[[Signature, Verifier], tuple[Claim, Evidence]]


def _open_sigstore(requirement: Requirement, keys: tuple[bytes, ...]) -> _Judge:
    # As in podman, one broken key spoils the requirement: it must be noticed before the other key is replaced.
    parsed = [_parse_key(text, requirement, i) for i, text in enumerate(keys)]
    if not parsed:
        raise ValueError("got no key")

    def judge(signature: Signature, verifier: Verifier) -> tuple[Claim, Evidence]:
        if not isinstance(signature.value, str):
            raise _Refused("an attachment has no signature in its annotations")
        value = json_object.base64(signature.value, "the signature")
        key = next((key for key in parsed if verifier.is_signed(key, signature.payload, value)), None)
        if key is None:
            raise _Refused(f"signed with a different key than {_names(requirement)}")
        # Only now is the payload read: before, anybody may have written it.
        claim = payload.parse(signature.payload, SIGSTORE)
        recorded = RecordedSignature(
            type=SIGSTORE, identity=claim.identity, key=key.id, payload=signature.payload, signature=value
        )
        return claim, Evidence(signature=recorded, key=key.der)

    return judge


def _parse_key(text: bytes, requirement: Requirement, index: int) -> PublicKey:
    try:
        return public_key.parse_pem(text)
    except ValueError as error:
        name = requirement.keys.paths[index] if requirement.keys.paths else f"key {index + 1}"
        raise ValueError(f"{name}: {error}") from None


def _open_simple(requirement: Requirement, keys: tuple[bytes, ...]) -> _Judge:
    ring = b"".join(openpgp.keyring(key) for key in keys)
    if not ring:
        raise ValueError("got no key")

    def judge(signature: Signature, verifier: Verifier) -> tuple[Claim, Evidence]:
        if not isinstance(signature.value, bytes):
            raise _Refused("not an OpenPGP message")
        try:
            message = openpgp.uncompressed(signature.value, payload.LIMIT)
            opened = verifier.open(ring, message)
        except ValueError as error:
            if str(error) == "signed with a different key":
                raise _Refused(f"{error} than {_names(requirement)}") from None
            raise
        claim = payload.parse(opened.payload, SIMPLE)
        recorded = RecordedSignature(
            type=SIMPLE, identity=claim.identity, key=opened.fingerprint, payload=b"", signature=message
        )
        key = openpgp.key_of(ring, opened.fingerprint)
        return claim, Evidence(signature=recorded, key=key, expired=opened.expired)

    return judge


def _names(requirement: Requirement) -> str:
    return " or ".join(requirement.keys.paths) or "the one in the policy"


def _check_claim(claim: Claim, requirement: Requirement, image: Image) -> None:
    if claim.digest != image.digest:
        raise _Refused(f"signed for {claim.digest}, not for this image ({image.digest})")
    if image.identity is None:
        raise _Refused("the image is not in a registry, so no signature can name it")
    if not requirement.identity.accepts(image.identity, claim.identity):
        raise _Refused(_identity_problem(claim.identity, requirement, image.identity))


def _identity_problem(signed: str, requirement: Requirement, image: Identity) -> str:
    problem = f"signed as {signed[:300]!r}, but {requirement.identity.type} in the policy"
    if signed == image.name and requirement.identity.type in ("matchRepoDigestOrExact", "matchExact"):
        return (
            f"signed as {signed!r}, but the policy also matches the tag; cosign and OBS sign without it: use "
            '"signedIdentity": {"type": "matchRepository"}'
        )
    expected = (
        f" expects {requirement.identity.values[0]!r}" if requirement.identity.values else f" expects {str(image)!r}"
    )
    return problem + expected
