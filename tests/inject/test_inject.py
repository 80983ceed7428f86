"""What inject writes to overlay directories and root trees: each layer once, and only verified bytes."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest

from osc_containers.archive.layout import layout_of
from osc_containers.archive.verify import check_content
from osc_containers.errors import VerificationError
from osc_containers.fs.ranges import FileSlice
from osc_containers.inject import inject
from osc_containers.inject.layout_directory import LAYOUTS
from osc_containers.inject.units import ARCHIVES
from osc_containers.kiwi import description
from osc_containers.obs.package import Package
from osc_containers.oci.reference import Reference
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import run_prefetch, want
from tests.support.process import umask

KIWI = """<image schemaversion="8.0" name="x">
  <profiles><profile name="A" description="a"/><profile name="B" description="b"/></profiles>
  <containers source="registry.example.com" backend="podman">
    <container name="app" path="team" tag="1.0"/>
    <container name="web" path="team" tag="1.0"/>
    <container name="data" path="team" tag="1.0" fetch_only="true"/>
  </containers>
  <containers source="registry.example.com" backend="docker" profiles="A,B">
    <container name="app" path="team" tag="1.0"/>
    <container name="data" path="team" tag="1.0"/>
  </containers>
</image>
"""
BASE = images.random_layer("base", 300_000)
NAMES = ("app", "web", "data")
IMAGES = {name: images.image(BASE, images.random_layer(name, 100_000)) for name in NAMES}


@pytest.fixture(params=["archives", "blobs"])
def package(request: pytest.FixtureRequest, tmp_path: Path) -> Package:
    """Return a prefetched package with three images on one base, in each layout of the sources."""
    directory = tmp_path / "package"
    directory.mkdir()
    (directory / "a.kiwi").write_text(KIWI)
    references = {f"registry.example.com/team/{name}:1.0": image for name, image in IMAGES.items()}
    run_prefetch(FakeSource(references), directory, *want(*references), layout=request.param)
    return Package(directory)


def read(package: Package) -> description.Description:
    return description.read(package.directory / "a.kiwi")


def inject_root(package: Package, root: Path) -> Path:
    root.mkdir()
    inject.inject_root(package, read(package), "x86_64", ["A"], root)
    return root


def inodes(*directories: Path) -> dict[int, list[Path]]:
    """Return the paths of each regular file below these directories, by inode."""
    found: dict[int, list[Path]] = {}
    for path in (path for directory in directories for path in sorted(directory.rglob("*"))):
        if path.is_file() and not path.is_symlink():
            found.setdefault(path.stat().st_ino, []).append(path)
    return found


def test_layers_are_stored_once(package: Package) -> None:
    inject.inject_sources(package, read(package), "x86_64")
    overlays = [package.directory / name for name in ("root", "A", "B")]
    blobs = [paths for paths in inodes(*overlays).values() if "blobs" in paths[0].parts]
    assert all(len({path.name for path in paths}) == 1 for paths in blobs)
    assert Counter(paths[0].name for paths in blobs).most_common(1)[0][1] == 1, "each blob is one file"
    layouts = {path.parent.name: path for path in overlays[0].rglob("index.json")}
    assert set(layouts) == {"app_1.0", "web_1.0"}
    size = sum(paths[0].stat().st_size for paths in inodes(overlays[0] / LAYOUTS[1:]).values())
    assert 500_000 < size < 520_000


def test_every_blob_has_the_digest_in_its_name(package: Package, tmp_path: Path) -> None:
    root = inject_root(package, tmp_path / "root")
    blobs = list(root.rglob("blobs/sha256/*"))
    assert len(blobs) == 12
    for path in blobs:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_a_root_tree_shares_no_file_with_the_package(package: Package, tmp_path: Path) -> None:
    """Otherwise an edit in the tree would change the package."""
    root = inject_root(package, tmp_path / "root")
    assert not set(inodes(root)) & set(inodes(package.directory))
    assert [len(paths) for paths in inodes(root / LAYOUTS[1:]).values() if len(paths) > 1] == [3], "the base"


def test_a_build_writes_no_blob_that_is_a_file(package: Package) -> None:
    """In the layout `blobs`, everything but the archive for fetch_only is a hard link to a file of the package."""
    sources = set(inodes(package.directory))
    inject.inject_sources(package, read(package), "x86_64")
    overlays = [package.directory / name for name in ("root", "A", "B")]
    written = [
        paths[0].stat().st_size
        for inode, paths in inodes(*overlays).items()
        if "blobs" in paths[0].parts and inode not in sources
    ]
    blobs = {blob.digest: blob.size for _, _, each in package.require_lock().images() for blob in each.image.blobs}
    assert sum(written) == (0 if any(package.directory.glob("*.blob")) else sum(blobs.values()))


def test_fetch_only_archives_are_links_in_a_build_and_copies_elsewhere(package: Package, tmp_path: Path) -> None:
    root = inject_root(package, tmp_path / "root")
    copied = root / ARCHIVES[1:] / "data_1.0"
    assert os.listdir(root / ARCHIVES[1:]) == ["data_1.0"]
    assert (root / LAYOUTS[1:] / "data_1.0").is_dir(), "the profile loads it as well"
    inject.inject_sources(package, read(package), "x86_64")
    built = package.directory / "root" / ARCHIVES[1:] / "data_1.0"
    assert built.read_bytes() == copied.read_bytes()
    for archive in package.directory.glob("*data*.ociarchive"):
        assert built.samefile(archive)
        assert not copied.samefile(archive)
    lock = package.require_lock()
    claim = lock.claim_for(Reference.parse("registry.example.com/team/data:1.0"), "x86_64")
    assert claim
    layout = layout_of(claim)
    with copied.open("rb") as file:
        check_content(FileSlice(file.fileno(), 0), layout.size, layout)


def test_only_engines_without_layouts_have_a_frame(package: Package) -> None:
    inject.inject_sources(package, read(package), "x86_64")
    frames = {str(path.relative_to(package.directory)) for path in package.directory.rglob("frame")}
    assert frames == {f"{profile}{LAYOUTS}/{name}_1.0/frame" for profile in "AB" for name in ("app", "data")}


def test_the_same_package_gives_the_same_tree(package: Package, tmp_path: Path) -> None:
    def content(root: Path) -> dict[str, tuple[int, int, bytes]]:
        return {
            str(path.relative_to(root)): (path.lstat().st_mode, path.lstat().st_nlink, path.read_bytes())
            for path in root.rglob("*")
            if path.is_file()
        }

    one = content(inject_root(package, tmp_path / "one"))
    with umask(0o077):
        other = content(inject_root(package, tmp_path / "other"))
    assert one == other


def test_a_damaged_layer_is_refused_before_anything_is_written(package: Package, tmp_path: Path) -> None:
    path = max(package.image_files().values(), key=lambda each: each.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(VerificationError):
        inject_root(package, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_a_tree_that_cannot_be_written_is_refused_before_layers_are_read(package: Package, tmp_path: Path) -> None:
    """Reading large layers takes minutes."""
    for path in package.image_files().values():
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(OSError, match=r"No such file or directory: '.*/nowhere'"):
        inject.inject_root(package, read(package), "x86_64", ["A"], tmp_path / "nowhere")


def blob_package(directory: Path) -> Package:
    """Return the same package with a file for each blob."""
    directory.mkdir()
    (directory / "a.kiwi").write_text(KIWI)
    references = {f"registry.example.com/team/{name}:1.0": image for name, image in IMAGES.items()}
    run_prefetch(FakeSource(references), directory, *want(*references), layout="blobs")
    return Package(directory)


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of everything below a directory."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mode,
            str(path.readlink()).encode() if path.is_symlink() else b"" if path.is_dir() else path.read_bytes(),
        )
        for path in directory.rglob("*")
    }


def test_both_layouts_of_the_sources_give_the_same_image(package: Package, tmp_path: Path) -> None:
    blobs = blob_package(tmp_path / "blobs")
    assert tree(inject_root(package, tmp_path / "one")) == tree(inject_root(blobs, tmp_path / "two"))
    for each in (package, blobs):
        inject.inject_sources(each, read(each), "x86_64")
    for name in ("root", "A", "B"):
        assert tree(package.directory / name) == tree(blobs.directory / name)


def test_blobs_of_loads_are_links_to_the_sources(tmp_path: Path) -> None:
    """A build root gets no copy of them: only the archive that is fetch_only is written."""
    package = blob_package(tmp_path / "blobs")
    sources = {path.stat().st_ino: path.stat().st_size for path in package.directory.glob("*.blob")}
    inject.inject_sources(package, read(package), "x86_64")
    found = {
        inode: paths[0]
        for inode, paths in inodes(*(package.directory / name for name in ("root", "A", "B"))).items()
        if paths[0].parent.name == "sha256"
    }
    assert found
    assert [path for inode, path in found.items() if inode not in sources] == []


@pytest.mark.parametrize("kind", ["missing", "damaged"])
def test_a_wrong_blob_gets_into_no_image(tmp_path: Path, kind: str) -> None:
    package = blob_package(tmp_path / "blobs")
    path = max(package.directory.glob("*.blob"), key=lambda path: path.stat().st_size)
    if kind == "missing":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(VerificationError, match=path.name):
        inject.inject_sources(package, read(package), "x86_64")
    assert not (package.directory / "root").exists()
