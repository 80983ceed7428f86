"""The network half: pin what a package asks for, fetch what it does not have, write archives and lock.

Two kinds of run: the default follows tags and says what moved; a locked run fetches exactly what the lock says.
"""

import logging
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from osc_containers.archive import find
from osc_containers.archive.bundle import Bundle, is_bundle
from osc_containers.archive.find import ArchiveLocation
from osc_containers.errors import DescriptionError, Error, LockError
from osc_containers.formats import cpio, human
from osc_containers.fs import atomic, ranges
from osc_containers.fs.rooted_tree import Tree
from osc_containers.lock import archive_names, lockfile
from osc_containers.lock.lockfile import ArchiveFile, Lock, LockedImage, LockedReference
from osc_containers.obs.package import Package
from osc_containers.obs.selection import ImageRequest
from osc_containers.oci.manifest import INDEX_TYPES, Descriptor
from osc_containers.oci.reference import Reference
from osc_containers.prefetch import assemble, checksum_cache
from osc_containers.prefetch import pin as pins
from osc_containers.prefetch.assemble import Order, OutputFile
from osc_containers.prefetch.pin import PinnedImage, ResolvedReference
from osc_containers.sources.interface import FetchContext

logger = logging.getLogger(__name__)

_AT_ONCE = 2
"""Archives that are hashed at a time."""

Pack = Callable[[Lock], Bundle]
"""Lays out the bundle of what a lock has pinned."""


class _Target(NamedTuple):
    """An image and the archive it shall have; `locked` is that archive as the old lock knows it."""

    pin: ResolvedReference
    arch: str
    pinned: PinnedImage
    name: str
    locked: ArchiveFile | None


def prefetch(
    package: Package,
    wanted: Sequence[ImageRequest],
    network: FetchContext,
    *,
    outdir: Path,
    locked: bool,
    pack: Pack | None = None,
    asked: Sequence[ImageRequest] = (),
) -> Lock:
    """Bring archives and lock of a package up to date, and return the lock.

    With `pack` the archives go into the bundle that it lays out for a lock, and are no files of their own. New files go
    to `outdir`, which may be the package itself; there is none where nothing changed, and none where anything failed.
    Archives that only the old lock named are removed from the package at the end. What the package has `asked` for
    besides stays locked; where that is a reference that is wanted, too, it moves for all of its architectures.

    :raises DescriptionError: a bundle would lose what the package asks for besides.
    :raises LockError: the lock is broken or, in a locked run, does not cover what is wanted.
    :raises RegistryError: a source failed, or does not have what was asked.
    :raises VerificationError: it gave something else.
    :raises Error: a name in `outdir` is taken.
    """
    with package.hold():
        found = package.read_lock()
        old = found or lockfile.EMPTY
        if locked and not found:
            raise LockError(f"{lockfile.FILE_NAME}: not there, but this run is locked; run it once without 'locked'")
        rest = _unrequested(package, wanted, asked, old, bundled=pack is not None)
        if locked:
            new_pins = pins.from_lock(wanted, old)
        else:
            wanted = [_with_kept_architectures(item, rest.get(item.reference)) for item in wanted]
            new_pins = pins.pin(wanted, network.open_source, _trusted_entries(package, old, wanted))
        targets = _targets(new_pins, old, among=old.references if locked else rest)
        _check_names(outdir, {lockfile.FILE_NAME, *([cpio.FILE_NAME] if pack else [target.name for target in targets])})
        provide = partial(_provide_bundle, pack) if pack else _provide
        with ExitStack() as last:
            with provide(package, targets, network, outdir, strict=locked) as archives:
                made = old if locked else _lock(targets, archives)
                new = Lock(references={**rest, **made.references})
                # One of a newer release may say more than we would write.
                kept = package.find(lockfile.FILE_NAME) if locked else None
                text = kept.read_bytes() if kept else lockfile.dumps(new).encode()
                own = package.directory / lockfile.FILE_NAME
                if not own.is_file() or own.read_bytes() != text:
                    with atomic.naming(outdir / lockfile.FILE_NAME):
                        descriptor = last.enter_context(atomic.new_file(outdir / lockfile.FILE_NAME))
                        ranges.write_all(descriptor, text, 0)
                        atomic.flush(descriptor)
            # The lock gets its name last, when the archives that it names have theirs, and those are gone that only
            # the old one knows: a run that is killed in between leaves nothing that the next does not find.
            _prune(package, old, new, bundled=pack is not None)
        _report(old, made)
    return new


