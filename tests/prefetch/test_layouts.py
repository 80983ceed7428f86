"""Both layouts of the sources: what is in them, what is fetched, and what happens when a package has parts of both."""

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from osc_containers.archive import verify
from osc_containers.archive.blobs import PackageBlobs
from osc_containers.cli.main import main
from osc_containers.errors import LockError, RegistryError, VerificationError
from osc_containers.obs.package import Package
from osc_containers.oci.digest import Digest
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import APP, WEB, hashes, run_prefetch, want
from tests.support.recording_source import BIG, LAYER, RecordingSource

LAYOUTS = ("archives", "blobs")
OTHER = {"archives": "blobs", "blobs": "archives"}
BOTH = ("x86_64", "aarch64")
BASE = images.random_layer("base", 50_000)


def source(*names: str) -> FakeSource:
    return FakeSource({name: images.image(BASE, images.random_layer(name, 3000)) for name in names or (APP, WEB)})


def problems(directory: Path) -> tuple[str, ...]:
    package = Package(directory)
    lock = package.require_lock()
    with ExitStack() as stack:
        return verify.check_images(PackageBlobs(package, lock, stack), [each[:2] for each in lock.images()])


def blobs(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.blob")}


def test_each_blob_is_a_file_that_images_share(tmp_path: Path) -> None:
    both = FakeSource({APP: images.multi_platform("app"), WEB: images.multi_platform("web")})
    run_prefetch(both, tmp_path, *want(APP, WEB, architectures=BOTH), layout="blobs")
    contents = {
        content
        for image in both.tags.values()
        for part in (image, *(child for child in image.children if child.platform in (images.AMD64, images.ARM64)))
        for content in (part.raw, *part.blobs)
    }
    assert blobs(tmp_path) == {f"sha256-{Digest.of(content).hex}.blob": content for content in contents}
    assert set(hashes(tmp_path)) == {"containers.lock", *blobs(tmp_path)}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}
    assert problems(tmp_path) == ()


def test_the_lock_is_the_same_in_both_layouts(tmp_path: Path) -> None:
    texts = set()
    for layout in LAYOUTS:
        (tmp_path / layout).mkdir()
        run_prefetch(source(), tmp_path / layout, *want(APP, WEB), layout=layout)
        texts.add((tmp_path / layout / "containers.lock").read_bytes())
    assert len(texts) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_switching_fetches_nothing_and_removes_the_other_form(tmp_path: Path, layout: str) -> None:
    (clean := tmp_path / "clean").mkdir()
    (package := tmp_path / "package").mkdir()
    run_prefetch(source(), clean, *want(APP, WEB), layout=layout)
    run_prefetch(source(), package, *want(APP, WEB), layout=OTHER[layout])
    again = source()
    run_prefetch(again, package, *want(APP, WEB), layout=layout)
    assert again.asked == {"resolve": 2}
    assert hashes(package) == hashes(clean)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("locked", [False, True])
def test_switching_a_part_keeps_what_was_not_requested(tmp_path: Path, layout: str, *, locked: bool) -> None:
    (clean := tmp_path / "clean").mkdir()
    (package := tmp_path / "package").mkdir()
    everything = want(APP, WEB)
    run_prefetch(source(), clean, *everything, layout=layout)
    run_prefetch(source(), package, *everything, layout=OTHER[layout])
    again = source()
    run_prefetch(again, package, *want(APP), asked=everything, layout=layout, locked=locked)
    assert again.asked["blob"] == again.asked["manifest"] == 0
    assert hashes(package) == hashes(clean)


def test_an_update_writes_only_new_blobs_and_removes_old_ones(tmp_path: Path) -> None:
    app = source()
    run_prefetch(app, tmp_path, *want(APP, WEB), layout="blobs")
    before = blobs(tmp_path)
    app.tags[APP] = images.image(BASE, images.random_layer("new", 5000))
    app.asked.clear()
    run_prefetch(app, tmp_path, *want(APP, WEB), layout="blobs")
    after = blobs(tmp_path)
    assert app.asked["blob"] == 2  # the configuration and the layer
    assert len(after.keys() - before.keys()) == len(before.keys() - after.keys()) == 3
    assert problems(tmp_path) == ()


