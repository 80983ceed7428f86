"""The bundle: cpio unpacks it to the same files that the inject service would write."""

import json
import os
import re
import subprocess
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from osc_containers.archive import verify
from osc_containers.archive.blobs import PackageBlobs
from osc_containers.archive.bundle import Bundle
from osc_containers.errors import DescriptionError, LockError, RegistryError, VerificationError
from osc_containers.formats import cpio
from osc_containers.formats.cpio import Entry
from osc_containers.inject import bundle, inject, overlay
from osc_containers.kiwi import description
from osc_containers.lock import lockfile
from osc_containers.obs.package import Package
from osc_containers.obs.selection import ImageRequest
from osc_containers.oci.digest import Digest
from osc_containers.prefetch.plan import archive_files, bundle_file
from osc_containers.prefetch.prefetch import prefetch
from osc_containers.sources.interface import FetchContext
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import APP, hashes, identities

KIWI = """<image schemaversion="8.0" name="x">
  <containers source="registry.example.com" backend="podman">
    <container name="app" path="team" tag="1.0"/>
    <container name="data" path="team" tag="1.0" fetch_only="true"/>
  </containers>
  <containers source="registry.example.com" backend="docker" profiles="A,B">
    <container name="app" path="team" tag="1.0"/>
  </containers>
</image>
"""


def source() -> FakeSource:
    named = {f"registry.example.com/team/{name}:1.0": images.small(name) for name in ("app", "data")}
    return FakeSource(named)


def run_prefetch(
    source: FakeSource, directory: Path, *, bundled: bool = True, locked: bool = False, part: slice = slice(None)
) -> None:
    containers = description.read(directory / "containers.xml").of_architecture("x86_64")
    wanted = {
        container.reference: ImageRequest(
            reference=container.reference, location=container.origin, architectures=("x86_64",), where="x:1"
        )
        for container in containers
    }
    paths = overlay.assign_paths(containers)

    def pack(lock: lockfile.Lock) -> Bundle:
        return bundle.pack(overlay.place(containers, paths, "x86_64", lock))

    network = FetchContext(open_source=source.open)
    package = Package(directory)
    asked = tuple(wanted.values())
    prefetch(
        package,
        asked[part],
        network,
        outdir=directory,
        locked=locked,
        files_of=partial(bundle_file, pack) if bundled else archive_files,
        is_bundle=bundled,
        all_requests=asked,
    )


