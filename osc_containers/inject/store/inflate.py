"""Layers from blobs: decompressed to a file, with the digests of both checked on the way.

The digest of the blob says what was downloaded; the diff_id in the image's configuration says what is unpacked.
"""

import os
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from osc_containers.errors import Error
from osc_containers.formats import human
from osc_containers.fs import program
from osc_containers.fs.ranges import CHUNK, FileSlice
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor

PLAIN, GZIP, ZSTD = "plain", "gzip", "zstd"
LAYER_LIMIT = 64 << 30
"""Bytes of an unpacked layer."""

_INPUT = 64 << 10
_RESERVE = 256 << 20
"""Bytes of the disk that stay free, so that a bomb does not take the space of everything else in the build root."""
_SPACE_INTERVAL = 64 << 20
_MAGIC = {b"\x1f\x8b": GZIP, b"\x28\xb5\x2f\xfd": ZSTD, b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_SKIPPABLE_FRAME = range(0x184D2A50, 0x184D2A60)
"""The first four bytes of frames without content (RFC 8878, section 3.1.2)."""


class Inflated(NamedTuple):
    """An unpacked layer: how the blob was compressed, and the bytes of the tar archive."""

    compression: str
    size: int


def inflate(
    blob: FileSlice,
    descriptor: Descriptor,
    diff_id: Digest,
    target: FileSlice,
    environ: Mapping[str, str] = os.environ,
) -> Inflated:
    """Write the tar archive in a blob to `target`, and check that it is the one that `diff_id` names.

    `environ` has the PATH for the program zstd.

    :raises ValueError: a digest does not match, the blob is damaged, or unpacks to more than there is space for.
    :raises Error: the program zstd is needed and is missing or fails.
    """
    # As in podman, the first bytes decide how a layer is compressed. Its media type may say something else.
    magic = blob.read(0, min(8, descriptor.size))
    compression = next((name for start, name in _MAGIC.items() if magic.startswith(start)), PLAIN)
    if int.from_bytes(magic[:4], "little") in _SKIPPABLE_FRAME:
        compression = ZSTD
    if compression not in (PLAIN, GZIP, ZSTD):
        raise ValueError(f"it is compressed with {compression}, expected gzip, zstd or no compression")
    source = _Hashed(blob, descriptor)
    tar, size, checked = diff_id.hasher(), 0, 0
    for chunk in _READERS[compression](source.chunks(), environ):
        size += len(chunk)
        if size > LAYER_LIMIT:
            raise ValueError(f"it unpacks to more than {human.size(LAYER_LIMIT)}, expected at most that")
        if size > checked:
            _check_space(target)
            checked += _SPACE_INTERVAL
        tar.update(chunk)
        target.write(chunk, size - len(chunk))
    if source.digest() != descriptor.digest:
        raise ValueError(f"the blob has the digest {source.digest()}, expected {descriptor.digest}; it is damaged")
    if tar.hexdigest() != diff_id.hex:
        raise ValueError(
            f"it unpacks to {diff_id.algorithm}:{tar.hexdigest()}, expected {diff_id} as in the image's configuration; "
            "its blob is not the layer that the configuration names"
        )
    return Inflated(compression=compression, size=size)


def _check_space(target: FileSlice) -> None:
    info = os.fstatvfs(target.descriptor)
    free = info.f_bavail * info.f_frsize
    # Until the next check, as many bytes as the interval may be written. Some file systems report no size.
    if info.f_blocks and free < _RESERVE + _SPACE_INTERVAL:
        raise ValueError(
            f"no space left to unpack it: {human.size(free)} are free, and {human.size(_RESERVE)} must stay free; "
            "give the build more disk space"
        )


class _Hashed:
    """A blob that is hashed while it is read once."""

    def __init__(self, blob: FileSlice, descriptor: Descriptor) -> None:
        self._blob, self._descriptor = blob, descriptor
        self._hasher = descriptor.digest.hasher()

    def chunks(self) -> Iterator[memoryview]:
        for start in range(0, self._descriptor.size, _INPUT):
            for chunk in self._blob.chunks(start, min(start + _INPUT, self._descriptor.size)):
                self._hasher.update(chunk)
                yield chunk

    def digest(self) -> Digest:
        return Digest(self._descriptor.digest.algorithm, self._hasher.hexdigest())


def _plain(chunks: Iterator[memoryview], _: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    yield from chunks


def _gunzip(chunks: Iterator[memoryview], _: Mapping[str, str]) -> Iterator[bytes]:
    """Decompress gzip data, which may have several members, without more than `CHUNK` bytes in memory."""
    member = None
    try:
        for chunk in chunks:
            data = bytes(chunk)
            while data:
                # Adding 16 selects the format of gzip (zlib manual, inflateInit2).
                member = member or zlib.decompressobj(16 + zlib.MAX_WBITS)
                yield member.decompress(data, CHUNK)
                data = member.unconsumed_tail
                if member.eof:
                    data, member = member.unused_data, None
        if member:
            # What is left in the decompressor is less than a window.
            yield member.flush()
            if not member.eof:
                raise ValueError("its gzip data is cut off")
    except zlib.error as error:
        raise ValueError(f"its gzip data is damaged: {error}") from None


def _unzstd(chunks: Iterator[memoryview], environ: Mapping[str, str]) -> Iterator[bytes]:
    """Decompress zstd data, which may have several frames: with Python 3.14, or else with the program zstd."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            yield from program.transform("zstd", "-dcq", "--no-progress", source=chunks, environ=environ)
        except program.NotInstalledError:
            raise Error("it is compressed with zstd: install the program zstd, or use Python 3.14 or newer") from None
        return
    frame = None
    try:
        for chunk in chunks:
            data = bytes(chunk)
            # A frame that needs no input still has output, more than fitted into a chunk.
            while data or (frame and not frame.needs_input):
                frame = frame or zstd.ZstdDecompressor()
                yield frame.decompress(data, CHUNK)
                data = b""
                if frame.eof:
                    data, frame = frame.unused_data, None
    except zstd.ZstdError as error:
        raise ValueError(f"its zstd data is damaged: {error}") from None
    if frame:
        raise ValueError("its zstd data is cut off")


_READERS = {PLAIN: _plain, GZIP: _gunzip, ZSTD: _unzstd}