def test_results_of_an_earlier_run_are_used(tmp_path: Path) -> None:
    old, outdir = tmp_path / "package" / ".old", tmp_path / "out"
    old.mkdir(parents=True)
    outdir.mkdir()
    app = source()
    run_prefetch(app, tmp_path / "package", *want(APP), layout="blobs")
    names = {path.name for path in (tmp_path / "package").iterdir() if path != old}
    for name in names:
        (tmp_path / "package" / name).rename(old / f"_service:kiwi_containers:{name}")
    app.asked.clear()
    run_prefetch(app, tmp_path / "package", *want(APP), outdir=outdir, layout="blobs")
    assert app.asked == {"resolve": 1}
    assert set(hashes(outdir)) == names


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    other = next(each for each in sorted(path.parent.glob("*.blob")) if each != path)
    content = other.read_bytes()
    other.write_bytes(path.read_bytes())
    path.write_bytes(content)


def extend(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def point(path: Path) -> None:
    digest, size = path.name.removesuffix(".blob").replace("-", ":"), path.stat().st_size
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid {digest}\nsize {size}\n")


SIZE = len(BASE.content)
WRONG_SIZE = f"bytes, expected {SIZE}; it is truncated or a different file"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "missing, but locked for registry.example.com/team/"),
    "cut": (cut, f"got {SIZE // 2} {WRONG_SIZE}"),
    "flipped": (flip, "got sha256:"),
    "swapped": (swap, "got "),
    "extended": (extend, f"got {SIZE + 1} {WRONG_SIZE}"),
    "empty": (lambda path: os.truncate(path, 0), f"got 0 {WRONG_SIZE}"),
}


def base_blob(directory: Path) -> Path:
    return directory / f"sha256-{Digest.of(BASE.content).hex}.blob"


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_mended(tmp_path: Path, kind: str) -> None:
    app = source()
    run_prefetch(app, tmp_path, *want(APP, WEB), layout="blobs")
    before = hashes(tmp_path)
    damage, message = DAMAGE[kind]
    path = base_blob(tmp_path)
    damage(path)
    found = problems(tmp_path)
    assert any(problem.startswith(f"{path.name}: {message}") for problem in found), found
    assert all(problem.endswith("run the prefetch again and commit the result") for problem in found)
    run_prefetch(app, tmp_path, *want(APP, WEB), layout="blobs")
    assert hashes(tmp_path) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pointers_of_git_lfs_are_refused_and_kept(tmp_path: Path, layout: str) -> None:
    run_prefetch(source(), tmp_path, *want(APP), layout=layout)
    path = next(path for path in sorted(tmp_path.iterdir()) if path.suffix in (".blob", ".ociarchive"))
    point(path)
    before = hashes(tmp_path)
    with pytest.raises(VerificationError, match="is a git-lfs pointer, expected the file itself"):
        run_prefetch(source(), tmp_path, *want(APP), layout=layout)
    assert hashes(tmp_path) == before


