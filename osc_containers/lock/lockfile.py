"""The lock file: what every reference of a package was pinned to.

JSON that diffs well: sorted keys, two spaces, a final newline. Architectures are kiwi's names; sizes are in bytes.

    {"version": "1.0",
     "containers": {REFERENCE: {
        "digest", "mediaType"                             of what the reference named: an index, or the manifest itself
        "architectures": {ARCH: {
            "manifest", "config": {"digest", "mediaType", "size"}, "layers": [the same, …],
            "created"                                     as the image's configuration says, where it does
            "archive": {"name", "sha256", "size"}}}}}}
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from osc_containers.errors import LockError
from osc_containers.formats import strict_json
from osc_containers.formats.strict_json import Fields
from osc_containers.lock.archive_names import ARCHIVE_SUFFIX
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor, is_date
from osc_containers.oci.reference import Reference

FILE_NAME = "containers.lock"
LIMIT = 64 << 20
"""Bytes of a lock file; a thousand containers for eight architectures stay below."""
PROBLEM_LIMIT = 50
"""Problems of one file that are named; whoever reads that far does not read on."""

_MAJOR, _MINOR = 1, 0
_ARCHIVE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")


class ArchiveFile(NamedTuple):
    """An archive as a file in the package; `size` in bytes, `sha256` in hexadecimal, both of the whole file."""

    name: str
    size: int
    sha256: str


class LockedImage(NamedTuple):
    """One image for one architecture, and the archive that holds it."""

    image: Image
    created: str
    """The creation date in the image's configuration, RFC 3339; empty where there is none."""
    archive: ArchiveFile


class LockedReference(NamedTuple):
    """What a reference named when it was pinned, and its image for each architecture."""

    digest: Digest
    media_type: str
    images: Mapping[str, LockedImage]

    def image_for(self, arch: str) -> LockedImage | None:
        """Return the image for a kiwi architecture, by its name or by another name of the same platform."""
        if arch in self.images:
            return self.images[arch]
        wanted = platform.of_architecture(arch)
        return next((self.images[a] for a in sorted(self.images) if platform.of_architecture(a) == wanted), None)


class Lock(NamedTuple):
    """Everything that is pinned."""

    references: Mapping[Reference, LockedReference]
    newer: bool = False
    """Whether the file was of a later minor version: it may say more than was read."""

    def image_for(self, reference: Reference, arch: str) -> LockedImage | None:
        """Return the image of a reference for a kiwi architecture, or None where it is not pinned."""
        locked = self.references.get(reference)
        return locked.image_for(arch) if locked else None

    def architectures(self) -> tuple[str, ...]:
        """Return the architectures for which anything is pinned."""
        return tuple(dict.fromkeys(arch for _, arch, _ in self.images()))

    def images(self) -> Iterator[tuple[Reference, str, LockedImage]]:
        """Yield each image with its reference and architecture, sorted."""
        for reference in sorted(self.references, key=str):
            for arch in sorted(self.references[reference].images):
                yield reference, arch, self.references[reference].images[arch]


EMPTY = Lock(references={})


def dumps(lock: Lock) -> str:
    """Return the text of the lock file."""
    containers = {str(reference): _dump_reference(locked) for reference, locked in lock.references.items()}
    document = {"version": f"{_MAJOR}.{_MINOR}", "containers": containers}
    text = io.StringIO()  # `json.dumps` has all of its pieces in memory before it joins them
    json.dump(document, text, indent=2, sort_keys=True, ensure_ascii=False)
    return text.getvalue() + "\n"


def _dump_reference(locked: LockedReference) -> dict[str, object]:
    return {
        "digest": str(locked.digest),
        "mediaType": locked.media_type,
        "architectures": {arch: _dump_image(image) for arch, image in locked.images.items()},
    }


def _dump_image(locked: LockedImage) -> dict[str, object]:
    archive = locked.archive
    return {
        "archive": {"name": archive.name, "sha256": archive.sha256, "size": archive.size},
        **({"created": locked.created} if locked.created else {}),
        "manifest": _dump_descriptor(locked.image.manifest),
        "config": _dump_descriptor(locked.image.config),
        "layers": [_dump_descriptor(layer) for layer in locked.image.layers],
    }


