"""Other programs read the headers correctly, and their bytes never change."""

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.formats import tar


@given(
    st.text("ab-_.", max_size=1200).map("blobs/a{}".format),
    st.integers(0, 2**63 - 1) | st.integers(8**11 - 2, 8**11 + 2),
)
def test_the_standard_library_reads_a_header(name: str, size: int) -> None:
    header = tar.header(name, size)
    assert len(header) % tar.BLOCK == 0
    with tarfile.open(fileobj=io.BytesIO(header + tar.END)) as archive:
        member = archive.next()
    assert member
    assert (member.name, member.size, member.offset_data) == (name, size, len(header))
    assert (member.mode, member.uid, member.gid, member.mtime) == (0o644, 0, 0, 0)
    assert (member.uname, member.gname, member.type) == ("root", "root", tarfile.REGTYPE)


# The hashes are from headers that `tarfile` wrote with Python 3.11 to 3.13.
@pytest.mark.parametrize(
    ("name", "size", "blocks", "sha256"),
    [
        ("oci-layout", 30, 1, "f4a51ecb7d8859a12f36193eef9db68a409e1f30d35e829e4fb117f57c8a0784"),
        ("a" * 100, 0, 1, "b6fbf7754ec8a276a73d48fb1be04b343e09435f566eb9f052dd27df8c422cea"),
        (f"blobs/sha256/{'a' * 64}", 8**11 - 1, 1, "c52b3561395c93a3651f3def46c84579f02136012b2eb92ab92c94d48ee40b50"),
        (f"blobs/sha256/{'a' * 64}", 8**11, 3, "77d2687d1bb4f409e344f3c986dccf5473d09a5cc8adeb1127be70da635c770c"),
        (f"blobs/sha512/{'a' * 128}", 5, 3, "3ad26bd682e9cc486a4d8fbe7d070f0be12799d85706b4702c14a6f94b92499a"),
    ],
)
def test_the_bytes_of_a_header_never_change(name: str, size: int, blocks: int, sha256: str) -> None:
    header = tar.header(name, size)
    assert len(header) == blocks * tar.BLOCK
    assert hashlib.sha256(header).hexdigest() == sha256


@pytest.mark.parametrize(("size", "padding"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511), (2**63 - 1, 1)])
def test_content_is_padded_to_whole_blocks(size: int, padding: int) -> None:
    assert tar.padding(size) == padding
