"""The bundle: the whole overlay of an image in one cpio archive, for build roots without the inject service.

obs-build unpacks the archive next to the description, where kiwi looks for overlay directories. Everything but the
blobs themselves is known from the lock, before anything is downloaded. A blob that several containers need is one
member with several paths, which cpio unpacks as hard links.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath

from osc_containers.archive.bundle import Bundle
from osc_containers.archive.layout import Layout, layout_of
from osc_containers.errors import DescriptionError
from osc_containers.formats import cpio
from osc_containers.formats.cpio import Entry
from osc_containers.fs import rooted_tree
from osc_containers.fs.source_file import open_source
from osc_containers.inject import inventory, overlay
from osc_containers.inject.image_file import ArchiveFile, BlobFile, Symlink, TextFile
from osc_containers.inject.overlay import Placement
from osc_containers.lock import lockfile
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import service_file
from osc_containers.obs.package import Package
from osc_containers.obs.selection import Request
from osc_containers.oci.manifest import Descriptor


def pack(placements: Sequence[Placement]) -> Bundle:
    """Compute the layout and the texts of the bundle for these containers.

    :raises DescriptionError: a blob or archive is larger than a member of a cpio archive can be, which is 4 GiB minus
        1 byte; or as `overlay.group_by_directory`.
    """
    entries: list[Entry] = []
    texts: dict[str, bytes] = {}
    archives: dict[str, Layout] = {}
    blobs: dict[str, Descriptor] = {}
    for directory, members in sorted(overlay.group_by_directory(placements).items()):
        layouts = {each.archive: layout_of(each.claim) for each in members}
        for file in (*overlay.list_files(members), *inventory.list_documents(members)):
            path = directory + file.path
            # Entries with the same `content` are hard links to one member.
            match file:
                case ArchiveFile():
                    archives[file.name] = layouts[file.name]
                    mode, size, content = stat.S_IFREG | 0o644, layouts[file.name].size, file.name
                case BlobFile():
                    mode, size, content = stat.S_IFREG | 0o644, file.blob.size, str(file.blob.digest)
                    blobs[content] = file.blob
                case Symlink():
                    texts[path] = file.target.encode()
                    mode, size, content = stat.S_IFLNK | 0o777, len(texts[path]), path
                case TextFile():
                    texts[path] = file.text.encode()
                    mode, size, content = stat.S_IFREG | file.mode, len(texts[path]), path
            entries.append(Entry(path=path, mode=mode, size=size, content=content))
    try:
        layout = cpio.lay_out([*_parent_directories(entries), *entries])
    except ValueError as error:
        raise DescriptionError(
            f"{cpio.FILE_NAME}: {error}; use the service kiwi_containers_inject in the build root instead"
        ) from None
    return Bundle(
        layout=layout,
        texts=tuple((layout.contents[path], text) for path, text in texts.items()),
        archives=tuple((layout.contents[name], archive) for name, archive in archives.items()),
        loaded=tuple((layout.contents[content], blob) for content, blob in blobs.items()),
    )


def pack_for(request: Request) -> Callable[[Lock], Bundle]:
    """Return a function that computes the bundle of a lock.

    :raises DescriptionError: the request is not for exactly one description and architecture.
    """
    architectures = {arch: None for each in request.descriptions for arch in request.architectures_of(each)}
    if len(request.descriptions) != 1 or len(architectures) != 1:
        names = ", ".join(each.path.name for each in request.descriptions)
        raise DescriptionError(
            f"{cpio.FILE_NAME}: got {names or 'nothing'} for {', '.join(architectures) or 'no architecture'}, expected "
            "one description and one architecture; set 'description' and 'arch'"
        )
    (description,), (arch,) = request.descriptions, architectures
    containers = request.containers(description, arch)
    paths = overlay.assign_paths(description.of_architecture(arch))
    return lambda lock: pack(overlay.place(containers, paths, arch, lock))


def list_problems(package: Package, request: Request, lock: Lock) -> tuple[tuple[str, str], ...]:
    """Return the file name and the problem of each bundle in a package that must not be there, or has other content.

    obs-build unpacks every bundle over the sources. `request` is what the package requests by itself; a bundle must be,
    byte for byte, what a prefetch writes for that and the lock. If `_service` has services of ours, one of them must
    ask for a bundle.

    :raises DescriptionError: as `pack` and `pack_for`, if there is a bundle.
    """
    paths = [path for path in package.cpio_archives() if _final_name(path) == cpio.FILE_NAME]
    if not paths:
        return ()
    if not service_file.allows_bundle(package.service_entries):
        why = "obs-build unpacks it over the sources, but _service does not have inject=source; remove it"
        return tuple((path.name, why) for path in paths)
    expected = pack_for(request)(lock)
    why = (
        f"differs from what the description and {lockfile.FILE_NAME} make; it was changed, or written by another "
        "release; run the prefetch again and commit the result"
    )
    return tuple((path.name, why) for path in paths if not expected.is_in(path))


def list_intrusions(package: Package, request: Request) -> Iterator[tuple[str, str]]:
    """Yield each other cpio archive that may change the image or the sources when obs-build unpacks it, and why."""
    profiles = {name for each in request.descriptions for item in each.containers for name in item.profile_names}
    overlays = {overlay.ROOT, *profiles}
    others = [path for path in package.cpio_archives() if _final_name(path) != cpio.FILE_NAME]
    links: set[PurePosixPath] = set()
    for path in others:
        with suppress(OSError, ValueError):  # These are reported below.
            links.update(PurePosixPath(name) for name, is_link in _paths_in(path) if is_link)
    for path in others:
        try:
            found = [name for name, _ in _paths_in(path) if _is_intrusive(name, overlays, links, package)]
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            yield path.name, f"obs-build unpacks it over the sources, but it cannot be listed: {reason}; remove it"
            continue
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield path.name, f"obs-build unpacks {found[0][:200]!r}{more} over the sources or overlays; remove it"


def _paths_in(path: Path) -> Iterator[tuple[str, bool]]:
    # The file object closes its descriptor, and the stack closes the one that it opened: so there are two.
    with ExitStack() as stack, os.fdopen(os.dup(open_source(path, stack).descriptor), "rb") as file:
        yield from cpio.paths(file)


def _final_name(path: Path) -> str:
    """Return the name that a file has in a build: obs-build removes the prefix `_service:NAME:`."""
    return path.name.rpartition(":")[2] if path.name.startswith("_service:") else path.name


def _is_intrusive(name: str, overlays: Collection[str], links: Set[PurePosixPath], package: Package) -> bool:
    parts = PurePosixPath(name).parts
    if not parts:
        return False
    if name.startswith("/") or ".." in parts or parts[0] in overlays:
        return True
    # cpio unpacks what is below a link to where that leads. The link may be in another archive, or in the package.
    if not links.isdisjoint(PurePosixPath(name).parents) or (package.directory / parts[0]).is_symlink():
        return True
    # What kiwi and obs-build look for next to the description: descriptions, scripts such as config.sh, and overlays.
    is_source = len(parts) == 1 and (name.endswith((".kiwi", ".sh", ".xml")) or name.startswith("root.tar"))
    return is_source or (package.directory / parts[0]).is_file()


def _parent_directories(entries: Sequence[Entry]) -> list[Entry]:
    """Return the directories above the entries, parents first, with the modes that `rooted_tree` gives them."""
    parents = {str(parent) for entry in entries for parent in PurePosixPath(entry.path).parents} - {"."}
    return [
        Entry(
            path=path,
            mode=stat.S_IFDIR | rooted_tree.directory_mode("/" + path.partition("/")[2]),
            size=0,
            content=path,
        )
        for path in sorted(parents)
    ]
