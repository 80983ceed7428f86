"""Decompression of layers: every byte is checked, and neither memory nor disk is without a limit."""

import gzip
import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import zstandard
from _pytest.mark.structures import ParameterSet

from osc_containers.errors import Error
from osc_containers.inject.store import inflate as module
from osc_containers.inject.store.inflate import inflate
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor
from tests.support.slices import slice_of

CONTENT = b"".join(hashlib.sha256(bytes([number])).digest() * 100 for number in range(200))


def inflated(blob: bytes, content: bytes = CONTENT, *, digest: Digest | None = None) -> tuple[str, int]:
    """Inflate a blob, of which `content` is expected; return the compression and the size."""
    descriptor = Descriptor(digest=digest or Digest.of(blob), size=len(blob), media_type="layer")
    with slice_of(blob + b"next blob") as source, slice_of(b"") as target:
        result = inflate(source, descriptor, Digest.of(content), target)
        assert target.read(0, len(content) + 1) == content
    return result.compression, result.size


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(content)


def packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1)


needs_zstd = pytest.mark.integration
"""Before Python 3.14, the program zstd is needed."""

SKIPPABLE = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
GOOD = {
    "plain": (CONTENT, "plain"),
    "gzip": (gzip.compress(CONTENT), "gzip"),
    "gzip in members": (gzip.compress(CONTENT[:77]) + gzip.compress(b"") + gzip.compress(CONTENT[77:]), "gzip"),
}
GOOD_ZSTD = {
    "zstd": (zstd(CONTENT), "zstd"),
    "zstd in frames": (zstd(CONTENT[:77]) + SKIPPABLE + zstd(CONTENT[77:]), "zstd"),
    "zstd after a skippable frame": (SKIPPABLE + zstd(CONTENT), "zstd"),
}


def rows(fast: Mapping[str, tuple[bytes, str]], slow: Mapping[str, tuple[bytes, str]]) -> list[ParameterSet]:
    return [
        *(pytest.param(*row, id=name) for name, row in fast.items()),
        *(pytest.param(*row, id=name, marks=needs_zstd) for name, row in slow.items()),
    ]


@pytest.mark.parametrize(("blob", "compression"), rows(GOOD, GOOD_ZSTD))
def test_layers_are_unpacked(blob: bytes, compression: str) -> None:
    assert inflated(blob) == (compression, len(CONTENT))


BAD = {
    "another tar archive": (gzip.compress(CONTENT[1:]), "expected sha256:.* as in the image's configuration"),
    "one more member": (gzip.compress(CONTENT) + gzip.compress(b"more"), "as in the image's configuration"),
    "gzip cut off": (gzip.compress(CONTENT)[:-9], "its gzip data is cut off"),
    "gzip with a changed byte": (gzip.compress(CONTENT)[:-6] + b"x" * 6, "its gzip data is damaged"),
    "gzip and more": (gzip.compress(CONTENT) + b"more", "its gzip data is damaged"),
    "bzip2": (b"BZh91AY", "it is compressed with bzip2, expected gzip, zstd or no compression"),
    "xz": (b"\xfd7zXZ\0", "it is compressed with xz"),
    "empty": (b"", "as in the image's configuration"),
}
BAD_ZSTD = {
    "zstd cut off": (zstd(CONTENT)[:-9], "zstd"),
    "zstd and more": (zstd(CONTENT) + b"more", "zstd"),
}


@pytest.mark.parametrize(("blob", "problem"), rows(BAD, BAD_ZSTD))
def test_what_is_not_the_layer_is_refused(blob: bytes, problem: str) -> None:
    with pytest.raises((ValueError, Error), match=problem):
        inflated(blob)


def test_a_damaged_blob_is_refused() -> None:
    digest = Digest.of(b"something else")
    with pytest.raises(ValueError, match=f"the blob has the digest sha256:.*, expected {digest}; it is damaged"):
        inflated(gzip.compress(CONTENT), digest=digest)


def test_the_size_of_a_layer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAYER_LIMIT", 1 << 20)
    with pytest.raises(ValueError, match=r"unpacks to more than 1\.0 MB"):
        inflated(packed(bytes(8 << 20)))


@needs_zstd
def test_the_size_of_a_zstd_layer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAYER_LIMIT", 1 << 20)
    with pytest.raises(ValueError, match=r"unpacks to more than 1\.0 MB"):
        inflated(zstd(bytes(8 << 20)))


def test_some_of_the_disk_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    info = os.statvfs("/")
    monkeypatch.setattr(os, "fstatvfs", lambda _: os.statvfs_result((*info[:4], 100, *info[5:])))
    with pytest.raises(ValueError, match=r"no space left to unpack it: .* are free, and 268 MB must stay free"):
        inflated(gzip.compress(CONTENT))


def test_zstd_that_is_not_installed_is_named() -> None:
    if sys.version_info >= (3, 14):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(Error, match=r"compressed with zstd: install the program zstd, or use Python 3\.14"):
            inflated(zstd(CONTENT))


BOMB = """
import gzip, os, resource
from osc_containers.inject.store.inflate import inflate
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor
from osc_containers.fs.ranges import FileSlice
blob = os.open("bomb", os.O_RDONLY)
size = os.fstat(blob).st_size
digest = Digest.of(open("bomb", "rb").read())
try:
    inflate(FileSlice(blob, 0), Descriptor(digest, size, ""), digest, FileSlice(os.open("/dev/null", os.O_RDWR), 0))
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("pack", [packed, pytest.param(zstd, marks=needs_zstd)])
def test_a_bomb_needs_little_memory(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "bomb").write_bytes(pack(bytes(64 << 20)))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (48 << 20, 48 << 20))

    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", BOMB], cwd=tmp_path, env=environment, preexec_fn=limit, capture_output=True, text=True
    )
    assert "expected sha256" in done.stdout, done.stderr
