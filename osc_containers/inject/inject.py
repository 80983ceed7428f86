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
from functools import partial
from pathlib import Path

from osc_containers.archive import verify
from osc_containers.archive.blobs import Blob
from osc_containers.archive.layout import Layout, layout_of
from osc_containers.errors import DescriptionError
from osc_containers.formats import tar
from osc_containers.fs import atomic, lfs_pointer, program
from osc_containers.fs.rooted_tree import Part, Tree
from osc_containers.fs.source_file import open_source
from osc_containers.inject import inventory, overlay, units
from osc_containers.inject.contents import Contents, open_contents
from osc_containers.inject.image_file import ArchiveFile, BlobFile, Symlink
from osc_containers.inject.overlay import ROOT, Placement
from osc_containers.inject.store import stores
from osc_containers.inject.store.stores import BuiltStore
from osc_containers.kiwi.description import Description, remove_containers
from osc_containers.obs.engines import Choice
from osc_containers.obs.package import Package
from osc_containers.oci.digest import Digest

logger = logging.getLogger(__name__)

_TAR_TIMEOUT = 3600.0  # seconds


def inject_sources(
    package: Package,
    description: Description,
    arch: str,
    profiles: Collection[str] | None = None,
    store: Sequence[str] = (),
    choices: Sequence[Choice] = (),
) -> None:
    """Write the containers of a description to overlay directories of `package`, and edit the description.

    `profiles` are those that are prefetched; None means all. Containers of other profiles stay in the description, so
    that kiwi fails to pull them instead of silently building an image without them. `store` has patterns for the
    references of containers that go into a read-only store, and `choices` are the values of `engine`.

    The package must be a disposable copy, such as the one in a build root. Nothing is written before everything is
    verified; if writing fails, the new files are removed again. A second run finds no containers and does nothing.

    :raises LockError: the lock is missing, broken or does not cover the description.
    :raises VerificationError: an archive does not match the lock.
    :raises DescriptionError: an overlay directory, `root.tar*` or storage.conf of the packager cannot be used, or
        a container that cannot be in a store matches `store`, or one that an engine cannot get matches a choice.
    :raises Error: a store cannot be built.
    """
    containers = description.of_architecture(arch)
    selection = tuple(each for each in containers if profiles is None or each.is_in(profiles))
    with ExitStack() as files, ExitStack() as undo:
        contents = open_contents(package, description, selection, arch, files, store, choices)
        groups = overlay.group_by_directory(contents.placements)
        contents.verify()
        for name in sorted(groups):
            # If the packager already has a root/, kiwi ignores root.tar.gz, and there is nothing to preserve.
            if _make_directory(package.directory / name, undo) and name == ROOT:
                _unpack_root_archives(package)
        # All directories exist before the first file is written, so that a conflict is found early.
        trees = {name: Tree(package.directory / name, keeps=True) for name in sorted(groups)}
        stored = contents.stored_by(groups)
        names = {ROOT, *(profile.name for profile in description.profiles), *groups}
        configured = stores.find_configured(package.directory, names, stored) if stored else frozenset()
        environ = program.outside(package.directory, os.environ)
        with stores.workspace() as workspace:
            built = stores.build_all(stored, contents.open_blobs(), workspace, configured, environ)
            _write([(trees[name], groups[name]) for name in trees], contents.others, may_link=True)
            for name, each in built.items():
                _write_store(trees[name], each)
        # Everything is written, so nothing is to be removed again.
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