def _dump_descriptor(blob: Descriptor) -> dict[str, object]:
    return {"digest": str(blob.digest), "mediaType": blob.media_type, "size": blob.size}


def loads(text: str, where: str = FILE_NAME) -> Lock:
    """Read the text of a lock file.

    :raises LockError: it is not one, or one of an unknown major version; the first problem of each reference is named.
    """
    if re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE):
        raise LockError(f"{where}: has merge-conflict markers; take either side, then run the prefetch again")
    try:
        document = strict_json.load(text, where)
        newer = _is_newer(document)
        containers = document.member("containers")
    except ValueError as error:
        raise LockError(_with_advice(str(error), where)) from None
    references: dict[Reference, LockedReference] = {}
    problems: list[str] = []
    for name in containers.values:
        try:
            references[_reference(name, containers.path(name))] = _load_reference(containers.member(name))
        except ValueError as error:
            problems.append(_with_advice(str(error), where))
    problems += _clashes(references, where)
    if len(problems) > PROBLEM_LIMIT:
        problems[PROBLEM_LIMIT:] = [f"{where}: {len(problems) - PROBLEM_LIMIT} more problems"]
    if problems:
        raise LockError(*problems)
    return Lock(references=references, newer=newer)


def _with_advice(problem: str, where: str) -> str:
    is_own = where == FILE_NAME  # else it is a file that `diff` was given, or one of another revision
    return f"{problem}; {'remove the lock and run the prefetch again' if is_own else 'expected a lock'}"


def _is_newer(document: Fields) -> bool:
    version = document.text("version")
    match = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})", version)
    if match is None:
        raise ValueError(f"{document.path('version')}: got {version[:40]!r}, expected '{_MAJOR}.{_MINOR}'")
    if int(match[1]) != _MAJOR:
        raise LockError(f"{document.where}: got version {version}, expected {_MAJOR}.x; use a release that knows it")
    return int(match[2]) > _MINOR


def _reference(name: str, where: str) -> Reference:
    try:
        reference = Reference.parse(name)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if str(reference) != name:
        raise ValueError(f"{where}: expected the complete reference {str(reference)[:300]!r}")
    return reference


def _load_reference(entry: Fields) -> LockedReference:
    images = {}
    for arch, item in entry.member("architectures").items():
        if arch not in platform.ARCHITECTURES:
            raise ValueError(f"{item.where}: expected one of {', '.join(platform.ARCHITECTURES)}")
        images[arch] = _load_image(item)
    if not images:
        raise ValueError(f"{entry.path('architectures')}: got none, expected at least one")
    return LockedReference(digest=Descriptor.digest_of(entry), media_type=entry.line("mediaType"), images=images)


def _load_image(item: Fields) -> LockedImage:
    image = Image(
        manifest=Descriptor.from_fields(item.member("manifest")),
        config=Descriptor.from_fields(item.member("config")),
        layers=tuple(Descriptor.from_fields(layer) for layer in item.members("layers")),
    )
    created = item.line("created", "")
    if created and not is_date(created):
        raise ValueError(f"{item.path('created')}: got {created[:80]!r}, expected a date of RFC 3339")
    return LockedImage(image=image, created=created, archive=_load_archive(item.member("archive")))


def _load_archive(item: Fields) -> ArchiveFile:
    name, sha256 = item.text("name"), item.text("sha256")
    # The name becomes a path: it must stay in the package, and be no other kind of file there.
    if not _ARCHIVE_NAME.fullmatch(name) or not name.endswith(ARCHIVE_SUFFIX):
        raise ValueError(
            f"{item.path('name')}: got {name[:300]!r}, expected a plain file name that ends in {ARCHIVE_SUFFIX!r}"
        )
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"{item.path('sha256')}: got {sha256[:80]!r}, expected 64 lower-case hexadecimal digits")
    return ArchiveFile(name=name, size=item.size("size"), sha256=sha256)


def _clashes(references: Mapping[Reference, LockedReference], where: str) -> Iterator[str]:
    owners: dict[str, str] = {}
    for reference, arch, locked in Lock(references=references).images():
        owner = f"{str(reference)[:300]} ({arch})"
        other = owners.setdefault(locked.archive.name, owner)
        if other != owner:
            yield _with_advice(f"{where}: {locked.archive.name} stands for {other} and for {owner}", where)
