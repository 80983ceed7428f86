"""Whether an image has space for its containers, as far as the description limits the size of its file systems.

At the first boot all archives are present. Loading one needs space for the image in the engine's store, and for the
engine's temporary copies of the archive, unless memory holds them (`load.sh`, `choose_copy_place`). The sizes of images
are lower bounds: compressed layers become larger in the store, and only the engine knows how large.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from osc_containers.archive.layout import lay_out
from osc_containers.checks.context import Context, Image
from osc_containers.checks.finding import Finding, Severity
from osc_containers.inject.units import ARCHIVES
from osc_containers.kiwi.backend import BACKENDS
from osc_containers.kiwi.image_type import MEBIBYTE, ImageType, Limit
from osc_containers.lock.lockfile import Lock

_LIMITED = ("oem", "vmx", "btrfs", "ext2", "ext3", "ext4", "xfs")
"""Image types that are a writable file system of a fixed size, or a disk with such file systems."""


class Need(NamedTuple):
    """The space that the containers of an image need, in bytes; `largest` is the largest of the `images`."""

    archives: int
    images: int
    largest: int
    copies: int

    def __str__(self) -> str:
        return (
            f"at the first boot, containers need {_mib(self.archives)} MiB for archives, at least {_mib(self.images)} "
            f"MiB for images and {_mib(self.copies)} MiB for temporary copies"
        )


def check(context: Context) -> Iterator[Finding]:
    """Compare the space that containers need with the size of each image type; report the image that needs most."""
    if context.lock is None:
        return
    worst: dict[tuple[str, int], tuple[Need, ImageType, Image]] = {}
    for image in context.images():
        need = _need(image, context.lock)
        # Several images have the same type, one for each set of profiles. The largest need decides.
        for kind in image.types:
            previous = worst.get((kind.file, kind.line))
            if kind.image in _LIMITED and (previous is None or sum(need) > sum(previous[0])):
                worst[kind.file, kind.line] = need, kind, image
    for need, kind, image in worst.values():
        directories = (ARCHIVES, *(path for each in image.containers for path in BACKENDS[each.backend].stores))
        mounts = [each for each in kind.mounts if any(f"{path}/".startswith(f"{each}/") for path in directories)]
        if mounts and need.images:
            # How containers are divided among file systems depends on the engine. The packager can do that sum.
            why = f"{', '.join(mounts)[:160]} has a size of its own: {need} ({image})"
            yield Finding(severity=Severity.INFO, check="size", file=kind.file, line=kind.line, why=why)
        elif kind.root:
            yield from _compare(kind.file, kind.root, need, image)


def _need(image: Image, lock: Lock) -> Need:
    pairs = ((container, lock.image_for(container.reference, image.arch)) for container in image.containers)
    sizes = [
        (container, lay_out(locked_image.image, container.reference, image.arch).size)
        for container, locked_image in pairs
        if locked_image
    ]
    loads = [(container.backend, size) for container, size in sizes if not container.fetch_only]
    return Need(
        archives=sum({container.reference: size for container, size in sizes}.values()),
        images=sum(size for _, size in loads),
        largest=max((size for _, size in loads), default=0),
        # Docker copies the archive once before it unpacks it, podman and container-snap copy it twice.
        copies=max((size if backend == "docker" else 2 * size for backend, size in loads), default=0),
    )


def _compare(file: str, limit: Limit, need: Need, image: Image) -> Iterator[Finding]:
    increase = need.images + need.copies
    if limit.is_additive:
        # kiwi adds the limit to the size of all files in the image, and the archives are among them.
        if increase <= limit.size:
            return
        severity = Severity.WARNING if limit.size else Severity.INFO
        verdict = (
            "is too small" if limit.size else "kiwi leaves half the size of all data free, which may be too little"
        )
    else:
        if need.archives + increase <= limit.size:
            return
        # The image that is being loaded exists beside its archive. All else can fit, if memory takes the copies.
        is_certain = need.archives + need.largest > limit.size
        severity = Severity.ERROR if is_certain else Severity.WARNING
        verdict = "is too small" if is_certain else "may be too small"
    fix = f'<size unit="M" additive="true">{_mib(increase)}</size>'
    if limit.text.startswith("<oem-systemsize>"):
        fix = f"<oem-systemsize> with the size of the system in MiB plus {_mib(need.archives + increase)}"
    yield Finding(
        severity=severity,
        check="size",
        file=file,
        line=limit.line,
        why=f"{limit.text} {verdict}: {need} ({image})",
        fix=fix,
    )


def _mib(size: int) -> int:
    return math.ceil(size / MEBIBYTE)
