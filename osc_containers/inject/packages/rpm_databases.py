"""The databases of rpm: ndb and sqlite, which both store one header for each package.

Sources: rpm's documentation, "RPM V4 Header format" and its tags; rpm, lib/backend/ndb/rpmpkg.c.
"""

import struct
from collections.abc import Iterator
from contextlib import closing

from osc_containers.inject.packages.record import COUNT_LIMIT, RPM, Record, field

_NAME, _VERSION, _RELEASE, _EPOCH, _LICENSE, _ARCH = 1000, 1001, 1002, 1003, 1014, 1022
_TEXTS = {_NAME, _VERSION, _RELEASE, _LICENSE, _ARCH}
_STRING, _STRING_ARRAY, _I18N_STRING, _INT32 = 6, 8, 9, 4
_KEY = "gpg-pubkey"
"""The name under which rpm keeps the keys that it trusts; these are no packages."""

_PAGE, _BLOCK = 4096, 16
_NDB, _SLOT, _BLOB = 0x506D7052, 0x746F6C53, 0x53626C42  # "RpmP", "Slot", "BlbS"

_SQLITE_STEPS, _SQLITE_CALLS = 10_000, 20_000
"""Instructions of sqlite's machine between two calls, and calls until a query is given up."""
_HEADER_LIMIT = 64 << 20
"""Bytes of one header; rpm's own limit is 256 MiB, and that of real packages a few."""


def ndb(content: bytes) -> Iterator[Record]:
    """Yield the packages in a `Packages.db`.

    :raises ValueError: it is damaged.
    """
    if len(content) < _PAGE:
        raise ValueError("it is cut off")
    magic, _, _, pages = struct.unpack_from("<4I", content)
    if magic != _NDB or pages * _PAGE > len(content):
        raise ValueError("it is not a database of rpm (ndb)")
    budget = _Budget(content)
    # The header takes two blocks. The slots follow, one block each, up to the end of the last page of slots.
    for position in range(2 * _BLOCK, pages * _PAGE, _BLOCK):
        magic, package, block, _ = struct.unpack_from("<4I", content, position)
        if magic != _SLOT:
            raise ValueError(f"got no slot at byte {position}")
        # The slots of removed packages, and those that were never used, are empty.
        if block:
            record = _record(budget.take(_ndb_blob(content, package, block * _BLOCK)))
            if record:
                yield record


class _Budget:
    """Counts headers and their bytes: together they have no more than the database, unless some overlap."""

    def __init__(self, content: bytes) -> None:
        self._bytes, self._count = len(content), COUNT_LIMIT

    def take(self, header: object) -> bytes:
        """Return a header.

        :raises ValueError: it is none, or there are too many.
        """
        if not isinstance(header, bytes):
            raise ValueError(f"got {type(header).__name__}, expected a header")
        self._bytes -= len(header)
        self._count -= 1
        if self._bytes < 0 or self._count < 0:
            raise ValueError("got more headers than it has space for")
        return header


def _ndb_blob(content: bytes, package: int, position: int) -> bytes:
    if position + _BLOCK > len(content):
        raise ValueError(f"got a header at byte {position}, behind the end")
    magic, owner, _, size = struct.unpack_from("<4I", content, position)
    start = position + _BLOCK
    if magic != _BLOB or owner != package or start + size > len(content):
        raise ValueError(f"got no header at byte {position}")
    return content[start : start + size]


def sqlite(content: bytes) -> Iterator[Record]:
    """Yield the packages in an `rpmdb.sqlite`.

    :raises ValueError: it is damaged, or not such a database.
    """
    try:
        import sqlite3  # some distributions package it by itself
    except ImportError:
        raise ValueError(
            "it needs Python's module sqlite3, which is not installed (openSUSE: package python3)"
        ) from None
    # sqlite opens a database with a write-ahead log only as a file. Here, there is no log (see `databases`).
    # Bytes 18 and 19 say whether there is one: 1 is without, 2 is with a log (SQLite's file format, section 1.3).
    content = content[:18] + b"\1\1" + content[20:]
    calls = iter(range(_SQLITE_CALLS))
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(content)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _HEADER_LIMIT)
            connection.set_progress_handler(lambda: next(calls, -1) < 0, _SQLITE_STEPS)
            # The file may be hostile: nothing but a plain table is read, and no function in its schema is called.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            kinds = connection.execute("SELECT type, rootpage FROM sqlite_master WHERE name = 'Packages'").fetchall()
            # A virtual table has the type "table", too, but no root page.
            if len(kinds) != 1 or kinds[0][0] != "table" or not kinds[0][1]:
                raise ValueError("it is not a database of rpm (sqlite)")
            budget = _Budget(content)
            for (blob,) in connection.execute("SELECT blob FROM Packages ORDER BY hnum"):
                record = _record(budget.take(blob))
                if record:
                    yield record
    # A damaged schema can make sqlite ask for more memory than it ever takes; it then reports that there is none.
    except (sqlite3.Error, OverflowError, MemoryError) as error:
        raise ValueError(f"sqlite cannot read it: {ascii(str(error) or type(error).__name__)[1:-1][:200]}") from None


def _record(header: bytes) -> Record | None:
    """Read a header; None if it is that of a key."""
    if len(header) < 8:
        raise ValueError("got a header that is cut off")
    # A database leaves out the magic number with which a header begins in a package. The two lengths are followed by
    # the index, of 16 bytes for each entry, and the data.
    count, length = struct.unpack_from(">2I", header)
    start = 8 + 16 * count
    if start + length > len(header):
        raise ValueError("got a header that is cut off")
    data = header[start : start + length]
    texts: dict[int, str] = {}
    epoch = ""
    for index in range(count):
        tag, kind, offset, _ = struct.unpack_from(">4I", header, 8 + 16 * index)
        if tag in _TEXTS and kind in (_STRING, _STRING_ARRAY, _I18N_STRING) and offset < length:
            texts[tag] = field(_text_at(data, offset))
        elif tag == _EPOCH and kind == _INT32 and offset + 4 <= length:
            epoch = str(struct.unpack_from(">I", data, offset)[0])
    if not texts.get(_NAME):
        raise ValueError("got a header without a name")
    if texts[_NAME] == _KEY:
        return None
    version = "-".join(filter(None, (texts.get(_VERSION, ""), texts.get(_RELEASE, ""))))
    return Record(
        kind=RPM,
        name=texts[_NAME],
        version=version,
        arch=texts.get(_ARCH, ""),
        license=texts.get(_LICENSE, ""),
        # For rpm, no epoch is the same as 0.
        epoch=epoch if epoch != "0" else "",
    )


def _text_at(data: bytes, offset: int) -> bytes:
    end = data.find(b"\0", offset, offset + _PAGE)
    return data[offset : end if end >= 0 else offset + _PAGE]
