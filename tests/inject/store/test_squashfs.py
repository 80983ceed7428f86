"""Limits of a squashfs that mksquashfs itself does not keep."""

import struct
from pathlib import Path

import pytest

from osc_containers.errors import Error
from osc_containers.inject.store import squashfs
from osc_containers.inject.store.squashfs import Entry


def files_of(count: int) -> list[Entry]:
    """Return files with so many owners and groups; the root has the first of them."""
    last = count - 1
    # mksquashfs needs long for many files in one directory.
    directories = [squashfs.directory(str(name)) for name in range(256)]
    files = [
        squashfs.file(f"{number % 256}/{number}", b"")._replace(uid=number, gid=min(number + 1, last))
        for number in range(0, count, 2)
    ]
    return [*directories, *files]


@pytest.mark.integration
def test_the_number_of_owners_is_bounded(tmp_path: Path) -> None:
    """With one more than here, mksquashfs succeeds, and no kernel mounts the result."""
    squashfs.write(tmp_path / "most", files_of(65535), 0)
    with (tmp_path / "most").open("rb") as image:
        # In the superblock, the number of IDs follows after 26 bytes.
        assert struct.unpack("<26xH", image.read(28)) == (65535,)
    with pytest.raises(Error, match="got more than 65535 owners and groups"):
        squashfs.write(tmp_path / "more", files_of(65536), 0)
