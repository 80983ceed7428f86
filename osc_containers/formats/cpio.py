"""The cpio archive that obs-build unpacks into the sources by itself: how its bytes lie, and what one holds.

Like an archive of containers it has one form only, computed before its contents are there. A file that has several
paths is in it once, as hard links of which the last one brings the content.

Format: cpio(5), "New ASCII Format"; obs-build unpacks every `*.obscpio` with `cpio --extract` (build, section 2.1).
"""

import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

FILE_NAME = "kiwi_containers.obscpio"
SIZE_LIMIT = 0xFFFFFFFF
"""Bytes of a member at most: the format has eight hexadecimal digits for them."""

_MAGIC = b"070701"
_HEADER = 110
_DIGITS = re.compile(rb"[0-9A-Fa-f]*")
_TRAILER = "TRAILER!!!"
_NAME_LIMIT = 4096


class Entry(NamedTuple):
    """A member to be written: `mode` has the type of file too; what has the same `content` name is one file.

    `size` is that of the content, in bytes.
    """

    path: str
    mode: int
    size: int
    content: str


class Layout(NamedTuple):
    """Where everything lies: headers and padding by offset, each content's place by its name, the size of it all."""

    frame: tuple[tuple[int, bytes], ...]
    contents: dict[str, int]
    size: int


def lay_out(entries: Sequence[Entry]) -> Layout:
    """Compute the cpio archive of these members, which keep their order.

    :raises ValueError: a member is too large for the format.
    """
    links = Counter(entry.content for entry in entries)
    left = Counter(links)
    inodes = {name: number for number, name in enumerate(links, start=1)}
    frame: list[tuple[int, bytes]] = []
    contents: dict[str, int] = {}
    position = 0
    for entry in entries:
        if entry.size > SIZE_LIMIT:
            raise ValueError(f"{entry.path}: got {entry.size} bytes, expected at most {SIZE_LIMIT} in a cpio archive")
        left[entry.content] -= 1
        size = 0 if left[entry.content] else entry.size
        header = _header(entry.path, entry.mode, inodes[entry.content], links[entry.content], size)
        frame.append((position, header))
        position += len(header)
        contents[entry.content] = position
        padding = bytes(-size % 4)
        frame.append((position + size, padding))
        position += size + len(padding)
    trailer = _header(_TRAILER, 0, 0, 1, 0)
    frame.append((position, trailer))
    return Layout(frame=tuple(frame), contents=contents, size=position + len(trailer))


def _header(path: str, mode: int, inode: int, links: int, size: int) -> bytes:
    name = path.encode() + b"\0"
    uid = gid = mtime = device = check = 0
    fields = (inode, mode, uid, gid, links, mtime, size, device, device, device, device, len(name), check)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return header + bytes(-len(header) % 4)


class Member(NamedTuple):
    """A regular file with a content, and where that is."""

    path: str
    offset: int
    size: int


def members(file: BinaryIO) -> Iterator[Member]:
    """Yield the regular files of a cpio archive; one that is damaged ends early."""
    position = 0
    while True:
        file.seek(position)
        header = file.read(_HEADER)
        if len(header) < _HEADER or not header.startswith(_MAGIC):
            return
        if not _DIGITS.fullmatch(header, len(_MAGIC)):  # `int` would take a sign, too
            return
        fields = [int(header[at : at + 8], 16) for at in range(len(_MAGIC), _HEADER, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        path = file.read(min(name_size, _NAME_LIMIT)).rstrip(b"\0").decode("utf-8", "replace")
        if path == _TRAILER:
            return
        start = position + _HEADER + name_size
        start += -start % 4
        if stat.S_ISREG(mode) and size:
            yield Member(path=path, offset=start, size=size)
        position = start + size + -size % 4
