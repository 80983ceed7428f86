"""Layout and members of the cpio archive that obs-build unpacks next to the package sources.

Like a container archive, it has exactly one valid form, which is computed before the contents are available. A file
with several paths is stored once: all of them are hard links, and the last one carries the content.

Format: cpio(5), "New ASCII Format". obs-build unpacks every `*.obscpio` with `cpio --extract` (build, section 2.1).
"""

import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO, NamedTuple

SUFFIX = ".obscpio"
FILE_NAME = f"kiwi_containers{SUFFIX}"
SIZE_LIMIT = 0xFFFFFFFF
"""Maximum size of a member in bytes; the format has eight hexadecimal digits for it."""

_MAGIC = b"070701"
# Bytes of the magic and of 13 fields with eight digits each; the name follows.
_HEADER = 110
_DIGITS = re.compile(rb"[0-9A-Fa-f]*")
_TRAILER = "TRAILER!!!"
# PATH_MAX of Linux, which includes the NUL at the end: no longer path can be unpacked.
_NAME_LIMIT = 4096


class Entry(NamedTuple):
    """A member to write.

    `mode` includes the file type. `size` is that of the content in bytes. Entries with the same `content`, which is an
    arbitrary name, are hard links to one file.
    """

    path: str
    mode: int
    size: int
    content: str


class Layout(NamedTuple):
    """An archive of `size` bytes: its headers and padding with their offsets, and the offset of each content."""

    frame: tuple[tuple[int, bytes], ...]
    contents: dict[str, int]
    size: int


def lay_out(entries: Sequence[Entry]) -> Layout:
    """Compute the layout of an archive with these members, in this order.

    :raises ValueError: a member is too large for the format.
    """
    links = Counter(entry.content for entry in entries)
    remaining = Counter(links)
    # Hard links are recognized by their common inode number.
    inodes = {name: number for number, name in enumerate(links, start=1)}
    frame: list[tuple[int, bytes]] = []
    contents: dict[str, int] = {}
    position = 0
    for entry in entries:
        if entry.size > SIZE_LIMIT:
            raise ValueError(f"{entry.path}: got {entry.size} bytes, expected at most {SIZE_LIMIT} in a cpio archive")
        # All hard links but the last one are empty: that is how cpio stores them.
        remaining[entry.content] -= 1
        size = 0 if remaining[entry.content] else entry.size
        header = _header(entry.path, entry.mode, inodes[entry.content], links[entry.content], size)
        frame.append((position, header))
        position += len(header)
        # Each link overwrites the offset of the previous one, so that of the last link remains, which has the content.
        contents[entry.content] = position
        # In this format, headers with their names and contents are each padded to a multiple of four bytes.
        padding = bytes(-size % 4)
        frame.append((position + size, padding))
        position += size + len(padding)
    trailer = _header(_TRAILER, 0, 0, 1, 0)
    frame.append((position, trailer))
    return Layout(frame=tuple(frame), contents=contents, size=position + len(trailer))


def _header(path: str, mode: int, inode: int, links: int, size: int) -> bytes:
    name = path.encode() + b"\0"
    uid = gid = mtime = device = check = 0  # constants, so that the bytes depend on nothing but the arguments
    fields = (inode, mode, uid, gid, links, mtime, size, device, device, device, device, len(name), check)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return header + bytes(-len(header) % 4)


class Member(NamedTuple):
    """A non-empty regular file; `offset` is the position of its content in the archive, in bytes."""

    path: str
    offset: int
    size: int


def members(file: BinaryIO) -> Iterator[Member]:
    """Yield the non-empty regular files of a cpio archive, up to the first damaged header."""
    with suppress(ValueError):
        for mode, member in _walk(file):
            # Of a file with several links, all but one are empty here.
            if stat.S_ISREG(mode) and member.size:
                yield member


def paths(file: BinaryIO) -> Iterator[tuple[str, bool]]:
    """Yield the path of every member of a cpio archive, whatever its type, and whether it is a symbolic link.

    :raises ValueError: a header is damaged or has another format, or a name has a NUL in it; `cpio` may unpack more
        than was yielded.
    """
    yield from ((member.path, stat.S_ISLNK(mode)) for mode, member in _walk(file))


def _walk(file: BinaryIO) -> Iterator[tuple[int, Member]]:
    position = 0
    while True:
        file.seek(position)
        header = file.read(_HEADER)
        # The digits are compared, because `int` also accepts a sign.
        if len(header) < _HEADER or not header.startswith(_MAGIC) or not _DIGITS.fullmatch(header, len(_MAGIC)):
            raise ValueError(f"got no header of a cpio archive at byte {position}")
        fields = [int(header[at : at + 8], 16) for at in range(len(_MAGIC), _HEADER, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        # The limit bounds memory: an untrusted header can declare a name of 4 GiB.
        name = file.read(min(name_size, _NAME_LIMIT + 1))
        # cpio ends a name at the first NUL. With another one behind it, or none, it would unpack another path than the
        # one that is yielded. More NULs at the end are padding, which some writers add.
        text, *rest = name.split(b"\0")
        if len(name) > _NAME_LIMIT or not rest or any(rest):
            raise ValueError(
                f"got the name {name[:100]!r} of the member at byte {position}, expected at most {_NAME_LIMIT} bytes, "
                "with a NUL only at the end"
            )
        path = text.decode("utf-8", "replace")
        if path == _TRAILER:
            return
        start = position + _HEADER + name_size
        start += -start % 4
        yield mode, Member(path=path, offset=start, size=size)
        position = start + size + -size % 4
