"""Stores made from generated images, and the comparison of two stores."""

import base64
import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from osc_containers.fs import ranges
from osc_containers.fs.ranges import FileSlice
from osc_containers.inject import units
from osc_containers.inject.store import build, stores
from osc_containers.inject.store.build import StoreImage, Summary
from osc_containers.inject.store.stores import StoredContainer
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor, Index, Manifest, parse_document
from tests.support import images
from tests.support.e2e.machine import Machine


def described(image: images.Image) -> Image:
    """Return the descriptors of a generated image; of an index, those of its first child."""
    indexes = []
    while image.children:
        document = parse_document(image.raw, image.media_type, "index")
        assert isinstance(document, Index)
        indexes.append(document)
        image = image.children[0]
    manifest = parse_document(image.raw, image.media_type, "manifest")
    assert isinstance(manifest, Manifest)
    return Image.from_documents(manifest, indexes)


class Blobs:
    """The blobs of images in one file, at positions that are not those of a whole file."""

    def __init__(self, contents: Iterable[bytes], path: Path) -> None:
        self.positions: dict[Digest, int] = {}
        self._file = path.open("w+b")
        self._file.write(b"in front")
        for content in contents:
            self.positions[Digest.of(content)] = self._file.tell()
            self._file.write(content + b"behind")
        self._file.flush()

    @classmethod
    def of_images(cls, contents: Iterable[images.Image], path: Path) -> "Blobs":
        """Return the blobs of generated images."""
        parts = [part for image in contents for part in image.manifests()]
        return cls((content for part in parts for content in (part.raw, *part.blobs)), path)

    def __enter__(self) -> "Blobs":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def open(self, descriptor: Descriptor) -> FileSlice:
        """Return the position of a blob."""
        return FileSlice(self._file.fileno(), self.positions[descriptor.digest])

    def damage(self, digest: Digest) -> None:
        """Change the first byte of a blob."""
        content = bytearray(FileSlice(self._file.fileno(), self.positions[digest]).read(0, 1))
        ranges.write_all(self._file.fileno(), bytes([content[0] ^ 1]), self.positions[digest])


def make(
    directory: Path, contents: Mapping[str, images.Image], damaged: Digest | None = None, **options: Mapping[str, str]
) -> tuple[Path, Summary]:
    """Build a store of images by name; return the squashfs."""
    workspace = directory / "workspace"
    workspace.mkdir(exist_ok=True)
    target = workspace / "store.squashfs"
    wanted = [StoreImage(name=name, image=described(image)) for name, image in contents.items()]
    with Blobs.of_images(contents.values(), directory / "blobs") as blobs:
        if damaged:
            blobs.damage(damaged)
        return target, build.build(wanted, blobs.open, target, workspace, **options)


def install(machine: Machine, groups: Mapping[str, Sequence[StoredContainer]], blobs: Blobs) -> None:
    """Install the stores of overlay directories in a machine, as inject does."""
    with stores.workspace({"TMPDIR": str(machine.directory)}) as workspace:
        for each in stores.build_all(groups, blobs.open, workspace, (), os.environ).values():
            machine.install(*each.files, *units.render_service())
            shutil.copy(each.squashfs, f"{machine.root}{each.store.squashfs}")


def devices() -> list[str]:
    """Return options that give loop devices to a machine, which systemd-nspawn does not; other tests use some."""
    paths = [Path(f"/dev/loop{number}") for number in range(32)]
    for number, path in enumerate(paths):
        if not path.exists():
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, number))
    return [f"--bind={path}" for path in ("/dev/loop-control", *paths)]


@contextmanager
def mounted(squashfs: Path, directory: Path) -> Iterator[Path]:
    """Mount a squashfs."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "squashfs", "-o", "loop,ro", squashfs, directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def records(store: Path, kind: str) -> dict[str, dict[str, object]]:
    """Return the entries of `layers` or `images` of a store by ID."""
    return {entry["id"]: entry for entry in json.loads((store / f"overlay-{kind}/{kind}.json").read_bytes())}


def files(directory: Path) -> dict[str, tuple[object, ...]]:
    """Return everything that can be seen of each file below a directory, by its path."""
    result: dict[str, tuple[object, ...]] = {}
    for path in (directory, *directory.rglob("*")):
        status = path.lstat()
        is_file = stat.S_ISREG(status.st_mode)
        result[os.fsdecode(path.relative_to(directory))] = (
            oct(status.st_mode),
            (status.st_uid, status.st_gid),
            status.st_rdev,
            status.st_nlink if not stat.S_ISDIR(status.st_mode) else 0,
            os.readlink(path) if path.is_symlink() else "",
            {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            },
            hashlib.sha256(path.read_bytes()).hexdigest() if is_file else "",
        )
    return result


def times(directory: Path) -> dict[str, int]:
    """Return the time of each file below a directory in whole seconds."""
    return {os.fsdecode(path.relative_to(directory)): int(path.lstat().st_mtime) for path in directory.rglob("*")}


def tar_split(store: Path, layer: str) -> list[tuple[object, ...]]:
    """Return the entries of the tar-split of a layer, with segments that follow each other as one."""
    return split_entries((store / f"overlay-layers/{layer}.tar-split.gz").read_bytes())


def split_entries(packed: bytes) -> list[tuple[object, ...]]:
    """Return the entries of a tar-split, with segments that follow each other as one."""
    result: list[tuple[object, ...]] = []
    for line in gzip.decompress(packed).splitlines():
        entry = json.loads(line)
        if entry["type"] == 2:
            segment = base64.b64decode(entry["payload"])
            if result and result[-1][0] == "segment":
                segment = result.pop()[1] + segment  # type: ignore[operator]
            result.append(("segment", segment))
        else:
            name = entry["name"].encode() if "name" in entry else base64.b64decode(entry["name_raw"])
            result.append(("file", name, entry.get("size", 0), entry["payload"]))
    return result


def restore_tar(store: Path, layer: str) -> bytes:
    """Return the tar archive of a layer, put together from its files and its tar-split."""
    parts = []
    for kind, value, *rest in tar_split(store, layer):
        assert isinstance(value, bytes)
        if kind == "segment":
            parts.append(value)
        elif rest[0]:
            parts.append((store / f"overlay/{layer}/diff" / os.fsdecode(value)).read_bytes())
    return b"".join(parts)
