"""squashfs images from a stream of entries, made by mksquashfs without unpacking anything to the disk.

mksquashfs reads a tar archive that is written here. Its owners, devices and extended attributes go into the image
without any privilege. Tried with mksquashfs 4.5.1, which has these faults: it takes the slash off absolute targets of
links in pax records (GNU's long names are used instead), and gives the root of the image the current time.
"""

import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import Error
from osc_containers.formats.layer_tar import DIRECTORY, FILE, HARD_LINK, SYMLINK
from osc_containers.formats.tar import END, padding
from osc_containers.fs import program
from osc_containers.fs.ranges import CHUNK, FileSlice

PROGRAM = "mksquashfs"

_MINIMUM = (4, 5)
"""The first version that reads tar archives."""
# Memory for its buffers; its threads need about as much again.
_OPTIONS = ("-comp", "zstd", "-Xcompression-level", "9", "-b", "256K", "-mem", "64M", "-no-progress", "-quiet")
_ROOT = ("-root-mode", "0755", "-root-uid", "0", "-root-gid", "0")
_ID_COUNT_LIMIT = (1 << 16) - 1
"""Distinct owners and groups in one squashfs. mksquashfs takes one more, but writes their number as 0 in 16 bits."""
# What the fields of a tar header can hold: names in bytes, and numbers of seven or eleven octal digits.
_NAME_LENGTH = 100
_OCTAL_LIMIT = 8**7
_SIZE_LIMIT = 8**11
_PAX, _LONG_NAME, _LONG_LINK = b"x", b"L", b"K"


class Entry(NamedTuple):
    """A file system object; `path` is relative. The content of a file is a part of an open file, or bytes."""

    path: bytes
    kind: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    content: FileSlice | bytes = b""
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = {}


def directory(path: str, mode: int = 0o755) -> Entry:
    """Return a directory."""
    return Entry(path=path.encode(), kind=DIRECTORY, mode=mode)


def file(path: str, content: bytes) -> Entry:
    """Return a file with this content."""
    return Entry(path=path.encode(), kind=FILE, mode=0o644, size=len(content), content=content)


