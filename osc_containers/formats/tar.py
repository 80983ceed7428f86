"""Byte-stable headers of tar archives, and the members of those that somebody else wrote.

Format: POSIX.1-2001 pax, which is plain ustar wherever name and size fit it. They are made here and not by `tarfile`,
whose bytes change with the version of Python (they did after 3.8): the lock has the hash of whole archives, and an
archive that one version wrote is verified by another.

Spec: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".
"""

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from tarfile import TarInfo

BLOCK = 512
END = bytes(2 * BLOCK)
"""What ends an archive: two blocks of zeros."""

MEMBER_LIMIT = 100_000
_READ_LIMIT = 1 << 20
_NAME_LENGTH = 100
_SIZE_LIMIT = 8**11
_FILE, _EXTENDED = b"0", b"x"


def header(name: str, size: int) -> bytes:
    """Return the header of a regular file of `size` bytes, root's, of mode 0644, dated 1970-01-01; whole blocks."""
    encoded = name.encode("ascii")
    records = _record(b"path", encoded) if len(encoded) > _NAME_LENGTH else b""
    records += _record(b"size", b"%d" % size) if size >= _SIZE_LIMIT else b""
    block = _block(encoded, size if size < _SIZE_LIMIT else 0, 0o644, _FILE, b"root")
    if not records:
        return block
    extended = _block(b"././@PaxHeader", len(records), 0, _EXTENDED, b"")
    return extended + records + bytes(padding(len(records))) + block


def _record(key: bytes, value: bytes) -> bytes:
    """Return `LENGTH KEY=VALUE` and a newline; the length counts itself."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + len(str(len(rest) + len(str(len(rest)))))
    return b"%d%s" % (length, rest)


def _block(name: bytes, size: int, mode: int, kind: bytes, owner: bytes) -> bytes:
    fields = (name, b"%07o" % mode, b"%07o" % 0, b"%07o" % 0, b"%011o" % size, b"%011o" % 0, b" " * 8, kind, b"")
    block = struct.pack("100s8s8s8s12s12s8ss100s8s32s32s183x", *fields, b"ustar\x0000", owner, owner)
    return block[:148] + b"%06o\0" % sum(block) + block[155:]


def padding(size: int) -> int:
    """Return the number of zero bytes that fill the last block of a content of `size` bytes."""
    return -size % BLOCK


def members(file: BinaryIO) -> Iterator["TarInfo"]:
    """Yield the members of an uncompressed tar that begins where `file` is; offsets are those in `file`.

    :raises ValueError: it is no such tar from here on, or has too many members.
    """
    import tarfile  # only what somebody else wrote has to be read

    try:
        with tarfile.open(fileobj=cast(BinaryIO, _Headers(file)), mode="r:") as tar:
            for number, member in enumerate(tar):
                if number >= MEMBER_LIMIT:
                    raise ValueError(f"got more than {MEMBER_LIMIT} members")
                yield member
    except (tarfile.TarError, OSError, OverflowError, EOFError, RecursionError) as error:
        reason = str(error)[:200]
        raise ValueError(f"not an uncompressed tar: {reason!r}; if it is compressed, unpack it first") from None


class _Headers:
    """A file for `tarfile`, which reads a header that names more bytes than there are into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek = file.seek
        self.tell = file.tell
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _READ_LIMIT:
            raise OverflowError(f"got a header of {size} bytes")
        return self._file.read(size)
