"""tar-split: what podman needs, apart from the files of a layer, to give back its tar archive byte for byte.

`podman save`, `push`, `build` and `system check` need it. It is gzipped JSON, one object per line: segments with the
bytes of headers and padding, and files with size and CRC-64 of their content.

Format: github.com/vbatts/tar-split, `tar/storage` (Entry) and `tar/asm` (NewInputTarStream); CRC: Go's hash/crc64, ISO.
"""

import base64
import gzip
import json
from collections.abc import Iterable
from typing import BinaryIO

from osc_containers.formats.layer_tar import Member
from osc_containers.fs.ranges import FileSlice

_SEGMENT_LIMIT = 1 << 20
_FILE_TYPE, _SEGMENT_TYPE = 1, 2
_INITIAL = (1 << 64) - 1
# Bytes after which the number is reduced, because it grows by a sixteenth of a piece with each piece.
_CRC_CHUNK = 256 << 10
_PIECE = 32 << 10
"""Bytes that are combined at a time: 8 times a power of two, and few enough for the processor's cache."""


class TarSplit:
    """Writes the tar-split of a layer to `file`, while its members are read in order."""

    def __init__(self, layer: FileSlice, file: BinaryIO) -> None:
        self._layer = layer
        # Without a time and a name, the same layer gives the same bytes.
        self._gzip = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0, filename="")
        self._position = self._end = 0

    def close(self) -> None:
        """Complete the file."""
        self._gzip.close()

    def add(self, member: Member) -> None:
        """Add the next member, with everything in front of its content."""
        self._segments(self._end, member.offset)
        entry: dict[str, object] = {"type": _FILE_TYPE, **_named(member.name)}
        if member.size:
            crc = crc64(self._layer.chunks(member.offset, member.offset + member.size))
            # Go's hashes give their bytes in this order.
            entry |= {"size": member.size, "payload": _base64(crc.to_bytes(8, "big"))}
        else:
            entry["payload"] = None
        self._write(entry)
        self._end = member.offset + member.size

    def finish(self, size: int) -> None:
        """Add what follows the last member of a layer of `size` bytes."""
        self._segments(self._end, size)

    def _segments(self, start: int, stop: int) -> None:
        for position in range(start, stop, _SEGMENT_LIMIT):
            content = self._layer.read(position, min(stop, position + _SEGMENT_LIMIT))
            self._write({"type": _SEGMENT_TYPE, "payload": _base64(content)})

    def _write(self, entry: dict[str, object]) -> None:
        line = json.dumps({**entry, "position": self._position}, separators=(",", ":"), ensure_ascii=False)
        self._gzip.write(line.encode() + b"\n")
        self._position += 1


def _named(name: bytes) -> dict[str, object]:
    try:
        return {"name": name.decode()}
    except UnicodeDecodeError:
        return {"name_raw": _base64(name)}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def crc64(chunks: Iterable[memoryview]) -> int:
    """Return the CRC-64/ISO of all chunks together."""
    # The polynomial x^64 + x^4 + x^3 + x + 1 is sparse, and squaring it doubles its exponents: for every e that is a
    # power of two, x^(64e) is the same as x^(4e) + x^(3e) + x^e + 1 = (x^e + 1) (x^(3e) + 1). So a multiplication by
    # x^(64e) takes two shifts, and Python's integers shift and add kilobytes at a time. In a number, the lowest bit is
    # the highest power. A table for single bytes, the usual way, would be fifty times as slow in Python.
    state = _INITIAL
    for chunk in chunks:
        for start in range(0, len(chunk), _CRC_CHUNK):
            state = _append(state, chunk[start : start + _CRC_CHUNK])
    return state ^ _INITIAL


def _append(state: int, content: memoryview) -> int:
    """Return the CRC of what has the CRC `state`, followed by `content`."""
    whole = len(content) // _PIECE * _PIECE
    if whole:
        e = _PIECE // 8
        value, width = int.from_bytes(content[:_PIECE], "little") ^ state, 8 * _PIECE
        # Each round multiplies by x^(64e), which makes space for the bits of one piece, and adds the next piece.
        for start in range(_PIECE, whole, _PIECE):
            value ^= value << e
            value ^= value << 3 * e
            width += 4 * e
            value ^= int.from_bytes(content[start : start + _PIECE], "little") << (width - 8 * _PIECE)
        state = _reduce(value, width)
    rest = content[whole:]
    return _reduce(int.from_bytes(rest, "little") ^ state, 8 * len(rest)) if rest else state


def _reduce(value: int, width: int) -> int:
    """Return `value`, a polynomial with `width` coefficients, times x^64, modulo the polynomial of the CRC."""
    width += 64
    while width > 64:
        e = 1 << (((width - 1) // 64).bit_length() - 1)
        rest = width - 64 * e
        # The powers from 64e up are in the lowest `rest` bits. Smaller ones take their place, and the others are added.
        high = value & ((1 << rest) - 1)
        new = max(64 * e, rest + 4 * e)
        high ^= high << e
        high ^= high << 3 * e
        value = ((value >> rest) << (new - 64 * e)) ^ (high << (new - rest - 4 * e))
        width = new
    return value