def test_a_blob_that_no_lock_names_is_removed(tmp_path: Path) -> None:
    """A run that was killed may have left it. A file that only looks similar stays."""
    run_prefetch(source(), tmp_path, *want(APP), layout="blobs")
    before = hashes(tmp_path)
    (tmp_path / f"sha256-{'0' * 64}.blob").write_bytes(b"old")
    mine = [f"sha256-{'0' * 63}.blob", f"md5-{'0' * 32}.blob", "my-data.blob", f"sha256-{'A' * 64}.blob", ".blob"]
    for name in mine:
        (tmp_path / name).write_bytes(b"mine")
    run_prefetch(source(), tmp_path, *want(APP), layout="blobs")
    assert hashes(tmp_path).keys() - before.keys() == set(mine)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_merge_of_both_layouts_is_sound_and_the_next_run_tidies_it(tmp_path: Path, layout: str) -> None:
    app = source()
    (other := tmp_path / "other").mkdir()
    (package := tmp_path / "package").mkdir()
    run_prefetch(app, package, *want(APP, WEB), layout=layout)
    run_prefetch(app, other, *want(APP, WEB), layout=OTHER[layout])
    before = hashes(package)
    for path in other.iterdir():
        path.rename(package / path.name)
    assert problems(package) == ()
    app.asked.clear()
    run_prefetch(app, package, *want(APP, WEB), layout=layout)
    assert app.asked == {"resolve": 2}
    assert hashes(package) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_in_different_layouts_are_one_package(tmp_path: Path, layout: str) -> None:
    """A merge took the archive of one image from one side, and the blobs of the other image from the other side."""
    app = source()
    for each in LAYOUTS:
        (tmp_path / each).mkdir()
        run_prefetch(app, tmp_path / each, *want(APP, WEB), layout=each)
    expected = hashes(tmp_path / layout)
    package = tmp_path / "archives"
    next(package.glob("*web*")).unlink()
    digests = {app.tags[WEB].digest, *map(Digest.of, app.tags[WEB].blobs)}
    for digest in digests:
        (tmp_path / "blobs" / f"sha256-{digest.hex}.blob").rename(package / f"sha256-{digest.hex}.blob")
    assert problems(package) == ()
    for name in (APP, WEB):
        assert main(["export", name, str(tmp_path / "x"), str(package), "--force"]) == 0
    app.asked.clear()
    run_prefetch(app, package, *want(APP, WEB), layout=layout)
    assert app.asked == {"resolve": 2}
    assert hashes(package) == expected


def test_a_damaged_archive_beside_sound_blobs_is_reported(tmp_path: Path) -> None:
    run_prefetch(source(), tmp_path, *want(APP), layout="archives")
    (archive,) = tmp_path.glob("*.ociarchive")
    content = archive.read_bytes()
    run_prefetch(source(), tmp_path, *want(APP), layout="blobs")
    archive.write_bytes(content[:-600])
    assert [problem.partition(":")[0] for problem in problems(tmp_path)] == [archive.name]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interrupted_run_resumes(tmp_path: Path, layout: str) -> None:
    (clean := tmp_path / "clean").mkdir()
    (package := tmp_path / "package").mkdir()
    run_prefetch(FakeSource({APP: BIG}), clean, *want(APP), layout=layout)
    broken = RecordingSource({APP: BIG}, layer=LAYER, gives=12_000_000)
    with pytest.raises(RegistryError, match="broken off"):
        run_prefetch(broken, package, *want(APP), layout=layout)
    assert hashes(package) == {}
    again = RecordingSource({APP: BIG}, layer=LAYER)
    run_prefetch(again, package, *want(APP), layout=layout)
    assert sum(stop - start for start, stop in again.ranges) < 9_000_000
    assert hashes(package) == hashes(clean)


def test_blobs_of_an_interrupted_run_help_any_package(tmp_path: Path) -> None:
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    damaged = {Digest.of(BIG.blobs[0]): b"x" * len(BIG.blobs[0])}
    first = FakeSource({APP: BIG, WEB: images.small("web")}, damaged=damaged)
    with pytest.raises((RegistryError, VerificationError)):
        run_prefetch(first, one, *want(APP, WEB), layout="blobs")
    again = RecordingSource({WEB: BIG}, layer=LAYER)
    run_prefetch(again, two, *want(WEB), layout="blobs")
    assert problems(two) == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lock_of_two_images_is_refused_if_locked(tmp_path: Path, layout: str) -> None:
    app = source()
    run_prefetch(app, tmp_path, *want(APP, WEB), layout=layout)
    path = tmp_path / "containers.lock"
    document = json.loads(path.read_text())
    one, two = (document["containers"][name]["architectures"]["x86_64"] for name in (APP, WEB))
    one["layers"], two["layers"] = two["layers"], one["layers"]
    path.write_text(json.dumps(document))
    before = hashes(tmp_path)
    with pytest.raises(LockError, match="its config and layers differ from those in the lock"):
        run_prefetch(app, tmp_path, *want(APP, WEB), layout=layout, locked=True)
    assert hashes(tmp_path) == before
    assert problems(tmp_path)
