"""The containers of a package as `list` prints them: as a table for people, as JSON for programs."""

from collections.abc import Iterable
from typing import NamedTuple

from osc_containers.cli import table
from osc_containers.formats import human
from osc_containers.inject import overlay
from osc_containers.kiwi.containers import Container
from osc_containers.lock.lockfile import Lock, LockedImage
from osc_containers.obs.selection import Request


class Row(NamedTuple):
    """A container, the path of its archive in the image, and its images in the lock, by architecture."""

    container: Container
    path: str
    locked_images: dict[str, LockedImage]


def list_containers(request: Request, lock: Lock) -> tuple[Row, ...]:
    """Return the containers that kiwi would put into the images, each once, in the order of the descriptions."""
    result: dict[Container, Row] = {}
    for part in request.parts:
        for arch in part.architectures:
            paths = overlay.assign_paths(part.description.of_architecture(arch))
            for container in part.containers(arch) if part.profiles else part.description.select(arch):
                # The same container for several architectures is one row; its path is that of the first.
                row = result.setdefault(container, Row(container=container, path=paths[container], locked_images={}))
                locked_image = lock.image_for(container.reference, arch)
                if locked_image:
                    row.locked_images[arch] = locked_image
    return tuple(result.values())


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
                    "digest": str(image.image.manifest.digest),
                    "archive": image.archive.name,
                    "size": image.archive.size,
                }
                for arch, image in sorted(row.locked_images.items())
            },
        }
        for row in rows
    ]


def as_table(rows: Iterable[Row]) -> str:
    """Return the rows as a table; PINNED and SIZE are those of the images in the lock, or `-`."""
    heads = ("REFERENCE", "BACKEND", "ARCH", "PROFILES", "FETCH ONLY", "PINNED", "SIZE")
    lines = []
    for row in rows:
        container = row.container
        digests = ",".join(dict.fromkeys(image.image.manifest.digest.short for image in row.locked_images.values()))
        size = human.size(sum(image.archive.size for image in row.locked_images.values())) if row.locked_images else "-"
        lines.append(
            (
                str(container.reference),
                container.backend,
                container.arch or "-",
                container.profiles or "-",
                "yes" if container.fetch_only else "no",
                digests or "-",
                size,
            )
        )
    return "\n".join(table.render(heads, lines, right=("SIZE",), wrapped=("REFERENCE", "ARCH", "PROFILES", "PINNED")))
