"""Byte-stable headers of tar archives.

Format: POSIX.1-2001 pax, which is plain ustar wherever name and size fit it; the standard library writes it, and every
field that it would otherwise take from the file system or the user is fixed here.
"""

import tarfile

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
"""What ends an archive: two blocks of zeros."""


def header(name: str, size: int, mode: int = 0o644) -> bytes:
    """Return the header of a regular file of `size` bytes, owned by root and dated 1970-01-01; whole blocks."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = mode
    info.uname = info.gname = "root"
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def padding(size: int) -> int:
    """Return the number of zero bytes that fill the last block of a content of `size` bytes."""
    return -size % BLOCK
