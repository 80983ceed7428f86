"""Whether an image has room for its containers while they are loaded, as far as its description says how large it is.

At the first boot all archives are there. Loading one needs room for the image in the engine's store, which is at least
as large as the archive, and for the engine's temporary copies (`load.sh`, `choose_copy_place`): two of the archive
beside it (podman, container-snap) where memory does not take them, or one in the store (docker). Then the archive goes.
Compressed layers become larger in the store; how much, only the engine knows.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from osc_containers.checks.context import Image, Subject
from osc_containers.checks.finding import Finding, Severity
from osc_containers.inject.units import ARCHIVES
from osc_containers.kiwi.backend import BACKENDS
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.image_type import MEBIBYTE, ImageType, Limit
from osc_containers.lock.lockfile import Lock

_LIMITED = ("oem", "vmx", "btrfs", "ext2", "ext3", "ext4", "xfs")
"""Types of images that are a file system, or a disk with some."""

_RESERVE = 0.5
"""What kiwi adds to the size of the data, as a part of it, when it computes a size (kiwi/system/size.py)."""


class Need(NamedTuple):
    """What one file system has to hold, in bytes: the archives, the images of the stores in it, the largest copies."""

    archives: int
    images: int
    copies: int

    @property
    def total(self) -> int:
        """All at the same time, the copies included."""
        return self.archives + self.images + self.copies


def check(subject: Subject) -> Iterator[Finding]:
    """Compare what containers need with the limits of each image; of one limit the worst is said."""
    if subject.lock is None:
        return
    worst: dict[tuple[str, Limit], tuple[Need, Image]] = {}
    for image in subject.images():
        loads = _loads(image.containers, image.arch, subject.lock)
        for kind in image.types:
            for limit, need in _needs(kind, loads) if kind.image in _LIMITED else ():
                known = worst.get((kind.file, limit))
                if known is None or need.total > known[0].total:
                    worst[kind.file, limit] = need, image
    for (file, limit), (need, image) in worst.items():
        yield from _compare(file, limit, need, image)


def _loads(containers: Sequence[Container], arch: str, lock: Lock) -> list[tuple[Container, int]]:
    pairs = ((container, lock.image_for(container.reference, arch)) for container in containers)
    return [(container, locked.archive.size) for container, locked in pairs if locked]


def _needs(kind: ImageType, loads: Sequence[tuple[Container, int]]) -> Iterator[tuple[Limit, Need]]:
    """Yield each limit of an image with what has to be below it."""
    limits = ({"/": kind.root} if kind.root else {}) | dict(kind.mounts)
    for mount, limit in limits.items():
        yield limit, needed(loads, mount, {"/", *limits})


def needed(loads: Sequence[tuple[Container, int]], mount: str, mounts: set[str]) -> Need:
    """Return what the file system at `mount` has to hold."""
    archives = sum({container.reference: size for container, size in loads}.values())
    in_archives = _mount_of(ARCHIVES, mounts) == mount
    copies = images = largest = 0
    for container, size in loads:
        if container.fetch_only:
            continue
        in_store = mount in _stores(container.backend, mounts)
        if in_store:
            images, largest = images + size, max(largest, size)
        if container.backend == "docker":
            copies = max(copies, size if in_store else 0)
        else:
            copies = max(copies, 2 * size if in_archives else 0)
    # Where both are, an image takes the room of an archive that has gone, but for the one that is being loaded.
    return Need(archives=archives if in_archives else 0, images=largest if in_archives else images, copies=copies)


def _stores(backend: str, mounts: set[str]) -> set[str]:
    """Return where an engine may store: of docker's two places, the one with a file system of its own is meant."""
    found = {_mount_of(path, mounts) for path in BACKENDS[backend].stores}
    return found - {_mount_of("/var/lib", mounts)} or found


def _mount_of(path: str, mounts: set[str]) -> str:
    return max((mount for mount in mounts if f"{path}/".startswith(mount.rstrip("/") + "/")), key=len)


def _compare(file: str, limit: Limit, need: Need, image: Image) -> Iterator[Finding]:
    room, least = limit.size, need.archives + need.images
    if limit.is_additive:
        # kiwi measures the data, with the archives in it, and adds to that its reserve and the limit.
        room, least = room + int(need.archives * _RESERVE), need.images
    if least + need.copies <= room:
        return
    if limit.is_additive and not limit.size:
        severity, verdict = Severity.INFO, "kiwi leaves half of the size of all data free, which may be too little"
    elif least <= room:
        severity, verdict = Severity.WARNING, "too small, unless memory takes the temporary copies"
    else:
        severity, verdict = (Severity.WARNING if limit.is_additive else Severity.ERROR), "too small"
    why = (
        f"{limit.text}: {verdict}: while containers are loaded, there are archives of {_mib(need.archives)}, images of "
        f"{_mib(need.images)} or more, and temporary copies of {_mib(need.copies)} ({image})"
    )
    yield Finding(severity=severity, check="size", file=file, line=limit.line, why=why, fix=_fix(limit, need))


def _fix(limit: Limit, need: Need) -> str:
    mebibytes = math.ceil((need.images + need.copies) / MEBIBYTE)
    if limit.text.startswith("<volume"):
        return f'{limit.text[:-1]} freespace="{mebibytes}M"/>'.replace("'", '"')
    if limit.text.startswith("<partition"):
        return f'{limit.text[:-1]} size="{math.ceil(need.total / MEBIBYTE)}M"/>'.replace("'", '"')
    if limit.text.startswith("<oem-systemsize>"):
        return f"<oem-systemsize>…</oem-systemsize>, the system and {math.ceil(need.total / MEBIBYTE)} more"
    return f'<size unit="M" additive="true">{mebibytes}</size>'


def _mib(count: int) -> str:
    return f"{math.ceil(count / MEBIBYTE)} MiB"
