"""The bundle: the whole overlay of an image in one cpio archive, for build roots without the inject service.

obs-build unpacks the archive next to the description, where kiwi looks for overlay directories. The layout is computed
before the archives are downloaded, but the units contain their SHA-256. Texts are therefore written last; a checksum
has a fixed length, so that no offset depends on it.
"""

import stat
from collections.abc import Sequence
from pathlib import PurePosixPath

from osc_containers.archive.bundle import Bundle
from osc_containers.errors import DescriptionError
from osc_containers.formats import cpio
from osc_containers.formats.cpio import Entry
from osc_containers.fs import rooted_tree
from osc_containers.inject import overlay
from osc_containers.inject.overlay import PackageFile, Placement
from osc_containers.inject.units import Symlink


def pack(placements: Sequence[Placement]) -> Bundle:
    """Compute the layout and the texts of the bundle for these containers.

    :raises DescriptionError: an archive is larger than a member of a cpio archive can be, which is 4 GiB minus 1 byte;
        or as `overlay.group_by_directory`.
    """
    entries: list[Entry] = []
    texts: dict[str, bytes] = {}
    for directory, members in sorted(overlay.group_by_directory(placements).items()):
        sizes = {each.locked_image.archive.name: each.locked_image.archive.size for each in members}
        for file in overlay.list_files(members):
            path = directory + file.path
            if isinstance(file, PackageFile):
                # Entries with the same `content` are hard links to one member, so each archive is stored once.
                entries.append(Entry(path=path, mode=stat.S_IFREG | 0o644, size=sizes[file.name], content=file.name))
                continue
            if isinstance(file, Symlink):
                text, mode = file.target.encode(), stat.S_IFLNK | 0o777
            else:
                text, mode = file.text.encode(), stat.S_IFREG | file.mode
            entries.append(Entry(path=path, mode=mode, size=len(text), content=path))
            texts[path] = text
    try:
        layout = cpio.lay_out([*_parent_directories(entries), *entries])
    except ValueError as error:
        raise DescriptionError(
            f"{cpio.FILE_NAME}: {error}; use the service kiwi_containers_inject in the build root instead"
        ) from None
    return Bundle(layout=layout, texts=tuple((layout.contents[path], text) for path, text in texts.items()))


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
