"""Inject containers: verify the archives, write overlay directories or a root tree, and remove `<containers>`.

kiwi copies the directory `root/` next to the description into every image, and `PROFILE/` into images of that profile
(kiwi/system/setup.py, import_overlay_files). A build root has no network and few packages, so that nothing here may
need more than the standard library and what kiwi itself requires.
"""

import errno
import logging
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from osc_containers.archive import verify
from osc_containers.archive.blobs import PackageBlobs
from osc_containers.errors import DescriptionError, LockError, VerificationError
from osc_containers.formats import cpio
from osc_containers.fs import atomic, program
from osc_containers.fs.ranges import FileSlice
from osc_containers.fs.rooted_tree import Tree
from osc_containers.fs.source_file import SourceFile
from osc_containers.inject import overlay
from osc_containers.inject.overlay import ROOT, PackageFile, Placement
from osc_containers.inject.units import Symlink
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description, remove_containers
from osc_containers.obs import hints
from osc_containers.obs.package import Package

logger = logging.getLogger(__name__)

_TAR_TIMEOUT = 3600.0  # seconds


def inject_sources(
    package: Package, description: Description, arch: str, profiles: Collection[str] | None = None
) -> None:
    """Write the containers of a description to overlay directories of `package`, and edit the description.

    `profiles` are those that are prefetched; None means all. Containers of other profiles stay in the description, so
    that kiwi fails to pull them instead of silently building an image without them.

    The package must be a disposable copy, such as the one in a build root. Nothing is written before everything is
    verified; if writing fails, the new files are removed again. A second run finds no containers and does nothing.

    :raises LockError: the lock is missing, broken or does not cover the description.
    :raises VerificationError: an archive does not match the lock.
    :raises DescriptionError: an overlay directory or `root.tar*` of the packager cannot be used.
    """
    containers = description.of_architecture(arch)
    selection = tuple(each for each in containers if profiles is None or each.is_in(profiles))
    with ExitStack() as files, ExitStack() as undo:
        placements, archives, sums = _open_verified(package, description, selection, arch, files)
        groups = overlay.group_by_directory(placements)
        for name in sorted(groups):
            # If the packager already has a root/, kiwi ignores root.tar.gz, and there is nothing to preserve.
            if _make_directory(package.directory / name, undo) and name == ROOT:
                _unpack_root_archives(package)
        # All directories exist before the first file is written, so that a conflict is found early.
        for name, members in sorted(groups.items()):
            _write(members, archives, sums, Tree(package.directory / name, keeps=True), own=False)
        undo.pop_all()
    # The description comes last: with <containers> removed it must never be seen without the overlay directories.
    for path in description.files:
        before = path.read_bytes()
        after = remove_containers(before, profiles)
        if after != before:
            atomic.write_atomically(path, after)
            logger.info("%s: removed <containers>", path.name)
    for container in containers:
        if container not in selection:
            where = f"{container.file}:{container.line}"
            logger.warning("%s: not injected, because _service prefetches other profiles only", where)


def inject_root(package: Package, description: Description, arch: str, profiles: Collection[str], root: Path) -> None:
    """Write the containers that kiwi would select for these profiles to an unpacked root tree.

    :raises LockError: the lock is missing, broken or does not cover the description.
    :raises VerificationError: an archive does not match the lock.
    :raises OSError: the tree cannot be written, or has too little space for copies of the archives; the latter is
        checked before anything is written.
    """
    with ExitStack() as files:
        containers = description.select(arch, profiles)
        placements, archives, sums = _open_verified(package, description, containers, arch, files)
        # `root` itself may be a symlink to the tree. Symlinks inside it are resolved by `Tree` and cannot leave it.
        tree = Tree(Path(os.path.realpath(root)) if root.is_symlink() else root)
        sources = {each.path: archives[each.archive] for each in placements}
        copied = sum(source.status.st_size for source in sources.values() if not tree.can_link(source, own=True))
        shortage = atomic.describe_shortage(tree.root, copied)
        if shortage:
            raise OSError(errno.ENOSPC, shortage, str(tree.root))
        _write(placements, archives, sums, tree, own=True)


