"""Strict reader for the tar archives of image layers.

A layer is read as podman reads it (Go's archive/tar): ustar, pax and GNU headers, without sparse files. Readers of tar
disagree about malformed archives, and then the files that were checked would not be those that are used. Therefore
everything that another reader could understand in another way is an error, instead of a guess.

Spec: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from osc_containers.formats.tar import BLOCK, padding
from osc_containers.fs.ranges import FileSlice

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
GLOBAL = b"g"
"""Defaults for the following members. Engines ignore them, and `git archive` keeps its commit there."""

_OLD_FILE, _EXTENDED, _LONG_NAME, _LONG_LINK = b"\0", b"x", b"L", b"K"
_KINDS = {FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO}
_HEADER_LIMIT = 1 << 20
"""Bytes of one extended header, as in Go."""
_ID_LIMIT = (1 << 32) - 2
"""Highest user or group ID: for chown(2), the next number means "unchanged"."""

_USTAR, _GNU = b"ustar\x00", b"ustar  \x00"
_XATTR = b"SCHILY.xattr."
# Digits are matched, because `int` also accepts signs, spaces and underscores. A number of 63 bits has at most 19, and
# the length of a record that fits in `_HEADER_LIMIT` at most 7.
_NUMBER = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?[0-9]{1,18})(?:\.[0-9]*)?")
_LENGTH = re.compile(rb"[0-9]{1,7}")


class Member(NamedTuple):
    """A member of a layer: the values of its header and the position of its content.

    `name` is as in the archive. `mode` has the permissions only, `mtime` is in whole seconds since 1970. `size` is the
    number of bytes at `offset`, and is 0 unless `kind` is `FILE`. `target` is that of a link. Headers that belong to
    this member, and the padding of the previous one, are in front of `offset`.
    """

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    offset: int
    target: bytes
    device: tuple[int, int]
    xattrs: Mapping[bytes, bytes]


def members(file: FileSlice, size: int) -> Iterator[Member]:
    """Yield the members of an uncompressed tar archive of `size` bytes.

    :raises ValueError: the archive is invalid from this point on. The message names the position.
    """
    position = 0
    extended: dict[bytes, bytes] = {}
    long_names: dict[bytes, bytes] = {}
    # The types of the extended headers in front of the next member.
    kinds: frozenset[bytes] = frozenset()
    while position < size:
        block = file.read(position, min(size, position + BLOCK))
        if len(block) < BLOCK:
            raise ValueError(f"got {len(block)} bytes at byte {position}, expected a header of {BLOCK}; it is cut off")
        if not block.strip(b"\0"):
            _check_end(file, position, size)
            break
        try:
            _check_sum(block)
            kind = block[156:157]
            length = _number(block[124:136], "size")
            if kind in (_EXTENDED, _LONG_NAME, _LONG_LINK, GLOBAL):
                content = _read_header(file, position + BLOCK, length, size)
                if kind == GLOBAL:
                    yield _global(block, position + BLOCK + length)
                elif kind == _EXTENDED:
                    extended = _records(content)
                else:
                    long_names[kind] = _text(content)
                    _refuse_empty_name(long_names[kind])
                kinds = _with_kind(kinds, kind)
            else:
                member = _member(block, extended, long_names, position + BLOCK, size)
                # Extended headers are for one member only. The size may be theirs, too, instead of that of the block.
                extended, long_names, kinds, length = {}, {}, frozenset(), member.size
                yield member
        except ValueError as error:
            raise ValueError(f"header at byte {position}: {error}") from None
        position += BLOCK + length + padding(length)
    if kinds:
        raise ValueError("ends after an extended header, expected a member")


def _with_kind(kinds: frozenset[bytes], kind: bytes) -> frozenset[bytes]:
    """Return the types of extended headers in front of a member, with one more. Global ones belong to no member."""
    # Of two headers of a type, some readers take the first one, some the last, and some a part of each.
    if kind in kinds:
        raise ValueError(f"got a second extended header of type {kind!r} for one member")
    return kinds | {kind} - {GLOBAL}


def _check_end(file: FileSlice, position: int, size: int) -> None:
    # Two blocks of zeros end an archive; Go accepts one if nothing follows. Some readers ignore both and read on.
    for chunk in file.chunks(position, size):
        if bytes(chunk).strip(b"\0"):
            raise ValueError(f"got data after the end of the archive at byte {position}, expected zeros")


def _check_sum(block: bytes) -> None:
    expected = _octal(block[148:156], "checksum")
    # The field itself counts as if it were filled with spaces.
    total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    if expected == total:
        return
    # Old programs added signed bytes.
    if expected != total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
        raise ValueError("wrong checksum; it is damaged, or not a tar archive")


def _read_header(file: FileSlice, position: int, length: int, size: int) -> bytes:
    if length > _HEADER_LIMIT:
        raise ValueError(f"got an extended header of {length} bytes, expected at most {_HEADER_LIMIT}")
    if position + length > size:
        raise ValueError(f"got an extended header of {length} bytes, expected at most {size - position}")
    return file.read(position, position + length)


def _global(block: bytes, end: int) -> Member:
    return Member(
        name=_name(block),
        kind=GLOBAL,
        mode=0,
        uid=0,
        gid=0,
        mtime=0,
        size=0,
        offset=end,
        target=b"",
        device=(0, 0),
        xattrs={},
    )


def _member(
    block: bytes, extended: Mapping[bytes, bytes], long_names: Mapping[bytes, bytes], offset: int, end: int
) -> Member:
    kind = block[156:157]
    name = _long_name(long_names.get(_LONG_NAME), extended.get(b"path")) or _name(block)
    target = _long_name(long_names.get(_LONG_LINK), extended.get(b"linkpath")) or _text(block[157:257])
    if kind == _OLD_FILE:
        # Before ustar, a directory was a file whose name ends in a slash.
        kind = DIRECTORY if name.endswith(b"/") else FILE
    # GNU tar also writes sparse files as plain ones with pax records, and many readers do not know those.
    if any(key.startswith(b"GNU.sparse.") for key in extended):
        kind = b"S"
    if kind not in _KINDS:
        what = "a sparse file" if kind == b"S" else f"type {kind!r}"
        raise ValueError(f"{printable(name)}: got {what}, expected a file, directory, link, device or FIFO")
    size = _pax_number(extended, b"size", _number(block[124:136], "size"))
    # Some readers skip this content, and others take it for the next header.
    if kind != FILE and size:
        raise ValueError(f"{printable(name)}: got {size} bytes of content for type {kind!r}, expected none")
    if size > end - offset:
        raise ValueError(f"{printable(name)}: got {size} bytes of content, expected at most {end - offset}")
    if not name or (kind == FILE and name.endswith(b"/")):
        raise ValueError(f"{printable(name)}: expected the name of a file")
    if kind in (HARD_LINK, SYMLINK) and not target:
        raise ValueError(f"{printable(name)}: got a link without a target")
    # Older formats than ustar and GNU do not define these fields, so anything may be in them.
    has_device = kind in (CHARACTER, BLOCK_DEVICE) and block[257:263] in (_USTAR, _GNU[:6])
    return Member(
        name=name,
        kind=kind,
        mode=_number(block[100:108], "mode") & 0o7777,
        uid=_identity(_pax_number(extended, b"uid", _number(block[108:116], "uid")), "uid"),
        gid=_identity(_pax_number(extended, b"gid", _number(block[116:124], "gid")), "gid"),
        mtime=_time(extended[b"mtime"]) if b"mtime" in extended else _number(block[136:148], "mtime", signed=True),
        size=size,
        offset=offset,
        target=target if kind in (HARD_LINK, SYMLINK) else b"",
        device=(_number(block[329:337], "devmajor"), _number(block[337:345], "devminor")) if has_device else (0, 0),
        xattrs={key[len(_XATTR) :]: value for key, value in extended.items() if key.startswith(_XATTR)},
    )


def _long_name(gnu: bytes | None, record: bytes | None) -> bytes | None:
    """Return the name in a GNU header or a pax record, if there is one. Go prefers the former, GNU tar the latter."""
    if gnu and record and gnu != record:
        raise ValueError(f"got the long name {printable(gnu)}, and {printable(record)} in a pax record")
    return gnu or record


def _refuse_empty_name(name: bytes) -> None:
    # Some readers then take the name of the member itself, and others an empty one, or the current directory.
    if not name:
        raise ValueError("got an empty name in an extended header")


def _name(block: bytes) -> bytes:
    name = _text(block[:100])
    prefix = b""
    if block[257:263] == _USTAR:
        # In the format of Schilling's star, the prefix is shorter, and times follow it.
        prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
    elif block[257:265] == _GNU:
        # GNU has times there, but Go wrote a prefix until version 1.8, and still reads it.
        try:
            _number(block[345:357], "atime", signed=True)
            _number(block[357:369], "ctime", signed=True)
        except ValueError:
            prefix = _text(block[345:500])
            if not prefix.isascii():
                prefix = b""
    return b"%s/%s" % (prefix, name) if prefix else name


def _records(content: bytes) -> dict[bytes, bytes]:
    """Return the records of a pax header, without those that are empty, which are to be ignored."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(content):
        # A record is `LENGTH KEY=VALUE` and a newline, and the length counts all of it. A value may have newlines in
        # it, so only the length tells where it ends.
        space = content.find(b" ", position, position + 8)
        if space < 0 or not _LENGTH.fullmatch(content, position, space):
            raise ValueError("got a bad pax header, expected records of the form 'LENGTH KEY=VALUE'")
        end = position + int(content[position:space])
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if end > len(content) or end <= space + 1 or content[end - 1 : end] != b"\n" or not equals or not key:
            raise ValueError("got a bad pax header, expected records of the form 'LENGTH KEY=VALUE'")
        # As in Go: C programs would cut a name off there. Other values may be binary, like those of xattrs.
        if b"\0" in (value if key in (b"path", b"linkpath", b"uname", b"gname") else key):
            raise ValueError(f"got a NUL in the pax record {printable(key)}")
        if key in records:
            raise ValueError(f"got two pax records {printable(key)}")
        if key in (b"path", b"linkpath"):
            _refuse_empty_name(value)
        records[key] = value
        position = end
    return {key: value for key, value in records.items() if value}