def inject_root(
    package: Package,
    description: Description,
    arch: str,
    profiles: Collection[str],
    root: Path,
    store: Sequence[str] = (),
    choices: Sequence[Choice] = (),
) -> None:
    """Write the containers that kiwi would select for these profiles to an unpacked root tree.

    `store` and `choices` are as for `inject_sources`.

    :raises LockError: the lock is missing, broken or does not cover the description.
    :raises VerificationError: an archive does not match the lock.
    :raises DescriptionError: the tree has a storage.conf with which podman would not use the store, or a container that
        cannot be in a store matches `store`, or one that an engine cannot get matches a choice.
    :raises Error: the store cannot be built.
    :raises OSError: the tree cannot be written, or has too little space for copies of the archives; the latter is
        checked before anything is written.
    """
    atomic.require_writable(root)
    with ExitStack() as files:
        contents = open_contents(package, description, description.select(arch, profiles), arch, files, store, choices)
        # `root` itself may be a symlink to the tree. Symlinks inside it are resolved by `Tree` and cannot leave it.
        tree = Tree(Path(os.path.realpath(root)) if root.is_symlink() else root)
        # Archives can be large, so they are read last.
        shortage = atomic.describe_shortage(tree.root, contents.copied_bytes)
        if shortage:
            raise OSError(errno.ENOSPC, shortage, str(tree.root))
        atomic.require_symlinks(tree.root)
        contents.verify()
        stored = contents.stored_by({ROOT: contents.placements})
        configured = {ROOT} if stored and stores.is_configured(tree.root) else set()
        environ = program.outside(package.directory, os.environ)
        with stores.workspace() as workspace:
            built = stores.build_all(stored, contents.open_blobs(), workspace, configured, environ)
            # Only now is it known how large the stores are. Nothing has been written to the tree yet.
            shortage = atomic.describe_shortage(
                tree.root, contents.copied_bytes + sum(each.squashfs.stat().st_size for each in built.values())
            )
            if shortage:
                raise OSError(errno.ENOSPC, shortage, str(tree.root))
            # Nothing in the tree is a link to a file of the package: it would be changed together with the tree.
            _write([(tree, contents.placements)], contents.others, may_link=False)
            for each in built.values():
                _write_store(tree, each)


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
        if lfs_pointer.is_pointer_file(archive):
            raise DescriptionError(f"{archive.name}: {lfs_pointer.problem(directory)}")
        # Without --force-local, a name with a colon is one of another host. TAR_OPTIONS is not inherited.
        options = ("--force-local", f"--directory={directory / ROOT}", f"--file={archive}")
        done = program.run(
            *("tar", "--extract", "--preserve-permissions", *options),
            environ=program.outside(directory, os.environ),
            timeout=_TAR_TIMEOUT,
        )
        if done.status:
            raise DescriptionError(f"{archive.name}: tar failed to unpack it: {done.reason}")


def _write(trees: Sequence[tuple[Tree, Sequence[Placement]]], contents: Contents, *, may_link: bool) -> None:
    """Write the files of placements to trees, and each distinct blob once: all other files of it are hard links.

    Of the placements, only those in `contents` are written. With `may_link`, files of the package are linked, too.
    """
    sources = {
        blob.digest: found
        for each in contents.placements
        for blob in each.claim.image.blobs
        if (found := contents.blobs.find(each.claim, blob))
    }
    files: dict[Digest, list[tuple[Tree, BlobFile]]] = {}
    for tree, placements in trees:
        claims = {each.archive: each.claim for each in placements}
        # Containers in a store have no files here, but the list of all containers in the image names them, too.
        loaded = [each for each in placements if each in contents.placements]
        for file in (*overlay.list_files(loaded), *inventory.list_documents(placements)):
            if isinstance(file, BlobFile):
                files.setdefault(file.blob.digest, []).append((tree, file))
                continue
            if isinstance(file, ArchiveFile):
                archive = contents.blobs.open(file.name) if file.name in contents.blobs.files else None
                if archive and may_link:
                    tree.link(file.path, archive)
                else:
                    _assemble(tree, file.path, layout_of(claims[file.name]), sources)
            elif isinstance(file, Symlink):
                tree.symlink(file.path, file.target)
            else:
                tree.write(file.path, file.text.encode(), file.mode)
            logger.info("%s%s", tree.root.name, file.path)
    # Blobs come last, because only now all places of each one are known.
    for digest, places in files.items():
        _write_blob(sources[digest], places, may_link=may_link)


def _write_store(tree: Tree, built: BuiltStore) -> None:
    # The check of the store is started by kiwi_containers.service, which images without loads would not have otherwise.
    for file in (*built.files, *units.render_service()):
        if isinstance(file, Symlink):
            tree.symlink(file.path, file.target)
        else:
            tree.write(file.path, file.text.encode(), file.mode)
        logger.info("%s%s", tree.root.name, file.path)
    with ExitStack() as stack:
        tree.link(built.store.squashfs, open_source(built.squashfs, stack))


def _write_blob(source: Blob, places: Sequence[tuple[Tree, BlobFile]], *, may_link: bool) -> None:
    (tree, first), *others = places
    if source.is_whole and may_link:
        tree.link(first.path, source.source)
    else:
        check = partial(verify.check_blob, blob=first.blob) if source.source.is_changeable else None
        tree.copy(first.path, source.content, source.size, check)
    with ExitStack() as stack:
        for other_tree, other in others:
            other_tree.link(other.path, tree.open(first.path, stack))


def _assemble(tree: Tree, path: str, layout: Layout, sources: Mapping[Digest, Blob]) -> None:
    """Write the archive of an image."""
    parts: list[Part] = []
    for member in layout.members:
        # Members without content are blobs. The others, such as index.json, are made for the archive.
        source = sources[member.digest] if member.content is None else None
        parts += [member.header, (source.content, source.size) if source else member.content or b""]
        parts.append(bytes(tar.padding(member.size)))
    is_changeable = any(sources[member.digest].source.is_changeable for member in layout.blobs())
    check = partial(verify.check_content, size=layout.size, layout=layout) if is_changeable else None
    tree.assemble(path, [*parts, tar.END], check)