def _unrequested(
    package: Package, wanted: Sequence[ImageRequest], asked: Sequence[ImageRequest], old: Lock, *, bundled: bool
) -> Mapping[Reference, LockedReference]:
    """Return what is locked of the images that are asked for, but not wanted in this run."""
    images = _images(asked) - _images(wanted)
    found = {}
    for reference, locked in old.references.items():
        kept = {arch: image for arch, image in locked.images.items() if (reference, arch) in images}
        if kept:
            found[reference] = locked._replace(images=kept)
    if found and (bundled or package.find(cpio.FILE_NAME)):
        names = ", ".join(f"{reference} for {' and '.join(locked.images)}" for reference, locked in found.items())
        raise DescriptionError(
            f"{cpio.FILE_NAME}: holds what one run asks for, but this one would lose {names}, which _service or the "
            "descriptions ask for, too; ask for all of it at once, or no longer for that"
        )
    return found


def _images(wanted: Sequence[ImageRequest]) -> set[tuple[Reference, str]]:
    return {(item.reference, arch) for item in wanted for arch in item.architectures}


def _with_kept_architectures(item: ImageRequest, rest: LockedReference | None) -> ImageRequest:
    """Want a reference for the architectures, too, for which it is kept: a lock has one digest for all of them."""
    return item._replace(architectures=(*item.architectures, *rest.images)) if rest else item


def _trusted_entries(package: Package, old: Lock, wanted: Iterable[ImageRequest]) -> Lock:
    """Return what of a lock is so: the archives say it too. A merge may have made the rest of two locks."""
    known = {item: old.references[item.reference] for item in wanted if item.reference in old.references}
    return Lock(
        references={
            item.reference: reference
            for item, reference in known.items()
            if all(
                _leads_to(reference, image.image.manifest) and find.confirms(package, item.reference, image)
                for arch, image in reference.images.items()
                if arch in item.architectures
            )
        }
    )


def _leads_to(reference: LockedReference, manifest: Descriptor) -> bool:
    """Tell whether what was pinned may be where a manifest was found: an index, or the manifest itself."""
    if reference.media_type in INDEX_TYPES:
        return reference.digest != manifest.digest
    return (reference.digest, reference.media_type) == (manifest.digest, manifest.media_type)


def _targets(new: Sequence[ResolvedReference], old: Lock, among: Iterable[Reference]) -> list[_Target]:
    flat = archive_names.flatten([*among, *(pin.reference for pin in new)])
    targets = []
    for pin in new:
        for arch, pinned in pin.images.items():
            known = old.image_for(pin.reference, arch)
            name = archive_names.archive(flat[pin.reference], arch)
            unchanged = known is not None and known.image == pinned.image and known.archive.name == name
            locked = known.archive if known and unchanged else None
            targets.append(_Target(pin=pin, arch=arch, pinned=pinned, name=name, locked=locked))
    return targets


def _check_names(outdir: Path, names: Iterable[str]) -> None:
    """Say before anything is fetched where a file cannot get its name: when one cannot, others would have theirs."""
    problems = [
        f"{outdir / name}: got a directory or a special file, expected a file or nothing; remove it"
        for name in sorted(names)
        if _is_taken(outdir / name)
    ]
    if problems:
        raise Error(*problems)


def _is_taken(path: Path) -> bool:
    with suppress(OSError):
        mode = path.lstat().st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISLNK(mode)  # either is replaced
    return False


