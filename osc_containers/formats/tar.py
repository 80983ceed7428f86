"""Tar headers with stable bytes, and a bounded reader for untrusted tar archives.

Headers are in the pax format of POSIX.1-2001, which is plain ustar if name and size fit. `tarfile` is not used to write
them because its output depends on the version of Python (it changed after 3.8), and an archive may be verified by
another version than the one that wrote it.

Spec: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".
"""

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from tarfile import TarInfo

BLOCK = 512
END = bytes(2 * BLOCK)
"""The end of an archive: two blocks of zeros."""

# `tarfile` keeps an object for each member, so this bounds memory.
MEMBER_LIMIT = 100_000
_READ_LIMIT = 1 << 20
_USTAR_NAME_LENGTH = 100
_USTAR_SIZE_LIMIT = 8**11
"""The size field of ustar has eleven octal digits."""
_FILE, _DIRECTORY, _EXTENDED = b"0", b"5", b"x"


def header(name: str, size: int) -> bytes:
    """Return the header of a regular file of `size` bytes, or of a directory if `name` ends in `/`, in whole blocks.

    It belongs to root, has mode 0644 (a directory 0755) and is dated 1970-01-01. `name` is ASCII.
    """
    encoded = name.encode("ascii")
    # A value that does not fit its field goes to an extended header. Its field then has a truncated name or the size 0.
    records = _record(b"path", encoded) if len(encoded) > _USTAR_NAME_LENGTH else b""
    records += _record(b"size", b"%d" % size) if size >= _USTAR_SIZE_LIMIT else b""
    mode, kind = (0o755, _DIRECTORY) if name.endswith("/") else (0o644, _FILE)
    block = _block(encoded, size if size < _USTAR_SIZE_LIMIT else 0, mode, kind, b"root")
    if not records:
        return block
    extended = _block(b"././@PaxHeader", len(records), 0, _EXTENDED, b"")
    return extended + records + bytes(padding(len(records))) + block


def _record(key: bytes, value: bytes) -> bytes:
    """Return a pax record, `LENGTH KEY=VALUE` and a newline."""
    rest = b" %s=%s\n" % (key, value)
    # The length includes its own digits, whose number may grow by adding them.
    length = len(rest) + len(str(len(rest) + len(str(len(rest)))))
    return b"%d%s" % (length, rest)


def _block(name: bytes, size: int, mode: int, kind: bytes, owner: bytes) -> bytes:
    fields = (name, b"%07o" % mode, b"%07o" % 0, b"%07o" % 0, b"%011o" % size, b"%011o" % 0, b" " * 8, kind, b"")
    # `struct` fills the fields with NULs and cuts a name that is too long. The device numbers and the prefix are among
    # the last 183 bytes, which are all NUL.
    block = struct.pack("100s8s8s8s12s12s8ss100s8s32s32s183x", *fields, b"ustar\x0000", owner, owner)
    # The checksum is computed with its own field filled with spaces. The last of these remains: "NNNNNN\0 ".
    return block[:148] + b"%06o\0" % sum(block) + block[155:]


def padding(size: int) -> int:
    """Return the number of zero bytes that complete the last block of `size` bytes."""
    return -size % BLOCK


def members(file: BinaryIO) -> Iterator["TarInfo"]:
    """Yield the members of an uncompressed tar archive that starts at the current position of `file`.

    Their offsets are absolute positions in `file`.

    :raises ValueError: the archive is invalid from this point on, or has too many members.
    """
    import tarfile  # imported late because most commands read no tar archive

    try:
        with tarfile.open(fileobj=cast(BinaryIO, _Headers(file)), mode="r:") as tar:
            for number, member in enumerate(tar):
                if number >= MEMBER_LIMIT:
                    raise ValueError(f"got more than {MEMBER_LIMIT} members")
                yield member
    # `tarfile` calls itself for the header that follows an extended one, so a long chain of them exhausts the stack.
    except (tarfile.TarError, OSError, OverflowError, EOFError, RecursionError) as error:
        reason = str(error)[:200]
        raise ValueError(f"not an uncompressed tar archive: {reason!r}; if it is compressed, decompress it") from None


class _Headers:
    """A file that bounds a single read; `tarfile` would read an extended header of any declared size into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek = file.seek
        self.tell = file.tell
        self._file = file

    def read(self, size: int) -> bytes:
        # A damaged header may declare a negative size, with which a file would read everything up to its end.
        if not 0 <= size <= _READ_LIMIT:
            raise OverflowError(f"got a header of {size} bytes, expected at most {_READ_LIMIT}")
        return self._file.read(size)
