"""The containers of a package as `list` shows them, to people and to programs."""

from collections.abc import Iterable
from typing import NamedTuple

from osc_containers.cli import table
from osc_containers.formats import human
from osc_containers.inject import overlay
from osc_containers.kiwi.containers import Container
from osc_containers.lock.lockfile import Lock, LockedImage
from osc_containers.obs.selection import Request


class Row(NamedTuple):
    """A container, its path in the image, and what is locked for it by architecture."""

    container: Container
    path: str
    locked: dict[str, LockedImage]


def rows(request: Request, lock: Lock) -> tuple[Row, ...]:
    """Return what kiwi would put into the images, each container once, in the order of the descriptions."""
    found: dict[Container, Row] = {}
    for part in request.parts:
        for arch in part.architectures:
            paths = overlay.assign_paths(part.description.of_architecture(arch))
            for container in part.description.select(arch, part.profiles):
                row = found.setdefault(container, Row(container=container, path=paths[container], locked={}))
                locked = lock.image_for(container.reference, arch)
                if locked:
                    row.locked[arch] = locked
    return tuple(found.values())


def as_objects(listed: Iterable[Row]) -> list[dict[str, object]]:
    """Return the rows for JSON."""
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
                    "digest": str(locked.image.manifest.digest),
                    "archive": locked.archive.name,
                    "size": locked.archive.size,
                }
                for arch, locked in sorted(row.locked.items())
            },
        }
        for row in listed
    ]


def as_table(listed: Iterable[Row]) -> str:
    """Return the rows as a table; digest and size are of what is locked for the architectures asked for, else `-`."""
    heads = ("REFERENCE", "BACKEND", "ARCH", "PROFILES", "FETCH ONLY", "PINNED", "SIZE")
    lines = []
    for row in listed:
        container = row.container
        pinned = ",".join(dict.fromkeys(locked.image.manifest.digest.short for locked in row.locked.values()))
        size = human.size(sum(locked.archive.size for locked in row.locked.values())) if row.locked else "-"
        lines.append(
            (
                str(container.reference),
                container.backend,
                container.arch or "-",
                container.profiles or "-",
                "yes" if container.fetch_only else "no",
                pinned or "-",
                size,
            )
        )
    return "\n".join(table.render(heads, lines, right=("SIZE",), wrapped=("REFERENCE", "ARCH", "PROFILES", "PINNED")))