def _open_verified(
    package: Package, description: Description, containers: Sequence[Container], arch: str, stack: ExitStack
) -> tuple[tuple[Placement, ...], Mapping[str, SourceFile], Mapping[str, str]]:
    """Return the placement of each container, and the verified archives and their SHA-256 by name.

    The archives stay open in `stack`. Others may be able to write to the package. They could exchange a file that was
    opened again by its name.
    """
    if not containers:
        return (), {}, {}
    lock = package.require_lock()
    package.refuse_pointers()
    images = [(container.reference, arch, f"{container.file}:{container.line}") for container in containers]
    problems = verify.check_coverage(images, lock)
    if problems:
        raise LockError(*problems)
    paths = overlay.assign_paths(description.of_architecture(arch))
    placements = overlay.place(containers, paths, arch, lock)
    # Several containers can share an archive, which then is verified only once.
    archives = {each.archive: (each.container.reference, arch) for each in placements}
    atomic.allow_open(2 * len(archives))
    blobs = PackageBlobs(package, lock, stack)
    opened = {name: blobs.open(name) for name in archives if name in blobs.files}
    # A copy of what changes after its verification has another SHA-256.
    sums = {name: FileSlice(source.descriptor, 0).sha256(source.status.st_size) for name, source in opened.items()}
    problems = verify.check_images(blobs, archives.values()) or tuple(
        f"{name}: stored only in {cpio.FILE_NAME}, which the build unpacks itself; to get a separate file, run "
        f"'{hints.own(package.directory, 'prefetch --inject buildtime')}'"
        for name in archives
        if name not in opened
    )
    if problems:
        raise VerificationError(*problems)
    for each, reason in overlay.list_relocations({each.container: each.path for each in placements}):
        logger.warning("%s:%d: %s: stored at %s, because %s", each.file, each.line, each.reference, paths[each], reason)
    return placements, opened, sums


def _make_directory(path: Path, undo: ExitStack) -> bool:
    """Create an overlay directory unless the packager has one; return whether it is new."""
    problem = overlay.check_directory(path)
    if problem:
        raise DescriptionError(problem)
    if path.exists():
        undo.callback(_remove_new_files, path, set(path.rglob("*")))
        return False
    path.mkdir()
    undo.callback(shutil.rmtree, path, ignore_errors=True)
    path.chmod(0o755)  # mkdir obeys the umask, but kiwi copies the mode into the image
    return True


def _remove_new_files(directory: Path, existing: Collection[Path]) -> None:
    # In reverse order, a directory comes after its content.
    for path in sorted(directory.rglob("*"), reverse=True):
        if path not in existing:
            remove = path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink
            remove()


def _unpack_root_archives(package: Package) -> None:
    """Unpack the packager's `root.tar*` into the new `root/`.

    kiwi uses `root.tar.gz` only if there is no `root/`, so creating one would drop the packager's files. obs-build
    unpacks every `root.tar*` into the same place later (build-recipe-kiwi); unpacking here as well reveals conflicts.
    """
    directory = package.directory.absolute()
    for archive in sorted(path for path in directory.glob("root.tar*") if path.is_file()):
        # Without --force-local, a name with a colon is one of another host. TAR_OPTIONS is not inherited.
        options = ("--force-local", f"--directory={directory / ROOT}", f"--file={archive}")
        done = program.run(
            *("tar", "--extract", "--preserve-permissions", *options),
            environ=program.outside(directory, os.environ),
            timeout=_TAR_TIMEOUT,
        )
        if done.status:
            raise DescriptionError(f"{archive.name}: tar failed to unpack it: {done.reason}")


def _write(
    placements: Sequence[Placement],
    archives: Mapping[str, SourceFile],
    sums: Mapping[str, str],
    tree: Tree,
    *,
    own: bool,
) -> None:
    for file in overlay.list_files(placements, sums):
        if isinstance(file, PackageFile):
            tree.link(file.path, archives[file.name], own=own, sha256=sums[file.name])
        elif isinstance(file, Symlink):
            tree.symlink(file.path, file.target)
        else:
            tree.write(file.path, file.text.encode(), file.mode)
        logger.info("%s%s", tree.root.name, file.path)
