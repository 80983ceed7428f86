"""tar-split: the checksum, and that a layer can be put together again."""

import io
from collections.abc import Callable
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.formats import layer_tar
from osc_containers.inject.store import tar_split
from osc_containers.inject.store.tar_split import TarSplit, crc64
from tests.support import layer_tars, store
from tests.support.slices import slice_of

TABLE = []
for number in range(256):
    for _ in range(8):
        number = number >> 1 ^ (0xD800000000000000 if number & 1 else 0)
    TABLE.append(number)


def slow_crc64(content: bytes) -> int:
    """Return the checksum as Go's hash/crc64 computes it: byte by byte, with a table."""
    state = (1 << 64) - 1
    for byte in content:
        state = TABLE[(state ^ byte) & 255] ^ state >> 8
    return state ^ (1 << 64) - 1


def test_checksum_of_the_usual_test_string() -> None:
    assert crc64([memoryview(b"123456789")]) == 0xB90956C775A41001


@given(st.lists(st.binary(max_size=300), max_size=4), st.sampled_from([8, 16, 64]), st.sampled_from([64, 128, 256]))
def test_checksum_is_that_of_the_table(chunks: list[bytes], piece: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar_split, "_PIECE", piece)
        patch.setattr(tar_split, "_CRC_CHUNK", chunk)
        assert crc64(map(memoryview, chunks)) == slow_crc64(b"".join(chunks))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 32767, 32768, 32769, 65536, 262145])
def test_checksum_of_sizes_around_the_limits(size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    assert crc64([memoryview(content[:size])]) == slow_crc64(content[:size])


@pytest.mark.parametrize("fill", [layer_tars.base, layer_tars.special, layer_tars.old_styles])
def test_a_layer_can_be_put_together_again(fill: Callable[[], bytes]) -> None:
    content = fill()
    packed = io.BytesIO()
    files = {}
    with slice_of(content) as layer, closing(TarSplit(layer, packed)) as split:
        for member in layer_tar.members(layer, len(content)):
            split.add(member)
            files[member.name] = content[member.offset : member.offset + member.size]
        split.finish(len(content))
    parts = []
    for kind, value, *rest in store.split_entries(packed.getvalue()):
        assert isinstance(value, bytes)
        parts.append(value if kind == "segment" else files[value])
        assert kind == "segment" or rest[0] == len(files[value])
    assert b"".join(parts) == content
