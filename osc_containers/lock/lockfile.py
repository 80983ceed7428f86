"""The lock file: the exact content that each reference of a package resolved to.

It is JSON, formatted for small diffs: sorted keys, an indentation of two spaces, a final newline. Architectures have
kiwi's names, of which the canonical ones are written; sizes are in bytes.

    {"version": 1,
     "containers": {REFERENCE: {
        "digest", "mediaType"                             of the index, or of the manifest if there is no index
        "architectures": {ARCH: {
            "manifest", "config": {"digest", "mediaType", "size"}, "layers": [likewise, …],
            "indexes": [likewise, …]                      from the reference's digest to the manifest, if there are any
            "start": "manifest"                           if engines would choose another entry of the last index
            "signatures",                                 what a policy accepted, optional (see `signature`)
            "created"}}},                                 creation date in the image's configuration, optional
     "keys"}                                              the keys of all signatures, if there are any

The lock says nothing of files: the names of archives follow from the references (`archive_names`), and everything in
them from the descriptors. A release reads the files of its own version only.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from osc_containers import __version__
from osc_containers.errors import LockError
from osc_containers.formats import json_text, strict_json
from osc_containers.formats.strict_json import Fields
from osc_containers.lock import archive_names, signature
from osc_containers.lock.signature import RecordedSignature
from osc_containers.oci import platform
from osc_containers.oci.chain import Claim
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import CONFIG_LIMIT, MANIFEST_LIMIT, Descriptor, is_date
from osc_containers.oci.reference import Reference

FILE_NAME = "containers.lock"
LIMIT = 64 << 20
"""Bytes of a lock file; a thousand containers for eight architectures need less."""
PROBLEM_LIMIT = 50
"""Problems of one file that are reported; the rest is only counted."""

_VERSION = 1
_MANIFEST = "manifest"


class LockedImage(NamedTuple):
    """One image for one architecture."""

    image: Image
    created: str
    """The creation date in the image's configuration (RFC 3339), possibly empty."""
    signatures: tuple[RecordedSignature, ...] = ()
    """The signatures that a policy accepted when the image was pinned."""


class LockedReference(NamedTuple):
    """The digest and media type that a reference resolved to, and its images by architecture."""

    digest: Digest
    media_type: str
    images: Mapping[str, LockedImage]

    def claim(self, reference: Reference, arch: str) -> Claim:
        """Return what the lock claims of the image for an architecture, as the lock names it."""
        locked = self.images[arch]
        return Claim(reference, self.digest, self.media_type, arch, locked.image, locked.created)


class Lock(NamedTuple):
    """The content of a lock file; `keys` has those of the signatures, by id."""

    references: Mapping[Reference, LockedReference]
    keys: Mapping[str, bytes] = MappingProxyType({})

    def image_for(self, reference: Reference, arch: str) -> LockedImage | None:
        """Return the image of a reference for a kiwi architecture, or None if it is not locked."""
        entry = self.references.get(reference)
        return entry.images.get(platform.canonical(arch)) if entry else None

    def claim_for(self, reference: Reference, arch: str) -> Claim | None:
        """Return what the lock claims of a reference for a kiwi architecture, or None if it is not locked."""
        is_locked = self.image_for(reference, arch) is not None
        return self.references[reference].claim(reference, platform.canonical(arch)) if is_locked else None

    def images(self) -> Iterator[tuple[Reference, str, LockedImage]]:
        """Yield each image with its reference and architecture, sorted by both."""
        for reference in sorted(self.references, key=str):
            for arch in sorted(self.references[reference].images):
                yield reference, arch, self.references[reference].images[arch]

    def archive_names(self) -> Mapping[tuple[Reference, str], str]:
        """Return the file name of the archive of each image, by reference and architecture as the lock has it."""
        names = archive_names.flatten(self.references)
        return {
            (reference, arch): archive_names.archive(names[reference], arch) for reference, arch, _ in self.images()
        }


EMPTY = Lock(references={})


def dumps(lock: Lock) -> str:
    """Return the text of a lock file."""
    return encode(lock).decode()


def encode(lock: Lock) -> bytes:
    """Return the content of a lock file."""
    # A reference becomes a dictionary only while it is written: thousands of them at once need a lot of memory.
    containers = {str(reference): partial(_dump_reference, locked) for reference, locked in lock.references.items()}
    document: dict[str, object] = {"version": _VERSION, "containers": containers}
    used = {each.key for _, _, image in lock.images() for each in image.signatures}
    if used:
        document["keys"] = signature.dump_keys({key: lock.keys[key] for key in used})
    return json_text.dumps(document, ensure_ascii=False)


def _dump_reference(locked: LockedReference) -> dict[str, object]:
    return {
        "digest": str(locked.digest),
        "mediaType": locked.media_type,
        "architectures": {arch: _dump_image(image) for arch, image in locked.images.items()},
    }


def _dump_image(locked: LockedImage) -> dict[str, object]:
    return {
        **({"created": locked.created} if locked.created else {}),
        **({"signatures": list(map(signature.dump, locked.signatures))} if locked.signatures else {}),
        "manifest": _dump_descriptor(locked.image.manifest),
        "config": _dump_descriptor(locked.image.config),
        "layers": [_dump_descriptor(layer) for layer in locked.image.layers],
        **({"indexes": [_dump_descriptor(index) for index in locked.image.indexes]} if locked.image.indexes else {}),
        **({"start": _MANIFEST} if locked.image.starts_at_manifest else {}),
    }


def _dump_descriptor(blob: Descriptor) -> dict[str, object]:
    return {"digest": str(blob.digest), "mediaType": blob.media_type, "size": blob.size}