@contextmanager
def _provide(
    package: Package, targets: Sequence[_Target], network: FetchContext, outdir: Path, *, strict: bool
) -> Iterator[Mapping[str, ArchiveFile]]:
    """Have every archive: from the package, from an earlier run, or newly made; `strict` makes only what is locked."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # who interrupts it here waits for no file to be hashed to its end
        present = [pool.submit(_find, package, target) for target in targets]
    pairs = [(target, found.result()) for target, found in zip(targets, present, strict=True)]
    wrong = [target for target, location in pairs if location and not _agrees(package, target)]
    if strict and wrong:
        raise LockError(
            *(
                f"{lockfile.FILE_NAME}: {target.pin.reference} for {target.arch}: got other descriptors than its "
                "archive has; run the prefetch without 'locked'"
                for target in wrong
            )
        )
    pairs = [(target, None if target in wrong else location) for target, location in pairs]
    outputs = [assemble.alone(_order(target, strict=strict)) for target, location in pairs if location is None]
    kept = {target.name: target.locked for target, location in pairs if location and target.locked}
    if outputs:
        with assemble.transfer(outputs, network, package.archives(), outdir) as made:
            yield {**kept, **made}
    else:
        yield kept
    for target, location in pairs:
        if location and location.path != package.directory / target.name:
            Tree(outdir.resolve()).link(f"/{target.name}", location.path)


def _find(package: Package, target: _Target) -> ArchiveLocation | None:
    """Return where a locked archive is as a file of its own."""
    path = package.find(target.name) if target.locked else None
    if path is None or target.locked is None:
        return None
    location = ArchiveLocation(path=path, offset=0, size=path.stat().st_size)
    is_right = location.size == target.locked.size and checksum_cache.sha256_of(path) == target.locked.sha256
    return location if is_right else None


def _agrees(package: Package, target: _Target) -> bool:
    """Tell whether a locked archive that is there holds the image; a merge may have made the lock of two."""
    return target.locked is not None and find.confirms(
        package,
        target.pin.reference,
        LockedImage(image=target.pinned.image, created=target.pinned.created, archive=target.locked),
    )


def _order(target: _Target, *, strict: bool) -> Order:
    return Order(
        name=target.name,
        reference=target.pin.reference,
        origin=target.pin.origin,
        image=target.pinned.image,
        small=target.pinned.small,
        expected=target.locked if strict else None,
    )


@contextmanager
def _provide_bundle(
    pack: Pack, package: Package, targets: Sequence[_Target], network: FetchContext, outdir: Path, *, strict: bool
) -> Iterator[Mapping[str, ArchiveFile]]:
    """Have every archive in one bundle, which is made anew where anything in it changed."""
    orders = [_order(target, strict=strict) for target in targets]
    # The places in a bundle depend on sizes alone, so any SHA-256 does where none is known yet.
    draft = {
        target.name: target.locked or ArchiveFile(name=target.name, size=order.layout.size, sha256="0" * 64)
        for target, order in zip(targets, orders, strict=True)
    }
    bundle = pack(_lock(targets, draft))
    path = package.find(cpio.FILE_NAME)
    if path and all(_agrees(package, target) for target in targets) and is_bundle(path, bundle, draft.values()):
        yield draft
        if path != package.directory / cpio.FILE_NAME:
            Tree(outdir.resolve()).link(f"/{cpio.FILE_NAME}", path)
        return
    output = OutputFile(
        name=cpio.FILE_NAME,
        size=bundle.layout.size,
        orders=tuple((order, bundle.layout.contents[order.name]) for order in orders),
        finish=lambda made: pack(_lock(targets, made)).frame(),
    )
    with assemble.transfer([output], network, package.archives(), outdir) as made:
        yield made


def _lock(targets: Sequence[_Target], archives: Mapping[str, ArchiveFile]) -> Lock:
    targets_of: dict[Reference, list[_Target]] = {}
    for target in targets:
        targets_of.setdefault(target.pin.reference, []).append(target)
    references = {}
    for reference, group in targets_of.items():
        pin = group[-1].pin
        images = {
            target.arch: LockedImage(
                image=target.pinned.image, created=target.pinned.created, archive=archives[target.name]
            )
            for target in group
        }
        references[reference] = LockedReference(digest=pin.digest, media_type=pin.media_type, images=images)
    return Lock(references=references)


def _report(old: Lock, new: Lock) -> None:
    for reference, arch, locked in new.images():
        before = old.image_for(reference, arch)
        digest = locked.image.manifest.digest
        if before is None:
            size = human.size(locked.archive.size)
            logger.info("%s (%s): pinned to %s, %s", reference, arch, digest, size)
        elif before.image != locked.image:
            logger.info("%s (%s): moved from %s to %s", reference, arch, before.image.manifest.digest, digest)
        else:
            logger.info("%s (%s): unchanged, %s", reference, arch, digest)


def _prune(package: Package, old: Lock, new: Lock, *, bundled: bool) -> None:
    """Remove what the old lock stood for and the new one does not: osc never removes what a service wrote once."""
    named = {locked.archive.name for _, _, locked in (*old.images(), *new.images())}
    keep = {cpio.FILE_NAME} if bundled else {locked.archive.name for _, _, locked in new.images()}
    for name in sorted({*named, cpio.FILE_NAME} - keep):
        path = package.directory / name
        if path.is_file():
            path.unlink()
            logger.info("%s: removed, nothing asks for it any more", name)