@pytest.fixture
def package(tmp_path: Path) -> Path:
    directory = tmp_path / "package"
    directory.mkdir()
    (directory / "containers.xml").write_text(KIWI)
    return directory


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode and content of every path below a directory."""
    entries = {}
    for path in sorted(directory.rglob("*")):
        content = b"" if path.is_dir() else str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        entries[str(path.relative_to(directory))] = (path.lstat().st_mode, content)
    return entries


@pytest.mark.integration
def test_bundle_unpacks_to_the_same_files_as_inject(package: Path, tmp_path: Path) -> None:
    run_prefetch(source(), package)
    assert sorted(hashes(package)) == ["containers.lock", "containers.xml", "kiwi_containers.obscpio"]
    unpacked, injected = tmp_path / "unpacked", tmp_path / "injected"
    unpacked.mkdir()
    with (package / cpio.FILE_NAME).open("rb") as file:
        command = ["cpio", "--extract", "--unconditional", "--make-directories", "--quiet"]
        subprocess.run(command, stdin=file, cwd=unpacked, check=True)
    injected.mkdir()
    (injected / "containers.xml").write_text(KIWI)
    run_prefetch(source(), injected, bundled=False)
    inject.inject_sources(Package(injected), description.read(injected / "containers.xml"), "x86_64")
    for path in list(injected.iterdir()):
        if path.is_file():
            path.unlink()
    assert tree(unpacked) == tree(injected)
    blobs = {path.name: path.stat().st_nlink for path in unpacked.rglob("blobs/sha256/*")}
    assert set(blobs.values()) == {3}, "one for each overlay directory"


def test_bundle_stores_each_blob_once(package: Path) -> None:
    """And once more in the archive of a container with fetch_only."""
    run_prefetch(source(), package)
    content = (package / cpio.FILE_NAME).read_bytes()
    app, data = (images.small(name) for name in ("app", "data"))
    assert [content.count(blob) for blob in (*app.blobs, *data.blobs)] == [1, 2, 1, 1, 2, 1]


def test_second_run_fetches_and_writes_nothing(package: Path) -> None:
    run_prefetch(source(), package)
    before, again = identities(package), source()
    run_prefetch(again, package)
    assert identities(package) == before
    assert again.asked == {"resolve": 2}


def test_changed_image_fetches_only_new_blobs(package: Path) -> None:
    run_prefetch(source(), package)
    again = source()
    again.tags["registry.example.com/team/data:1.0"] = images.small("data2")
    run_prefetch(again, package)
    assert again.asked["blob"] == 2
    assert verify_archives(package) == ()


def verify_archives(directory: Path) -> tuple[str, ...]:
    package = Package(directory)
    lock = package.require_lock()
    with ExitStack() as stack:
        return verify.check_images(PackageBlobs(package, lock, stack), [each[:2] for each in lock.images()])


def test_archives_are_verified_inside_the_bundle(package: Path) -> None:
    run_prefetch(source(), package)
    assert verify_archives(package) == ()
    path = package / cpio.FILE_NAME
    content = bytearray(path.read_bytes())
    content[content.index(images.small("app").blobs[-1]) + 30] ^= 1
    path.write_bytes(content)
    assert len(verify_archives(package)) == 1
    run_prefetch(source(), package)
    assert verify_archives(package) == ()


def test_switching_forms_reuses_blobs_and_removes_old_files(package: Path) -> None:
    run_prefetch(source(), package, bundled=False)
    again = source()
    run_prefetch(again, package)
    assert again.asked["blob"] == 0
    assert sorted(hashes(package)) == ["containers.lock", "containers.xml", "kiwi_containers.obscpio"]
    run_prefetch(again, package, bundled=False)
    assert again.asked["blob"] == 0
    assert not (package / cpio.FILE_NAME).exists()
    assert verify_archives(package) == ()


@pytest.mark.parametrize("bundled", [True, False])
@pytest.mark.parametrize("locked", [True, False])
def test_partial_prefetch_is_refused_if_the_bundle_would_shrink(package: Path, *, bundled: bool, locked: bool) -> None:
    run_prefetch(source(), package)
    before = hashes(package)
    with pytest.raises(DescriptionError, match=r"would lose registry.example.com/team/data:1.0 for x86_64, which"):
        run_prefetch(source(), package, bundled=bundled, locked=locked, part=slice(1))
    assert hashes(package) == before


def test_locked_run_makes_the_same_bundle(package: Path) -> None:
    run_prefetch(source(), package)
    before = hashes(package)
    (package / cpio.FILE_NAME).unlink()
    run_prefetch(source(), package, locked=True)
    assert hashes(package) == before


def test_failure_leaves_the_package_unchanged(package: Path) -> None:
    run_prefetch(source(), package)
    before, broken = hashes(package), source()
    broken.tags["registry.example.com/team/data:1.0"] = images.helm_chart()
    with pytest.raises(RegistryError):
        run_prefetch(broken, package)
    assert hashes(package) == before


def test_lock_that_mixes_two_images_is_repaired(package: Path) -> None:
    """A merge can combine the lock of one side with the bundle of the other."""
    run_prefetch(source(), package)
    before = hashes(package)
    ours = json.loads((package / lockfile.FILE_NAME).read_text())
    moved = source()
    moved.tags[APP] = images.small("moved")
    run_prefetch(moved, package)
    theirs = json.loads((package / lockfile.FILE_NAME).read_text())
    [image], [other] = (document["containers"][APP]["architectures"].values() for document in (ours, theirs))
    image |= {name: other[name] for name in ("config", "layers")}
    (package / lockfile.FILE_NAME).write_text(json.dumps(ours))
    with pytest.raises(LockError, match="run the prefetch without 'locked'"):
        run_prefetch(source(), package, locked=True)
    run_prefetch(source(), package)
    assert hashes(package) == before


def test_damaged_padding_and_partial_files_are_repaired(package: Path) -> None:
    run_prefetch(source(), package)
    before = hashes(package)
    damaged = bytearray((package / cpio.FILE_NAME).read_bytes())
    damaged[damaged.index(b"070701", 1) - 1] = 7  # a zero byte that pads a member name
    (package / cpio.FILE_NAME).write_bytes(damaged)
    run_prefetch(source(), package)
    assert hashes(package) == before
    (package / cpio.FILE_NAME).unlink()
    broken = source()
    broken.damaged = {Digest.of(broken.tags[APP].blobs[-1]): b"x" * len(broken.tags[APP].blobs[-1])}
    with pytest.raises(VerificationError):
        run_prefetch(broken, package)
    (left,) = Path(os.environ["HOME"], ".cache/osc-containers").glob("*.part")
    left.write_bytes(b"x" * left.stat().st_size)
    run_prefetch(source(), package)
    assert hashes(package) == before


def test_member_that_cpio_cannot_hold_is_refused() -> None:
    entry = Entry(path="root/a", mode=0o100644, size=4 << 30, content="a")
    with pytest.raises(
        ValueError, match=r"^root/a: got 4294967296 bytes, expected at most 4294967295 in a cpio archive$"
    ):
        cpio.lay_out([entry])
    assert cpio.lay_out([Entry(path="root/a", mode=0o100644, size=(4 << 30) - 1, content="a")]).size > 4 << 30


def test_image_too_large_for_a_bundle_names_the_alternative(package: Path) -> None:
    run_prefetch(source(), package, bundled=False)
    text = (package / lockfile.FILE_NAME).read_text()
    lock = lockfile.loads(re.sub(r'("layers": .*?"size": )\d+', rf"\g<1>{4 << 30}", text, flags=re.DOTALL))
    containers = description.read(package / "containers.xml").of_architecture("x86_64")
    placements = overlay.place(containers, overlay.assign_paths(containers), "x86_64", lock)
    with pytest.raises(DescriptionError, match="use the service kiwi_containers_inject in the build root instead"):
        bundle.pack(placements)
