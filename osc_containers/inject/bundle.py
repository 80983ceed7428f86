"""The overlay of an image as one cpio archive, for build roots that do not have our service.

obs-build unpacks it beside the description, where kiwi looks for overlay directories. The units in it have the SHA-256
of archives that are still on their way when its bytes are laid out; so texts are written last, at places that do not
depend on what they say.
"""

import stat
from collections.abc import Iterator, Mapping, Sequence

from osc_containers.archive.bundle import Bundle
from osc_containers.errors import DescriptionError
from osc_containers.formats import cpio
from osc_containers.formats.cpio import Entry
from osc_containers.fs import rooted_tree
from osc_containers.inject import overlay
from osc_containers.inject.overlay import Archive, Placed
from osc_containers.inject.units import Symlink, TextFile


def pack(placed: Sequence[Placed]) -> Bundle:
    """Compute the bundle of these containers.

    :raises DescriptionError: an archive is too large for the format.
    """
    entries: list[Entry] = []
    texts: dict[str, bytes] = {}
    for directory, items in sorted(overlay.directories(placed).items()):
        for found in overlay.plan(items):
            entry, text = _entry(directory, found, {item.locked.archive.name: item for item in items})
            entries.append(entry)
            texts[entry.content] = text
    entries = [*_directories(entries), *entries]
    try:
        layout = cpio.lay_out(entries)
    except ValueError as error:
        raise DescriptionError(
            f"{cpio.FILE_NAME}: {error}; use the service kiwi_containers_inject in the build root instead"
        ) from None
    return Bundle(layout=layout, texts=tuple((layout.contents[name], text) for name, text in texts.items() if text))


def _entry(directory: str, found: Archive | TextFile | Symlink, archives: Mapping[str, Placed]) -> tuple[Entry, bytes]:
    """Return the member for a file of the overlay and its text, which an archive does not have."""
    path = directory + found.path
    if isinstance(found, Archive):
        size = archives[found.name].locked.archive.size
        return Entry(path=path, mode=stat.S_IFREG | 0o644, size=size, content=found.name), b""
    if isinstance(found, Symlink):
        text, mode = found.target.encode(), stat.S_IFLNK | 0o777
    else:
        text, mode = found.text.encode(), stat.S_IFREG | found.mode
    return Entry(path=path, mode=mode, size=len(text), content=path), text


def _directories(entries: Sequence[Entry]) -> list[Entry]:
    parents = {path for entry in entries for path in _parents(entry.path)}
    return [
        Entry(
            path=path,
            mode=stat.S_IFDIR | rooted_tree.directory_mode("/" + path.partition("/")[2]),
            size=0,
            content=path,
        )
        for path in sorted(parents)
    ]


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
