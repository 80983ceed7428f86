"""The containers of a package as `list` prints them: as a table for people, as JSON for programs."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from osc_containers.archive.layout import layout_of
from osc_containers.cli.output import table
from osc_containers.formats import human
from osc_containers.inject import overlay
from osc_containers.kiwi.containers import Container
from osc_containers.lock import archive_names, signature
from osc_containers.lock.lockfile import Lock
from osc_containers.lock.signature import RecordedSignature
from osc_containers.obs.selection import Request
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference


class Archive(NamedTuple):
    """An archive of `size` bytes in the package, the digest of the manifest in it, and the signatures of the image."""

    name: str
    size: int
    manifest: Digest
    signatures: tuple[RecordedSignature, ...] = ()


class Row(NamedTuple):
    """A container, the path of its archive in the image, and its archives in the package, by architecture."""

    container: Container
    path: str
    archives: dict[str, Archive]


def list_containers(request: Request, lock: Lock) -> tuple[Row, ...]:
    """Return the containers that kiwi would put into the images, each once, in the order of the descriptions."""
    result: dict[Container, Row] = {}
    names = lock.archive_names()
    for part in request.parts:
        for arch in part.architectures:
            paths = overlay.assign_paths(part.description.of_architecture(arch))
            for container in part.containers(arch) if part.profiles else part.description.select(arch):
                # The same container for several architectures is one row; its path is that of the first.
                row = result.setdefault(container, Row(container=container, path=paths[container], archives={}))
                claim = lock.claim_for(container.reference, arch)
                if claim:
                    row.archives[arch] = Archive(
                        name=names[claim.reference, claim.arch],
                        size=layout_of(claim).size,
                        manifest=claim.image.manifest.digest,
                        signatures=lock.references[claim.reference].images[claim.arch].signatures,
                    )
    return tuple(result.values())


class BlobRow(NamedTuple):
    """A blob of the lock, and the images that have it, as pairs of reference and architecture."""

    blob: Descriptor
    images: tuple[tuple[Reference, str], ...]


def list_blobs(lock: Lock) -> tuple[BlobRow, ...]:
    """Return the blobs of a lock, the largest first."""
    users: dict[Digest, tuple[Descriptor, list[tuple[Reference, str]]]] = {}
    for reference, arch, locked in lock.images():
        for blob in locked.image.blobs:
            users.setdefault(blob.digest, (blob, []))[1].append((reference, arch))
    rows = (BlobRow(blob=blob, images=tuple(images)) for blob, images in users.values())
    return tuple(sorted(rows, key=lambda row: (-row.blob.size, row.blob.digest)))


def blobs_as_objects(rows: Iterable[BlobRow]) -> list[dict[str, object]]:
    """Return blobs as objects for JSON; `file` is the name of the file with the layout `blobs`."""
    return [
        {
            "digest": str(row.blob.digest),
            "size": row.blob.size,
            "file": archive_names.blob(row.blob.digest),
            "images": [{"reference": str(reference), "arch": arch} for reference, arch in row.images],
        }
        for row in rows
    ]


def blobs_as_table(rows: Sequence[BlobRow]) -> str:
    """Return blobs as a table, and a line that says what sharing saves."""
    lines = [
        (row.blob.digest.short, human.size(row.blob.size), ", ".join(f"{ref} ({arch})" for ref, arch in row.images))
        for row in rows
    ]
    text = "\n".join(table.render(("BLOB", "SIZE", "IMAGES"), lines, right=("SIZE",), wrapped=("IMAGES",)))
    unique = sum(row.blob.size for row in rows)
    # With layout=archives, each image has its own copy of each of its blobs.
    repeated = sum(row.blob.size * len(row.images) for row in rows)
    shared = sum(len(row.images) > 1 for row in rows)
    total = f"{human.count(len(rows), 'blob')} of {human.size(unique)}, {shared} of them in several images"
    return f"{text}\n\n{total}; {human.size(repeated)} with layout=archives"


def as_objects(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Return the rows as objects for JSON."""
    return [
        {
            "endpoint": row.container.endpoint,
            "reference": str(row.container.reference),
            "origin": row.container.origin,
            "backend": row.container.backend,
            "fetch_only": row.container.fetch_only,
            "path": row.path,
            "arch": row.container.arch,
            "profiles": row.container.profiles,
            "file": row.container.file,
            "line": row.container.line,
            "locked": {
                arch: {
                    "digest": str(archive.manifest),
                    "archive": archive.name,
                    "size": archive.size,
                    "signatures": [{"identity": each.identity, "key": each.key} for each in archive.signatures],
                }
                for arch, archive in sorted(row.archives.items())
            },
        }
        for row in rows
    ]


def as_table(rows: Iterable[Row]) -> str:
    """Return the rows as a table; PINNED and SIZE are those of the images in the lock, or `-`.

    SIGNED BY is there if some image has signatures.
    """
    rows = tuple(rows)
    has_signatures = any(archive.signatures for row in rows for archive in row.archives.values())
    signed = ("SIGNED BY",) if has_signatures else ()
    heads = ("REFERENCE", "BACKEND", "ARCH", "PROFILES", "FETCH ONLY", "PINNED", "SIZE", *signed)
    lines: list[tuple[str, ...]] = []
    for row in rows:
        container = row.container
        digests = ",".join(dict.fromkeys(archive.manifest.short for archive in row.archives.values()))
        signatures = (each for archive in row.archives.values() for each in archive.signatures)
        keys = ",".join(dict.fromkeys(signature.short_key(each.key) for each in signatures))
        size = human.size(sum(archive.size for archive in row.archives.values())) if row.archives else "-"
        lines.append(
            (
                str(container.reference),
                container.backend,
                container.arch or "-",
                container.profiles or "-",
                "yes" if container.fetch_only else "no",
                digests or "-",
                size,
                *((keys or "-",) if has_signatures else ()),
            )
        )
    return "\n".join(table.render(heads, lines, right=("SIZE",), wrapped=("REFERENCE", "ARCH", "PROFILES", "PINNED")))
