"""The build-root half: verify, then give kiwi the containers as overlay directories and take `<containers>` away.

kiwi copies the directory `root/` beside the description into every image, and `PROFILE/` into an image of that profile
(kiwi/system/setup.py, import_overlay_files). Only the standard library is needed here.
"""

import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path

from osc_containers.archive import verify
from osc_containers.errors import DescriptionError, LockError, VerificationError
from osc_containers.formats import cpio
from osc_containers.fs import atomic
from osc_containers.fs.rooted_tree import Tree
from osc_containers.inject import overlay
from osc_containers.inject.overlay import ROOT, Archive, Placed
from osc_containers.inject.units import Symlink
from osc_containers.kiwi import description
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.lock.lockfile import FILE_NAME
from osc_containers.obs.package import Package

logger = logging.getLogger(__name__)


def inject_sources(package: Package, found: Description, arch: str, used: Collection[str] | None = None) -> None:
    """Put the containers of a description into overlay directories of `package`, and edit the description.

    Where only the profiles `used` are prefetched, those of others stay in the description: no image that is built lacks
    them without a word, for kiwi fails to pull them.

    The package must be a copy that nobody keeps: the one in a build root. Nothing is changed unless everything is
    verified, and what is made is removed again where making it fails; a second run finds nothing to do.

    :raises LockError: the lock is not there, is broken or does not cover the description.
    :raises VerificationError: an archive is not what the lock says.
    """
    every = found.of_architecture(arch)
    containers = tuple(container for container in every if used is None or container.is_in(used))
    placed = _verified(package, found, containers, arch)
    directories = overlay.directories(placed)
    with ExitStack() as undo:
        for name in sorted(directories):
            if _make_directory(package.directory / name, undo) and name == ROOT:
                _unpack_root_archives(package)
        for name, items in sorted(directories.items()):
            _write(package, items, Tree(package.directory / name, keeps=True), own=False)
        undo.pop_all()
    for path in found.files:
        before = path.read_bytes()
        after = description.without_containers(before, used)
        if after != before:
            atomic.write_atomically(path, after)
            logger.info("%s: <containers> taken out", path.name)
    for container in every:
        if container not in containers:
            where = f"{container.file}:{container.line}"
            logger.warning("%s: left for kiwi, since _service has only other profiles prefetched", where)


def inject_root(package: Package, found: Description, arch: str, profiles: Collection[str], root: Path) -> None:
    """Put the containers that kiwi would choose for some profiles into an unpacked root tree.

    :raises LockError: the lock is not there, is broken or does not cover the description.
    :raises VerificationError: an archive is not what the lock says.
    :raises OSError: also where the archives have to be copied and there is no room; then nothing is written.
    """
    placed = _verified(package, found, found.select(arch, profiles), arch)
    # A link may name the tree; those in it are what Tree keeps from leading out of it.
    tree = Tree(Path(os.path.realpath(root)) if root.is_symlink() else root)
    _check_room(package, placed, tree)
    _write(package, placed, tree, own=True)


def _check_room(package: Package, placed: Sequence[Placed], tree: Tree) -> None:
    with atomic.naming(tree.root):
        info = os.statvfs(tree.root)
    sources = {item.path: package.find(item.locked.archive.name) for item in placed}
    copied = [source for source in sources.values() if source and not tree.can_link(source, own=True)]
    needed, free = sum(source.stat().st_size for source in copied), info.f_bavail * info.f_frsize
    if needed > free and info.f_blocks:  # some FUSE tells no size
        problem = f"no space left; the archives need {needed} bytes, {free} are free"
        raise OSError(errno.ENOSPC, problem, str(tree.root))


def _verified(package: Package, found: Description, containers: Sequence[Container], arch: str) -> tuple[Placed, ...]:
    """Return where each container goes, once its archive is known to be right."""
    if not containers:
        return ()
    lock = package.read_lock()
    if lock is None:
        raise LockError(f"{FILE_NAME}: not there; run the prefetch and commit what it writes")
    wanted = [(container.reference, arch, f"{container.file}:{container.line}") for container in containers]
    problems = verify.check_coverage(wanted, lock)
    if problems:
        raise LockError(*problems)
    placed = overlay.place(containers, overlay.paths(found.of_architecture(arch)), arch, lock)
    images = {item.locked.archive.name: (item.container.reference, arch, item.locked) for item in placed}
    problems = verify.check_archives(package, images.values()) or tuple(
        f"{name}: is in {cpio.FILE_NAME} only, which a build unpacks by itself; for a file of its own run "
        "'osc containers prefetch --inject buildtime'"
        for name in images
        if package.find(name) is None
    )
    if problems:
        raise VerificationError(*problems)
    for notice in overlay.notices({item.container: item.path for item in placed}):
        logger.warning("%s", notice)
    return placed


def _make_directory(path: Path, undo: ExitStack) -> bool:
    """Have an overlay directory, and return whether it is a new one."""
    problem = overlay.problem_of_directory(path)
    if problem:
        raise DescriptionError(problem)
    if path.exists():
        undo.callback(_remove_others, path, set(path.rglob("*")))
        return False
    path.mkdir()
    undo.callback(shutil.rmtree, path, ignore_errors=True)
    path.chmod(0o755)
    return True


def _remove_others(directory: Path, kept: Collection[Path]) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        if path not in kept:
            remove = path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink
            remove()


def _unpack_root_archives(package: Package) -> None:
    """Keep the packager's own overlay, and find what of it is in the way.

    kiwi takes `root.tar.gz` only where there is no `root/`, and we make one; over that obs-build later unpacks every
    `root.tar*` (build-recipe-kiwi).
    """
    for archive in sorted(path for path in package.directory.glob("root.tar*") if path.is_file()):
        try:
            subprocess.run(["tar", "-xpf", archive, "-C", package.directory / ROOT], check=True)
        except subprocess.CalledProcessError as error:
            raise DescriptionError(f"{archive.name}: tar could not unpack it, exit status {error.returncode}") from None


def _write(package: Package, placed: Sequence[Placed], tree: Tree, *, own: bool) -> None:
    for entry in overlay.plan(placed):
        if isinstance(entry, Archive):
            source = package.find(entry.name)
            if source is None:
                raise VerificationError(f"{entry.name}: not there any more, it was a moment ago")
            tree.link(entry.path, source, own=own)
        elif isinstance(entry, Symlink):
            tree.symlink(entry.path, entry.target)
        else:
            tree.write(entry.path, entry.text.encode(), entry.mode)
        logger.info("%s%s", tree.root.name, entry.path)