def symlink(path: str, target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(path=path.encode(), kind=SYMLINK, mode=0o777, target=target.encode())


def check_program(environ: Mapping[str, str]) -> str:
    """Return the version of mksquashfs.

    :raises Error: it is missing, or too old.
    """
    try:
        output = program.run(PROGRAM, "-version", environ=environ).stdout.decode("utf-8", "replace")
    except program.NotInstalledError:
        raise Error(f"{PROGRAM}: not installed, but 'store' needs it; install squashfs or squashfs-tools") from None
    match = re.search(r"version ([0-9]+)\.([0-9]+)[0-9.]*", output)
    if not match or (int(match[1]), int(match[2])) < _MINIMUM:
        raise Error(
            f"{PROGRAM}: got {match[0] if match else 'an unknown version'}, expected {_MINIMUM[0]}.{_MINIMUM[1]} or "
            "newer, which can read tar archives"
        )
    return match[0].removeprefix("version ")


def write(target: Path, entries: Iterable[Entry], latest: int, environ: Mapping[str, str] = os.environ) -> None:
    """Write a squashfs with these entries to the new file `target`; a directory comes before what is in it.

    `latest` is the latest time of all entries.

    :raises Error: mksquashfs failed or left something out. Also everything that `entries` raises.
    """
    count = _Count()
    options = ("-", str(target), "-tar", "-noappend", *_OPTIONS, *_ROOT)
    # No option of mksquashfs 4.5 changes the time of the root in this mode. This variable is the time of the image, and
    # the latest time of all files. So it changes that of the root, and no other.
    settings = {"SOURCE_DATE_EPOCH": str(latest)}
    for _ in program.transform(PROGRAM, *options, source=tar_of(entries, count), environ=environ, settings=settings):
        pass  # with -quiet, it has nothing to say
    with target.open("rb") as image:
        # The superblock begins with these two.
        magic, inodes = struct.unpack("<4sI", image.read(8))
    # It skips what it does not understand, and still reports success.
    if magic != b"hsqs" or inodes != count.inodes:
        raise Error(f"{PROGRAM}: got a file system of {inodes} files, expected {count.inodes}")


class _Count:
    def __init__(self) -> None:
        # The root, which belongs to user 0, is not among the entries.
        self.inodes = 1
        self.ids = {0}

    def add(self, entry: Entry) -> None:
        self.inodes += entry.kind != HARD_LINK
        self.ids |= {entry.uid, entry.gid}
        if len(self.ids) > _ID_COUNT_LIMIT:
            raise Error(f"store: got more than {_ID_COUNT_LIMIT} owners and groups, which squashfs cannot store")


def tar_of(entries: Iterable[Entry], count: "_Count | None" = None) -> Iterator[bytes]:
    """Yield the tar archive of all entries, and count them. Small parts are yielded together, to save system calls."""
    buffer = bytearray()
    for entry in entries:
        if count:
            count.add(entry)
        buffer += _header(entry)
        content = entry.content.chunks(0, entry.size) if isinstance(entry.content, FileSlice) else (entry.content,)
        for chunk in content:
            if len(buffer) + len(chunk) > CHUNK:
                yield bytes(buffer)
                buffer.clear()
            buffer += chunk
        buffer += bytes(padding(entry.size))
    yield bytes(buffer) + END


def _header(entry: Entry) -> bytes:
    path = entry.path + b"/" if entry.kind == DIRECTORY else entry.path
    numbers = {b"uid": entry.uid, b"gid": entry.gid, b"size": entry.size}
    limits = {b"uid": _OCTAL_LIMIT, b"gid": _OCTAL_LIMIT, b"size": _SIZE_LIMIT}
    records = {b"SCHILY.xattr." + key: value for key, value in sorted(entry.xattrs.items())}
    # Numbers that are too large for their field go into a pax record, and the field is 0.
    records |= {key: b"%d" % value for key, value in numbers.items() if value >= limits[key]}
    blocks = [_extension(_LONG_NAME, path + b"\0")] if len(path) > _NAME_LENGTH else []
    blocks += [_extension(_LONG_LINK, entry.target + b"\0")] if len(entry.target) > _NAME_LENGTH else []
    blocks += [_extension(_PAX, b"".join(_record(*item) for item in records.items()))] if records else []
    uid, gid, size = (value if value < limits[key] else 0 for key, value in numbers.items())
    block = _block(path, entry.kind, size, entry.target, (entry.mode, uid, gid), entry.mtime, entry.device)
    return b"".join([*blocks, block])


def _extension(kind: bytes, content: bytes) -> bytes:
    return _block(b"././@LongLink", kind, len(content)) + content + bytes(padding(len(content)))


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" %s=%s\n" % (key, value)
    # The length includes its own digits, whose number may grow by adding them.
    length = len(rest) + len(str(len(rest) + len(str(len(rest)))))
    return b"%d%s" % (length, rest)


def _block(
    name: bytes,
    kind: bytes,
    size: int,
    target: bytes = b"",
    identity: tuple[int, int, int] = (0, 0, 0),
    mtime: int = 0,
    device: tuple[int, int] = (0, 0),
) -> bytes:
    numbers = [b"%07o" % number for number in identity]
    times = (b"%011o" % size, b"%011o" % mtime, b" " * 8)
    devices = [b"%07o" % number for number in device]
    block = struct.pack(
        # The gaps are the names of owner and group, and the prefix of the name with the padding of the block.
        "100s8s8s8s12s12s8ss100s8s64x8s8s167x",
        name,
        *numbers,
        *times,
        kind,
        target,
        b"ustar\x0000",
        *devices,
    )
    # The checksum is made over a block with blanks in its place. The last of them stays.
    return block[:148] + b"%06o\0" % sum(block) + block[155:]
