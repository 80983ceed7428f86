"""Judging images by the policies, before any layer is fetched."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import VerificationError
from osc_containers.evidence import evaluate
from osc_containers.evidence.evaluate import Evidence, Image, Verdict, Verifier
from osc_containers.evidence.policy.identity import Identity
from osc_containers.evidence.policy.load import read_keys
from osc_containers.evidence.policy.requirements import Policy
from osc_containers.evidence.signatures import programs
from osc_containers.evidence.signatures.signature import Signature
from osc_containers.fs import program
from osc_containers.lock.signature import RecordedSignature
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.pin import Checked, ResolvedReference
from osc_containers.prefetch.signature_finder import Found, SignatureFinder, StoreReader
from osc_containers.sources.registry import RegistryImages

_PARALLEL_CHECKS = 4


class Judgement(NamedTuple):
    """What all policies say of one image; `problem` is empty if they accept it."""

    verdicts: tuple[Verdict, ...]
    found: Found
    problem: str

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The signatures that met a requirement, each once."""
        every = (evidence for verdict in self.verdicts for evidence in verdict.evidence)
        return tuple({evidence.signature: evidence for evidence in every}.values())


class Judge:
    """Judges images by one or more policies, which all must accept them.

    With `is_required`, an image without an accepted signature is refused even if the policies accept anything.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        finder: SignatureFinder | None,
        verifier: Verifier,
        *,
        is_required: bool = False,
    ) -> None:
        self._policies = policies
        self._finder = finder
        self._verifier = verifier
        self._is_required = is_required

    def judge(
        self, image: Image, reference: Reference, index: Digest | None, recorded: Sequence[Signature] = ()
    ) -> Judgement:
        """Judge an image. `recorded` are signatures in the lock; others are looked for only if those do not suffice.

        :raises PolicyError: the configuration of signatures is not valid.
        :raises RegistryError: a store of signatures failed.
        :raises Error: a program that verifies signatures is missing.
        """
        is_needed = evaluate.is_needed(self._policies, image)
        found = Found(tuple(recorded))
        verdicts = self._verdicts(image, found)
        if is_needed and self._finder and not all(verdict.is_accepted for verdict in verdicts):
            found = self._finder.find(reference, image.digest, index)
            verdicts = self._verdicts(image, found)
        return Judgement(verdicts=verdicts, found=found, problem=self._problem(verdicts, found))

    def _verdicts(self, image: Image, found: Found) -> tuple[Verdict, ...]:
        return tuple(
            evaluate.evaluate(each, image, found.signatures, self._verifier, read_keys) for each in self._policies
        )

    def _problem(self, verdicts: Sequence[Verdict], found: Found) -> str:
        refusal = next((verdict for verdict in verdicts if not verdict.is_accepted), None)
        if refusal:
            return "; ".join((refusal.problem(), *found.hints))
        if self._is_required and not any(verdict.is_signed for verdict in verdicts):
            scopes = ", ".join(f"{verdict.policy} (scope {verdict.scope})" for verdict in verdicts)
            return (
                f"signatures=required, but {scopes or 'there is no policy.json, which'} asks for no signature of it; "
                'add a scope with "sigstoreSigned" or "signedBy" for it'
            )
        return ""


class CheckedImage(NamedTuple):
    """An image to check: where it comes from, and what the lock has of its signatures.

    `where` is the line of the description; `index_digest` that of the index that lists the manifest, if there is one.
    """

    where: str
    reference: Reference
    arch: str
    location: str
    digest: Digest
    index_digest: Digest | None
    recorded: tuple[RecordedSignature, ...] = ()


def checked_image(where: str, resolved: ResolvedReference, arch: str) -> CheckedImage:
    """Return the image for an architecture of a resolved reference."""
    image = resolved.images[arch].image
    return CheckedImage(
        where=where,
        reference=resolved.reference,
        arch=arch,
        location=resolved.location,
        digest=image.manifest.digest,
        # The outermost one, which the tag names, and which `cosign sign` signs without --recursive.
        index_digest=image.indexes[0].digest if image.indexes else None,
        recorded=resolved.images[arch].signatures,
    )


def judge(
    image: CheckedImage,
    policies: Sequence[Policy],
    open_source: Callable[[str], object],
    package: Path,
    reader: StoreReader,
    *,
    is_required: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Judgement:
    """Judge one image; `reader` is the same for all images of a run.

    :raises Error: as `Judge.judge`.
    """
    transport, _, path = image.location.partition(":")
    # Only images in registries have a name for policies; for others, scopes are paths (containers-policy.json(5)).
    identity = Identity.of(image.reference) if transport == "docker" else None
    source = open_source(image.location) if identity else None
    subject = Image(
        identity=identity,
        digest=image.digest,
        transport=transport,
        path_scopes=() if identity else _path_scopes(package, path),
    )
    finder = SignatureFinder(source, reader) if isinstance(source, RegistryImages) else None
    verifier = programs.Verifier(program.outside(package, environ))
    judge = Judge(policies, finder, verifier, is_required=is_required)
    return judge.judge(
        subject, image.reference, image.index_digest, [evaluate.signature_of(each) for each in image.recorded]
    )


def check(
    resolved: Iterable[ResolvedReference],
    where_of: Mapping[Reference, str],
    policies: Sequence[Policy],
    open_source: Callable[[str], object],
    package: Path,
    *,
    is_required: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Checked:
    """Check all images, several at the same time. `where_of` has the line of the description for each reference.

    :raises VerificationError: some images are not accepted; each is named with its line in the description.
    :raises Error: as `Judge.judge`.
    """
    reader = StoreReader(environ)

    def judge_one(image: CheckedImage) -> Judgement:
        return judge(image, policies, open_source, package, reader, is_required=is_required, environ=environ)

    images = [checked_image(where_of.get(each.reference, ""), each, arch) for each in resolved for arch in each.images]
    with ThreadPoolExecutor(_PARALLEL_CHECKS) as pool:
        judgements = list(pool.map(judge_one, images))
    pairs = list(zip(images, judgements, strict=True))
    problems = [
        f"{image.where}: {image.reference} ({image.arch}): {each.problem}" for image, each in pairs if each.problem
    ]
    if problems:
        raise VerificationError(*problems)
    return Checked(
        signatures={
            (image.reference, image.arch): tuple(evidence.signature for evidence in each.evidence)
            for image, each in pairs
        },
        keys={evidence.signature.key: evidence.key for _, each in pairs for evidence in each.evidence},
    )


def _path_scopes(package: Path, path: str) -> tuple[str, ...]:
    """Return the scopes of an image in a file or a directory: its path, and those above it."""
    resolved = Path(os.path.realpath(package / path.partition(":")[0]))
    return tuple(str(each) for each in (resolved, *resolved.parents) if each != each.parent)
