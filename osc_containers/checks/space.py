"""Whether an image has space for its containers, as far as the description limits the size of its file systems.

At the first boot the layouts of all containers are present, and archives for `fetch_only`. Loading a container needs
space for the image in the engine's store, and for the engine's temporary copies, unless memory holds them (`load.sh`,
`choose_copy_place`). The sizes of images are lower bounds: compressed layers become larger in the store, and only the
engine knows how large.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from osc_containers.archive.layout import layout_of
from osc_containers.checks.context import Context, Image
from osc_containers.checks.finding import Finding, Severity
from osc_containers.inject.layout_directory import LAYOUTS
from osc_containers.kiwi.backend import engine_of
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.image_type import MEBIBYTE, ImageType, Limit
from osc_containers.lock.lockfile import Lock

_LIMITED = ("oem", "vmx", "btrfs", "ext2", "ext3", "ext4", "xfs")
"""Image types that are a writable file system of a fixed size, or a disk with such file systems."""


class Need(NamedTuple):
    """The space that the containers of an image need, in bytes.

    `layers` is what the file of the image holds: layouts and archives. `largest` is the largest of the `images`.
    """

    layers: int
    images: int
    largest: int
    copies: int

    def __str__(self) -> str:
        return (
            f"at the first boot, containers need {_mib(self.layers)} MiB for layers, at least {_mib(self.images)} MiB "
            f"for images and {_mib(self.copies)} MiB for temporary copies"
        )


def check(context: Context) -> Iterator[Finding]:
    """Compare the space that containers need with the size of each image type; report the image that needs most."""
    if context.lock is None:
        return
    worst: dict[tuple[str, int], tuple[Need, ImageType, Image]] = {}
    targets, stored = context.targets, context.stored_containers
    for image in context.images():
        need = _need(image, context.lock, stored, targets)
        # Several images have the same type, one for each set of profiles. The largest need decides.
        for kind in image.types:
            previous = worst.get((kind.file, kind.line))
            if kind.image in _LIMITED and (previous is None or sum(need) > sum(previous[0])):
                worst[kind.file, kind.line] = need, kind, image
    for need, kind, image in worst.values():
        used = (engine_of(target) for each in image.containers for target in targets[each] or (each.backend,))
        # Where the bytes will be: layouts, the stores of the engines, and archives for engines that take them.
        directories = (LAYOUTS, *(path for engine in used for path in (*engine.stores, engine.archives) if path))
        mounts = [each for each in kind.mounts if any(f"{path}/".startswith(f"{each}/") for path in directories)]
        if mounts and need.images:
            # How containers are divided among file systems depends on the engine. The packager can do that sum.
            why = f"{', '.join(mounts)[:160]} has a size of its own: {need} ({image})"
            yield Finding(severity=Severity.INFO, check="size", file=kind.file, line=kind.line, why=why)
        elif kind.root:
            yield from _compare(kind.file, kind.root, need, image)


def _need(
    image: Image, lock: Lock, in_store: Collection[Container], targets: Mapping[Container, Sequence[str]]
) -> Need:
    claims = [
        (container, claim)
        for container in image.containers
        if (claim := lock.claim_for(container.reference, image.arch))
    ]
    archives = {claim.reference: layout_of(claim).size for each, claim in claims if _has_archive(targets[each])}
    # A store is about as large as the compressed layers, and nothing is loaded from it.
    files = [(each, claim.image.blobs) for each, claim in claims if each in in_store or _has_layout(targets[each])]
    loads = [
        (engine_of(target).loaded_by or target, claim.image.blobs)
        for each, claim in claims
        if each not in in_store
        for target in targets[each]
    ]
    sizes = [(target, sum(blob.size for blob in blobs)) for target, blobs in loads]
    # Files are linked within an overlay directory, and engines share layers within their stores.
    layers = {
        (name, blob.digest): blob.size
        for container, blobs in files
        for name in (set(container.profile_names) & set(image.profile_names) or {""})
        for blob in blobs
    }
    stored = {(target, blob.digest): blob.size for target, blobs in loads for blob in blobs}
    return Need(
        layers=sum(archives.values()) + sum(layers.values()),
        images=sum(stored.values()),
        largest=max((size for _, size in sizes), default=0),
        # Containers are loaded one after the other. container-snap reads an archive as a file, and copies it twice.
        copies=max((3 * size if target == "container-snap" else size for target, size in sizes), default=0),
    )


def _has_archive(targets: Sequence[str]) -> bool:
    return not targets or any(engine_of(target).archives for target in targets)


def _has_layout(targets: Sequence[str]) -> bool:
    return any(not engine_of(target).archives for target in targets)


def _compare(file: str, limit: Limit, need: Need, image: Image) -> Iterator[Finding]:
    increase = need.images + need.copies
    if limit.is_additive:
        # kiwi adds the limit to the size of all files in the image, and the layers are among them.
        if increase <= limit.size:
            return
        severity = Severity.WARNING if limit.size else Severity.INFO
        verdict = (
            "is too small" if limit.size else "kiwi leaves half the size of all data free, which may be too little"
        )
    else:
        if need.layers + increase <= limit.size:
            return
        # The image that is being loaded exists beside its layers. All else can fit, if memory takes the copies.
        is_certain = need.layers + need.largest > limit.size
        severity = Severity.ERROR if is_certain else Severity.WARNING
        verdict = "is too small" if is_certain else "may be too small"
    fix = f'<size unit="M" additive="true">{_mib(increase)}</size>'
    if limit.text.startswith("<oem-systemsize>"):
        fix = f"<oem-systemsize> with the size of the system in MiB plus {_mib(need.layers + increase)}"
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
