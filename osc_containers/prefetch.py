"""The network half: pin what a package asks for, fetch what it does not have, write archives and lock.

Two kinds of run: the default follows tags and says what moved; a locked run fetches exactly what the lock says.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from osc_containers import files, lock, names, pins, transfer
from osc_containers.errors import LockError
from osc_containers.lock import ArchiveFile, Lock, LockedImage, LockedReference
from osc_containers.package import Package
from osc_containers.pins import Pin, PinnedImage, Wanted
from osc_containers.reference import Reference
from osc_containers.sources import Network
from osc_containers.transfer import Order
from osc_containers.tree import Tree

logger = logging.getLogger(__name__)

_AT_ONCE = 2
"""Archives that are hashed at a time."""
_LEFTOVER = re.compile(rf"\.(?:{re.escape(lock.FILE_NAME)}|.*{re.escape(names.ARCHIVE_SUFFIX)})\.[0-9a-f]{{16}}")
"""Temporary names of lock and archives (`files.beside`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """An image and the archive it shall have; `locked` is that archive as the old lock knows it."""

    pin: Pin
    arch: str
    pinned: PinnedImage
    name: str
    locked: ArchiveFile | None


def prefetch(
    package: Package,
    wanted: Sequence[Wanted],
    network: Network,
    *,
    outdir: Path,
    locked: bool,
) -> Lock:
    """Bring archives and lock of a package up to date, and return the lock.

    New files go to `outdir`, which may be the package itself; there is none where nothing changed, and none where
    anything failed. Archives that only the old lock named are removed from the package at the end.

    :raises LockError: the lock is broken or, in a locked run, does not cover what is wanted.
    :raises RegistryError: a source failed, or does not have what was asked.
    :raises VerificationError: it gave something else.
    """
    with package.hold(), ExitStack() as at_last:
        _remove_leftovers(package)
        found = package.read_lock()
        old = found or lock.EMPTY
        if not locked:
            targets = _targets(pins.pin(wanted, network.open_source, old), old)
        elif found:
            targets = _targets(pins.from_lock(wanted, old), old, among=old.references)
        else:
            raise LockError(f"{lock.FILE_NAME}: not there, but this run is locked; run it once without 'locked'")
        with _provided(package, targets, network, outdir, strict=locked) as archives:
            new = old if locked else _lock(targets, archives)
            _prepare_lock(package, new, outdir, at_last)
        at_last.close()
        _report(old, new)
        _prune(package, old, new)
    return new


def _remove_leftovers(package: Package) -> None:
    """Remove what a run that was killed left under names that it did not live to change; none is running now."""
    for path in package.directory.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            path.unlink()


def _targets(new: Sequence[Pin], old: Lock, among: Iterable[Reference] = ()) -> list[_Target]:
    flat = names.flatten([*among, *(pin.reference for pin in new)])
    targets = []
    for pin in new:
        for arch, pinned in pin.images.items():
            known = old.image_for(pin.reference, arch)
            name = names.archive(flat[pin.reference], arch)
            unchanged = known is not None and known.image == pinned.image and known.archive.name == name
            locked = known.archive if known and unchanged else None
            targets.append(_Target(pin=pin, arch=arch, pinned=pinned, name=name, locked=locked))
    return targets


@contextmanager
def _provided(
    package: Package, targets: Sequence[_Target], network: Network, outdir: Path, *, strict: bool
) -> Iterator[Mapping[str, ArchiveFile]]:
    """Have every archive: from the package, from an earlier run, or newly made; `strict` makes only what is locked.

    New ones get their names when the block ends well.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        present = list(pool.map(lambda target: _find(package, target), targets))
    orders = [
        Order(
            name=target.name,
            reference=target.pin.reference,
            origin=target.pin.origin,
            image=target.pinned.image,
            small=target.pinned.small,
            expected=target.locked if strict else None,
        )
        for target, path in zip(targets, present, strict=True)
        if path is None
    ]
    made = transfer.transfer(orders, network, package.archives(), outdir) if orders else nullcontext(())
    with made as files_made:
        known = {target.name: target.locked for target in targets if target.locked}
        yield known | {file.name: file for file in files_made}
    for target, path in zip(targets, present, strict=True):
        if path is not None and path != package.directory / target.name:
            Tree(outdir).link(f"/{target.name}", path)


def _find(package: Package, target: _Target) -> Path | None:
    if target.locked is None:
        return None
    path = package.find(target.name)
    return path if path and transfer.has(path, target.locked) else None


def _lock(targets: Sequence[_Target], archives: Mapping[str, ArchiveFile]) -> Lock:
    references = {}
    for pin in {target.pin.reference: target.pin for target in targets}.values():
        images = {
            target.arch: LockedImage(
                image=target.pinned.image, created=target.pinned.created, archive=archives[target.name]
            )
            for target in targets
            if target.pin.reference == pin.reference
        }
        references[pin.reference] = LockedReference(digest=pin.digest, media_type=pin.media_type, images=images)
    return Lock(references=references)


def _report(old: Lock, new: Lock) -> None:
    for reference, arch, locked in new.images():
        before = old.image_for(reference, arch)
        digest = locked.image.manifest.digest
        if before is None:
            logger.info("%s (%s): pinned to %s, %d bytes", reference, arch, digest, locked.archive.size)
        elif before.image != locked.image:
            logger.info("%s (%s): moved from %s to %s", reference, arch, before.image.manifest.digest, digest)
        else:
            logger.info("%s (%s): unchanged, %s", reference, arch, digest)


def _prepare_lock(package: Package, new: Lock, outdir: Path, at_last: ExitStack) -> None:
    """Write the lock, if it changes anything, under a name that it loses for its own when `at_last` is closed."""
    text = lock.dumps(new).encode()
    own = package.directory / lock.FILE_NAME
    if not own.is_file() or own.read_bytes() != text:
        descriptor = at_last.enter_context(files.new_file(outdir / lock.FILE_NAME))
        files.write_all(descriptor, text, 0)


def _prune(package: Package, old: Lock, new: Lock) -> None:
    """Remove the archives that only the old lock names: osc never removes what a service wrote once."""
    keep = {locked.archive.name for _, _, locked in new.images()}
    for _, _, locked in old.images():
        path = package.directory / locked.archive.name
        if locked.archive.name not in keep and path.is_file():
            path.unlink()
            logger.info("%s: removed, nothing asks for it any more", locked.archive.name)