def loads(text: str, where: str = FILE_NAME) -> Lock:
    """Parse the text of a lock file. Error messages start with `where`.

    :raises LockError: the text is not a lock file, or has another version. The error has the first problem of
        each reference.
    """
    # As JSON, this would be a syntax error in some line, which does not tell what to do.
    if re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE):
        raise LockError(f"{where}: has merge conflict markers; keep either side, then run the prefetch again")
    try:
        document = strict_json.load(text, where)
        _check_version(document)
        containers = document.member("containers")
        keys = signature.load_keys(document.member("keys")) if "keys" in document else {}
    except ValueError as error:
        raise LockError(_with_advice(str(error), where)) from None
    references: dict[Reference, LockedReference] = {}
    problems: list[str] = []
    for name in containers.values:
        try:
            references[_reference(name, containers.path(name))] = _load_reference(containers.member(name))
        except ValueError as error:
            problems.append(_with_advice(str(error), where))
    lock = Lock(references=references, keys=keys)
    problems += _find_ambiguous_sizes(lock, where)
    # If a reference could not be read, neither could its signatures, and their keys would seem unused.
    if not problems:
        problems += _find_key_problems(lock, where)
    if len(problems) > PROBLEM_LIMIT:
        problems[PROBLEM_LIMIT:] = [f"{where}: {len(problems) - PROBLEM_LIMIT} more problems"]
    if problems:
        raise LockError(*problems)
    return lock


def _with_advice(problem: str, where: str) -> str:
    # Any other file was an argument of `diff`, or is from another revision; removing it would not help.
    advice = "remove the lock and run the prefetch again" if where == FILE_NAME else "expected a lock file"
    return f"{problem}; {advice}"


def _check_version(document: Fields) -> None:
    # A version that is text belongs to another format, too, and must not lead to the advice to remove the lock.
    value = document.values.get("version")
    version = value if isinstance(value, str) else document.size("version")
    if version != _VERSION:
        # This is not a ValueError, which would get the advice to remove the lock: this lock is not broken.
        raise LockError(
            f"{document.where}: got version {ascii(version)[:40]}, expected {_VERSION}, which osc-containers "
            f"{__version__} reads; another release wrote it: update osc-containers here, or, if this is a build, the "
            "package obs-service-kiwi_containers_inject in the build's repositories"
        )


def _reference(name: str, where: str) -> Reference:
    try:
        reference = Reference.parse(name)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    # Two spellings of the same reference would be two entries, and only one of them would be updated.
    if str(reference) != name:
        raise ValueError(f"{where}: expected the complete reference {str(reference)[:300]!r}")
    return reference


def _load_reference(entry: Fields) -> LockedReference:
    images = {}
    for arch, item in entry.member("architectures").items():
        if arch not in platform.ARCHITECTURES:
            raise ValueError(f"{item.where}: expected one of {', '.join(platform.ARCHITECTURES)}")
        name = platform.canonical(arch)
        if name in images:
            raise ValueError(f"{item.where}: got {name} a second time; it has several names")
        images[name] = _load_image(item)
    if not images:
        raise ValueError(f"{entry.path('architectures')}: got none, expected at least one")
    return LockedReference(digest=Descriptor.digest_of(entry), media_type=entry.line("mediaType"), images=images)


def _load_image(item: Fields) -> LockedImage:
    image = Image(
        manifest=Descriptor.from_fields(item.member("manifest")),
        config=Descriptor.from_fields(item.member("config")),
        layers=tuple(Descriptor.from_fields(layer) for layer in item.members("layers")),
        indexes=tuple(Descriptor.from_fields(index) for index in item.members("indexes")) if "indexes" in item else (),
        starts_at_manifest=item.line("start", "") == _MANIFEST,
    )
    # These documents are read into memory as a whole, and the sizes in a lock cannot be trusted.
    for blob, limit in (
        (image.config, CONFIG_LIMIT),
        *((each, MANIFEST_LIMIT) for each in (image.manifest, *image.indexes)),
    ):
        if blob.size > limit:
            raise ValueError(
                f"{item.where}: {blob.digest}: got a document of {blob.size} bytes, expected at most {limit}"
            )
    created = item.line("created", "")
    if created and not is_date(created):
        raise ValueError(f"{item.path('created')}: got {created[:80]!r}, expected an RFC 3339 date")
    signatures = tuple(map(signature.load, item.members("signatures")))
    if len(signatures) > signature.COUNT_LIMIT:
        raise ValueError(f"{item.path('signatures')}: got more than {signature.COUNT_LIMIT}")
    return LockedImage(image=image, created=created, signatures=signatures)


def _find_key_problems(lock: Lock, where: str) -> Iterator[str]:
    """Yield a problem for each key that a signature names and that is not there, and for each that none names."""
    used = {each.key for _, _, image in lock.images() for each in image.signatures}
    for key in sorted(used ^ lock.keys.keys()):
        what = "a signature names it, but it is not there" if key in used else "no signature names it"
        yield _with_advice(f"{where}: keys[{key!r}]: {what}", where)


def _find_ambiguous_sizes(lock: Lock, where: str) -> Iterator[str]:
    """Yield a problem for each blob that has two sizes: it is stored once for all images."""
    seen: dict[Digest, tuple[int, str]] = {}
    for reference, arch, locked in lock.images():
        owner = f"{str(reference)[:300]} ({arch})"
        for blob in locked.image.blobs:
            size, other = seen.setdefault(blob.digest, (blob.size, owner))
            if size != blob.size:
                problem = f"{where}: {blob.digest} has {size} bytes in {other}, but {blob.size} in {owner}"
                yield _with_advice(problem, where)