def _pax_number(extended: Mapping[bytes, bytes], key: bytes, default: int) -> int:
    if key not in extended:
        return default
    if not _NUMBER.fullmatch(extended[key]):
        raise ValueError(f"pax record {printable(key)}: got {printable(extended[key])}, expected a number")
    return int(extended[key])


def _time(value: bytes) -> int:
    match = _TIME.fullmatch(value)
    if not match:
        raise ValueError(f"pax record mtime: got {printable(value)}, expected a time in seconds")
    return int(match[1])


def _identity(value: int, where: str) -> int:
    if value > _ID_LIMIT:
        raise ValueError(f"{where}: got {value}, expected at most {_ID_LIMIT}")
    return value


def _number(field: bytes, where: str, *, signed: bool = False) -> int:
    """Return the value of a numeric field: octal, or in base 256 if its first bit is set."""
    if not field[0] & 0x80:
        return _octal(field, where)
    value = int.from_bytes(field, "big")
    bits = 8 * len(field)
    # The first bit is only a marker, so the next one is the sign.
    value = value - (1 << bits) if field[0] & 0x40 else value - (1 << bits - 1)
    if value.bit_length() > 63 or (value < 0 and not signed):
        raise ValueError(f"{where}: got {value}, expected a number of at most 63 bits")
    return value


def _octal(field: bytes, where: str) -> int:
    # Programs pad with spaces or NULs, on either side. As in Go, what follows a NUL in between is ignored.
    digits = field.strip(b" \0")
    digits = digits.partition(b"\0")[0]
    if digits.strip(b"01234567"):
        raise ValueError(f"{where}: got {printable(digits)}, expected an octal number")
    return int(digits, 8) if digits else 0


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def printable(name: bytes) -> str:
    """Return a name for messages: quoted, with everything but printable characters escaped, and of bounded length."""
    text = repr(name[:200].decode("utf-8", "backslashreplace"))
    return text + "…" if len(name) > 200 else text
