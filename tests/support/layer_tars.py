"""Tar archives of layers, with every kind of member: ordinary ones by tarfile, and those that it does not write."""

import io
import struct
import tarfile
from collections.abc import Iterable
from typing import Any

BLOCK = 512
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
"""The extended attribute security.capability of `cap_net_raw+ep`."""

TIME = 1_700_000_000


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int = 0,
    mode: int = 0o644,
    target: bytes = b"",
    magic: bytes = b"ustar\x0000",
    **fields: bytes,
) -> bytes:
    """Return a header block with a valid checksum; `fields` are raw fields by their names in POSIX."""
    offsets = {
        "mode": 100,
        "uid": 108,
        "gid": 116,
        "size": 124,
        "raw_size": 124,
        "mtime": 136,
        "devmajor": 329,
        "devminor": 337,
        "prefix": 345,
        "trailer": 508,
    }
    values = {"mode": b"%07o" % mode, "uid": b"%07o" % 0, "gid": b"%07o" % 0, "size": b"%011o" % size, **fields}
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[156:157] = kind
    block[157 : 157 + len(target)] = target
    block[257 : 257 + len(magic)] = magic
    for field, value in values.items():
        block[offsets[field] : offsets[field] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    """Return content in whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def file(name: bytes, content: bytes = b"", **fields: Any) -> bytes:
    """Return a regular file."""
    return header(name, size=len(content), **fields) + padded(content)


def pax(records: Iterable[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """Return an extended header, which belongs in front of the member that it describes."""
    body = b""
    for key, value in records:
        rest = b" %s=%s\n" % (key, value)
        length = len(rest) + len(str(len(rest) + len(str(len(rest)))))
        body += b"%d%s" % (length, rest)
    return header(b"pax_header", kind, size=len(body)) + padded(body)


def archive(*members: bytes) -> bytes:
    """Return a complete archive."""
    return b"".join([*members, bytes(2 * BLOCK)])


class Writer:
    """Collects ordinary members of a layer; all are dated 2023 unless they say otherwise."""

    def __init__(self, style: int = tarfile.PAX_FORMAT) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=style, encoding="utf-8")

    def add(self, name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any) -> None:
        """Add a member; `fields` are attributes of `TarInfo`, and `xattrs` a mapping."""
        info = tarfile.TarInfo(name)
        info.type, info.size, info.mtime = kind, len(content), TIME
        info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        xattrs = fields.pop("xattrs", {})
        assert isinstance(xattrs, dict)
        info.pax_headers = {
            f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in xattrs.items()
        }
        for field, value in fields.items():
            setattr(info, field, value)
        self._tar.addfile(info, io.BytesIO(content))

    def directory(self, name: str, **fields: Any) -> None:
        """Add a directory."""
        self.add(name, tarfile.DIRTYPE, **fields)

    def symlink(self, name: str, target: str, **fields: Any) -> None:
        """Add a symbolic link."""
        self.add(name, tarfile.SYMTYPE, linkname=target, **fields)

    def hard_link(self, name: str, target: str, **fields: Any) -> None:
        """Add a hard link."""
        self.add(name, tarfile.LNKTYPE, linkname=target, **fields)

    def done(self) -> bytes:
        """Return the archive."""
        self._tar.close()
        return self._buffer.getvalue()


def base() -> bytes:
    """Return a lowest layer, with files that others change or delete."""
    layer = Writer()
    layer.directory("./", mode=0o751, uid=3, gid=4)
    layer.directory("data")
    layer.directory("data/sub")
    layer.add("data/old", content=b"old\n")
    layer.add("data/keep", content=b"keep\n")
    layer.add("data/sub/x", content=b"x\n")
    layer.directory("data/opaque")
    layer.add("data/opaque/hidden", content=b"hidden\n")
    layer.directory("gone")
    layer.add("gone/f", content=b"f\n")
    layer.add("becomes-directory", content=b"x")
    layer.directory("becomes-file")
    layer.directory("usr/lib")
    layer.symlink("lib", "usr/lib")
    layer.symlink("absolute", "/usr/lib")
    layer.add("lib/through-a-link", content=b"link\n")
    layer.add("absolute/through-a-link-too", content=b"link\n")
    return layer.done()


def special() -> bytes:
    """Return a layer with everything that a layer may have."""
    layer = Writer()
    layer.directory("data")
    layer.add("data/.wh.old", uid=5, gid=6)
    layer.directory("data/opaque")
    layer.add("data/opaque/.wh..wh..opq")
    layer.add("data/opaque/new", content=b"new\n")
    layer.add(".wh.gone")
    layer.add("gone/.wh.f")  # below what is hidden already, as some builders write it
    layer.directory("becomes-directory")
    layer.add("becomes-directory/f", content=b"f\n")
    layer.add("becomes-file", content=b"file\n")
    layer.add("usr/bin/suid", content=b"#!/bin/sh\nid\n", mode=0o4755)
    layer.add("usr/bin/sgid", content=b"x", mode=0o2755, gid=42)
    layer.directory("srv/app", mode=0o2775, uid=1000, gid=33)
    layer.add("srv/app/f", content=b"app\n", mode=0o640, uid=1000, gid=33)
    layer.add("usr/bin/capable", content=b"#!/bin/sh\n", mode=0o755, xattrs={"security.capability": CAPABILITY})
    layer.add("srv/xattr", content=b"x", xattrs={"user.note": "h\u00e9llo".encode(), "user.raw": b"a=\nb\xff\0c"})
    layer.directory("srv/xattr-directory", xattrs={"user.note": b"y"})
    layer.add("srv/labels", content=b"z", xattrs={"trusted.note": b"t", "security.selinux": b"u:object_r:x_t:s0\0"})
    layer.add("srv/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)
    layer.add("srv/loop9", tarfile.BLKTYPE, mode=0o660, devmajor=7, devminor=300)
    layer.add("srv/fifo", tarfile.FIFOTYPE, mode=0o600)
    layer.hard_link("srv/app/hard", "srv/app/f", mode=0o4600, uid=7)
    layer.symlink("srv/sym", "/etc/passwd", uid=7)
    layer.symlink("srv/dangling", "../../../../nothing")
    layer.symlink("srv/long-target", "/" + "t" * 180)
    layer.hard_link("srv/symhard", "srv/sym", uid=8)
    layer.add("srv/\u00e4\u00f6 <&> name", content=b"utf8\n")
    layer.add("srv/new\nline\\", content=b"newline\n")
    layer.add("srv/" + "l" * 150 + "/" + "m" * 120, content=b"long\n")
    layer.add("srv/implicit/parent/f", content=b"no directory entry\n")
    layer.add("srv/sticky-file", content=b"y", mode=0o1777)
    layer.directory("srv/sticky", mode=0o1777)
    layer.directory("srv/nothing", mode=0o000)
    layer.add("srv/times", content=b"t", mtime=1234567890.987)
    layer.add("srv/large-owner", content=b"o", uid=4_000_000_000, gid=3_000_000)
    layer.add("srv/empty")
    return layer.done()


def old_styles() -> bytes:
    """Return a layer with the headers of GNU tar and of Unix V7, and a global header as `git archive` writes it."""
    gnu = Writer(tarfile.GNU_FORMAT)
    gnu.add("gnu/" + "g" * 200, content=b"gnu\n", uid=3_000_000)
    gnu.symlink("gnu/link", "t" * 200)
    gnu.hard_link("gnu/hard", "gnu/" + "g" * 200)
    members = gnu.done().rstrip(b"\0")
    return archive(
        pax([(b"comment", b"0123456789abcdef")], b"g"),
        file(b"v7", b"v7\n", magic=b""),
        header(b"v7-directory/", b"\0", magic=b""),
        file(b"bytes-\xff\xfe", b"not utf-8\n"),
        file(b"name", b"prefix\n", prefix=b"in/a/prefix"),
        padded(members),
    )
