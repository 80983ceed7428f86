"""Offline verification finds every difference from the only valid form of an archive."""

import io
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from osc_containers.archive import verify
from osc_containers.archive.blobs import PackageBlobs
from osc_containers.archive.layout import lay_out
from osc_containers.lock.lockfile import Lock, LockedImage, LockedReference
from osc_containers.obs.package import Package
from osc_containers.oci.chain import Claim
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import APP, WEB, run_prefetch, want

NAME = "registry.example.com_team_app_1.0.x86_64.ociarchive"


@pytest.fixture
def package(tmp_path: Path) -> Package:
    source = FakeSource({APP: images.small("app"), WEB: images.small("web")})
    run_prefetch(source, tmp_path, *want(APP, WEB))
    return Package(tmp_path)


def read_lock(package: Package) -> Lock:
    lock = package.read_lock()
    assert lock
    return lock


def locked_app(package: Package) -> LockedImage:
    image = read_lock(package).image_for(Reference.parse(APP), "x86_64")
    assert image
    return image


def check(package: Package) -> tuple[str, ...]:
    lock = read_lock(package)
    return check_lock(package, lock)


def check_lock(package: Package, lock: Lock) -> tuple[str, ...]:
    with ExitStack() as stack:
        return verify.check_images(PackageBlobs(package, lock, stack), [image[:2] for image in lock.images()])


def test_images_are_not_compared_with_each_other(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of them, that would take longer than to read their archives."""

    def refuse(claim: Claim, other: object) -> bool:
        raise AssertionError("two images were compared")

    monkeypatch.setattr(Claim, "__eq__", refuse)
    assert check(package) == ()


def check_app(package: Package, locked: LockedImage, arch: str = "x86_64") -> tuple[str, ...]:
    """Check the archive of APP against another entry of the lock."""
    manifest = locked.image.manifest
    entry = LockedReference(digest=manifest.digest, media_type=manifest.media_type, images={arch: locked})
    reference = Reference.parse(APP)
    path = package.directory / NAME
    path.rename(path.with_name(NAME.replace("x86_64", arch)))
    return check_lock(package, Lock(references={reference: entry}))


def test_a_prefetched_package_has_no_problems(package: Package) -> None:
    assert check(package) == ()


def flip(offset: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], "got 10239 bytes, expected 10240; it is truncated or a different file"),
        (lambda content: content[:700], "got 700 bytes, expected 10240; it is truncated or a different file"),
        (lambda content: b"", "got 0 bytes, expected 10240; it is truncated or a different file"),
        (lambda content: content + bytes(512), "got 10752 bytes, expected 10240; it is truncated or a different file"),
        (flip(0), "member oci-layout at byte 0: unexpected header; it is damaged or a different archive"),
        (flip(512), "member oci-layout: got sha256:"),
        (flip(1000), "member oci-layout: got data after its end, expected zeros"),
        (flip(10239), "got data after its last member, expected zeros"),
    ],
)
def test_damage_is_reported_with_its_position(change: Callable[[bytes], bytes], message: str, package: Package) -> None:
    path = package.directory / NAME
    path.write_bytes(change(path.read_bytes()))
    (problem,) = check(package)
    assert problem.startswith(f"{NAME}: {message}")
    assert problem.endswith("; run the prefetch again and commit the result")


def test_a_change_of_any_byte_is_found(package: Package) -> None:
    path = package.directory / NAME
    content = path.read_bytes()
    for offset in range(0, len(content), 97):
        path.write_bytes(flip(offset)(content))
        assert check(package), f"byte {offset}"


def test_a_missing_archive_is_reported(package: Package) -> None:
    (package.directory / NAME).unlink()
    assert check(package) == (
        f"{NAME}: missing, but locked for {APP} (x86_64); run the prefetch again and commit the result",
    )


def test_swapped_archives_are_found(package: Package) -> None:
    one, two = (path for path in sorted(package.directory.iterdir()) if path.name.endswith(".ociarchive"))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert len(check(package)) == 2


def test_the_same_files_in_another_tar_format_are_refused(package: Package) -> None:
    path = package.directory / NAME
    gnu = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=gnu, mode="w", format=tarfile.GNU_FORMAT) as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
    path.write_bytes(gnu.getvalue())
    assert check(package)


def test_a_lock_with_the_blobs_of_another_image_is_refused(package: Package) -> None:
    """The size of the file matches the lock, but the locked descriptors are those of another image."""
    locked = locked_app(package)
    other = read_lock(package).image_for(Reference.parse(WEB), "x86_64")
    assert other
    forged = locked._replace(image=other.image)
    assert lay_out(other.image, Reference.parse(APP), "x86_64").size == (package.directory / NAME).stat().st_size
    (problem,) = check_app(package, forged)
    assert "unexpected header; it is damaged or a different archive" in problem


def test_a_lock_with_other_layers_than_the_manifest_is_refused(tmp_path: Path) -> None:
    """All bytes of the archive match the lock, but its manifest lists other layers."""
    source = FakeSource({APP: images.small("app")})
    run_prefetch(source, tmp_path, *want(APP))
    package = Package(tmp_path)
    locked = locked_app(package)
    image = locked.image._replace(layers=locked.image.layers[:1])
    content = bytearray(lay_out(image, Reference.parse(APP), "x86_64").size)
    for offset, part in lay_out(image, Reference.parse(APP), "x86_64").frame():
        content[offset : offset + len(part)] = part
    blobs = {Digest.of(blob): blob for blob in (*source.tags[APP].blobs, source.tags[APP].raw)}
    for member in lay_out(image, Reference.parse(APP), "x86_64").blobs():
        content[member.offset : member.offset + member.size] = blobs[member.digest]
    (tmp_path / NAME).write_bytes(content)
    (problem,) = check_app(package, locked._replace(image=image))
    assert problem.startswith(f"{NAME}: manifest: its config and layers differ from those in the lock")


def test_an_archive_of_another_architecture_is_refused(package: Package) -> None:
    (problem,) = check_app(package, locked_app(package), "aarch64")
    name = NAME.replace("x86_64", "aarch64")
    assert problem.startswith(f"{name}: it is for linux/amd64 only, expected an image for linux/arm64/v8 (aarch64)")


def test_a_requested_image_must_be_locked(package: Package) -> None:
    wanted = [(Reference.parse(APP), "x86_64", "a.kiwi:3"), (Reference.parse(APP), "s390x", "a.kiwi:3")]
    assert verify.check_coverage(wanted, read_lock(package)) == (
        f"a.kiwi:3: {APP} for s390x is not in the lock; run the prefetch again and commit the result",
    )
