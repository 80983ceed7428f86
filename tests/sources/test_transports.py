"""Images that lie on this machine: in layouts, archives and engines."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from osc_containers.errors import DescriptionError, RegistryError
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Index, Manifest
from osc_containers.oci.reference import Reference
from osc_containers.sources import docker_archive
from osc_containers.sources.blob_store import StoredFile, Tar
from osc_containers.sources.interface import ImageSource
from osc_containers.sources.transports import Sources
from tests.support import images
from tests.support.messages import exactly

REFERENCE = Reference.parse("localhost/app:1.0")
IMAGE = images.image(
    images.random_layer("first", 3_000_000),
    images.random_layer("second", 100, compression="gzip"),
    images.layer({}, compression="none"),
)
OTHER = images.small("other")
PACKED = images.image(images.random_layer("packed", 100_000, compression="gzip"))


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Sources]:
    with Sources(tmp_path) as sources:
        yield sources


def read_all(source: ImageSource, reference: Reference = REFERENCE) -> list[bytes]:
    """Return the manifest and the blobs of an image; the larger ones in two parts."""
    manifest = source.manifest(reference, source.resolve(reference))
    assert isinstance(manifest, Manifest)
    found = [manifest.raw]
    for blob in manifest.blobs:
        middle = blob.size // 2
        parts = (_read(source, reference, blob, 0, middle), _read(source, reference, blob, middle, None))
        content = b"".join(parts)
        assert blob.digest.matches(content)
        found.append(content)
    return found


def _read(source: ImageSource, reference: Reference, blob: object, start: int, stop: int | None) -> bytes:
    buffer = memoryview(bytearray(64 << 10))
    found = bytearray()
    with source.blob(reference, blob, start, stop) as stream:  # type: ignore[arg-type]
        while count := stream.readinto(buffer):
            found += buffer[:count]
    return bytes(found)


def pack(directory: Path, file: Path) -> None:
    """Make a tar of what is in a directory."""
    with tarfile.open(file, "w") as tar:
        for path in sorted(directory.rglob("*")):
            tar.add(path, path.relative_to(directory), recursive=False)


@pytest.mark.parametrize("place", ["oci:layout", "oci:layout:1.0", "oci-archive:a.tar", "oci-archive:a.tar:1.0"])
@pytest.mark.parametrize("name", ["1.0", "registry.example/team/app:1.0"])
def test_layouts_give_the_bytes_that_are_in_them(tmp_path: Path, sources: Sources, place: str, name: str) -> None:
    images.write_layout(IMAGE, tmp_path / "layout", name)
    pack(tmp_path / "layout", tmp_path / "a.tar")
    assert read_all(sources.open(place)) == [IMAGE.raw, *dict.fromkeys(IMAGE.blobs)]
    assert sources.open(place) is sources.open(place)


def test_an_absolute_path_is_one(tmp_path: Path) -> None:
    images.write_layout(IMAGE, tmp_path / "layout", "1.0")
    (tmp_path / "package").mkdir()
    with Sources(tmp_path / "package", allow_local=True) as sources:
        assert sources.open(f"oci:{tmp_path}/layout").resolve(REFERENCE) == IMAGE.digest


def test_a_layout_may_hold_an_index(tmp_path: Path, sources: Sources) -> None:
    made = images.multi_platform("app")
    images.write_layout(made, tmp_path / "layout", "1.0")
    source = sources.open("oci:layout:1.0")
    index = source.manifest(REFERENCE)
    assert isinstance(index, Index)
    assert source.manifest(REFERENCE, index.manifests[1].digest).raw == made.children[1].raw


def test_a_digest_in_the_reference_chooses(tmp_path: Path, sources: Sources) -> None:
    made = images.multi_platform("app")
    images.write_layout(made, tmp_path / "layout", "1.0")
    reference = Reference.parse(f"localhost/app@{made.children[0].digest}")
    assert sources.open("oci:layout").manifest(reference).raw == made.children[0].raw


def write_two(directory: Path) -> None:
    for image, name in ((IMAGE, "1.0"), (OTHER, "2.0")):
        images.write_layout(image, directory / name, name)
    index = json.loads((directory / "1.0/index.json").read_bytes())
    index["manifests"] += json.loads((directory / "2.0/index.json").read_bytes())["manifests"]
    shutil.copytree(directory / "2.0/blobs", directory / "1.0/blobs", dirs_exist_ok=True)
    (directory / "1.0/index.json").write_text(json.dumps(index))
    (directory / "1.0").rename(directory / "two")


def test_the_tag_chooses_an_image_of_a_layout(tmp_path: Path, sources: Sources) -> None:
    write_two(tmp_path)
    assert sources.open("oci:two:1.0").resolve(REFERENCE) == IMAGE.digest
    assert sources.open("oci:two:2.0").resolve(REFERENCE) == OTHER.digest


def test_an_entry_of_a_layout_that_cannot_be_used_is_no_matter_of_the_others(tmp_path: Path, sources: Sources) -> None:
    write_two(tmp_path)
    file = tmp_path / "two/index.json"
    file.write_text(file.read_text().replace(str(OTHER.digest), f"blake3:{OTHER.digest.hex}"))
    assert sources.open("oci:two:1.0").resolve(REFERENCE) == IMAGE.digest
    with pytest.raises(RegistryError, match=r"manifests\[1\].digest: got digest algorithm 'blake3'"):
        sources.open("oci:two:2.0")


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("oci:two", "two: index.json: got the images '1.0', '2.0', expected only one; select it by its tag"),
        ("oci:two:3.0", "two: index.json: got the images '1.0', '2.0', expected one called '3.0'"),
        ("oci:nothing", "nothing: no index.json, expected an OCI image layout"),
        ("oci:broken", "broken: index.json: not valid JSON"),
        ("oci-archive:nothing", "nothing: No such file or directory"),
        ("oci-archive:two", "two: not a file"),
        ("oci-archive:fifo", "fifo: not a file"),
        ("oci-archive:text", "text: not an uncompressed tar"),
        ("oci-archive:a.tar.gz", "a.tar.gz: not an uncompressed tar"),
        ("docker-archive:empty.tar", "empty.tar: no manifest.json, expected an archive of `docker save`"),
        ("dir:two", "two: no manifest.json, expected a directory of `skopeo copy … dir:`"),
        ("ostree:x", "'ostree:x': unknown transport 'ostree'"),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, sources: Sources, place: str, problem: str) -> None:
    write_two(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/index.json").write_text("nonsense")
    (tmp_path / "text").write_text("nonsense")
    subprocess.run(["mkfifo", tmp_path / "fifo"], check=True)
    tarfile.open(tmp_path / "a.tar.gz", "w:gz").close()
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(RegistryError) as caught:
        sources.open(place)
    assert problem in str(caught.value)


def test_bytes_that_are_not_what_they_should_be_are_said(tmp_path: Path, sources: Sources) -> None:
    images.write_layout(IMAGE, tmp_path / "layout", "1.0")
    source = sources.open("oci:layout")
    manifest = source.manifest(REFERENCE)
    assert isinstance(manifest, Manifest)
    blobs = tmp_path / "layout/blobs/sha256"
    layer = blobs / manifest.layers[0].digest.hex
    layer.write_bytes(layer.read_bytes()[:-1])
    with pytest.raises(RegistryError, match=r"got \d+ bytes, expected \d+$"):
        read_all(source)
    layer.unlink()
    with pytest.raises(RegistryError, match="it has no blob sha256:"):
        read_all(source)
    (blobs / IMAGE.digest.hex).write_bytes(OTHER.raw)
    with pytest.raises(RegistryError, match=f"got a manifest {OTHER.digest}, expected {IMAGE.digest}"):
        source.manifest(REFERENCE)


def test_a_file_that_cannot_be_read_is_said_and_closed() -> None:
    count = len(os.listdir("/proc/self/fd"))
    # No process has anything at the address 0.
    with pytest.raises(RegistryError, match=r"^/proc/self/mem: Input/output error$"):
        Tar(Path("/proc/self/mem"))
    assert len(os.listdir("/proc/self/fd")) == count


# Archives of docker save


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    if link:
        member.type, member.linkname = tarfile.SYMTYPE, link
    tar.addfile(member, io.BytesIO(content))


def save(file: Path, image: images.Image, *, tags: tuple[str, ...] = ("localhost/app:1.0",), times: int = 1) -> None:
    """Write an image as docker does: layers in directories, one that occurs again as a link."""
    config, *layers = image.blobs
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    with tarfile.open(file, "w") as tar:
        add(tar, "config.json", config)
        for name, content in zip(names, layers, strict=True):
            add(tar, name, content)
        add(tar, "again/layer.tar", link="../0/layer.tar")
        entry = {"Config": "config.json", "RepoTags": tags, "Layers": [*names, "again/layer.tar"]}
        add(tar, "manifest.json", json.dumps([entry] * times).encode())


def test_an_archive_of_docker_save_gets_a_manifest_that_is_always_the_same(tmp_path: Path) -> None:
    found = []
    for name in ("a.tar", "b.tar"):
        save(tmp_path / name, IMAGE)
        with Sources(tmp_path) as sources:
            found.append(read_all(sources.open(f"docker-archive:{name}")))
    assert found[0] == found[1]
    manifest = json.loads(found[0][0])
    assert [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]] == ["tar", "tar+gzip", "tar", "tar"]
    assert manifest["layers"][3] == manifest["layers"][0]
    assert manifest["config"]["digest"] == str(Digest.of(IMAGE.blobs[0]))


@pytest.mark.parametrize(
    ("reference", "times", "problem"),
    [
        (
            "docker-archive:a.tar:2",
            2,
            "got the images 'localhost/app:1.0', 'localhost/app:1.0', expected one called '2'",
        ),
        (
            "docker-archive:a.tar",
            2,
            "got the images 'localhost/app:1.0', 'localhost/app:1.0', expected only one; select",
        ),
        ("docker-archive:a.tar", 0, "got the images none, expected only one"),
    ],
)
def test_an_archive_of_docker_save_must_have_one_such_image(
    tmp_path: Path, sources: Sources, reference: str, times: int, problem: str
) -> None:
    save(tmp_path / "a.tar", IMAGE, times=times)
    with pytest.raises(RegistryError) as caught:
        sources.open(reference)
    assert problem in str(caught.value)


@pytest.mark.parametrize(("tag", "layer"), [("1.0", "one"), ("2.0", "two"), ("latest", "two")])
def test_the_tag_chooses_an_image_of_an_archive_of_docker_save(
    tmp_path: Path, sources: Sources, tag: str, layer: str
) -> None:
    entries = [
        {"Config": "config.json", "RepoTags": ["localhost/app:1.0"], "Layers": ["one"]},
        {
            "Config": "config.json",
            "RepoTags": ["r.example:5000/app:2.0", "docker.io/library/app:latest"],
            "Layers": ["two"],
        },
        {"Config": "config.json", "RepoTags": None, "Layers": ["three"]},
    ]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("config.json", "one", "two", "three"):
            add(tar, name, name.encode())
        add(tar, "manifest.json", json.dumps(entries).encode())
    manifest = sources.open(f"docker-archive:a.tar:{tag}").manifest(REFERENCE)
    assert isinstance(manifest, Manifest)
    assert [blob.digest for blob in manifest.layers] == [Digest.of(layer.encode())]


def test_the_only_image_of_an_archive_of_docker_save_is_taken_whatever_its_tag(
    tmp_path: Path, sources: Sources
) -> None:
    save(tmp_path / "a.tar", IMAGE)
    manifest = sources.open("docker-archive:a.tar:of-ours").manifest(REFERENCE)
    assert manifest == sources.open("docker-archive:a.tar").manifest(REFERENCE)


@pytest.mark.parametrize(("count", "fits"), [(1000, True), (1001, False)])
def test_layers_are_counted_before_they_are_read_and_read_once(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch, count: int, fits: bool
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "config.json", b"{}")
        add(tar, "layer", b"layer")
        add(tar, "link", link="layer")
        layers = [("layer", "link")[number % 2] for number in range(count)]
        add(tar, "manifest.json", json.dumps([{"Config": "config.json", "Layers": layers}]).encode())
    hashed = []

    def count_hashes() -> "hashlib._Hash":
        hashed.append(hashlib.new("sha256"))
        return hashed[-1]

    monkeypatch.setattr(hashlib, "sha256", count_hashes)
    if fits:
        manifest = sources.open("docker-archive:a.tar").manifest(REFERENCE)
        assert isinstance(manifest, Manifest)
        assert len(manifest.layers) == count
    else:
        message = f"{tmp_path}/a.tar: manifest.json.images[0].Layers: got 1001 entries, expected at most 1000"
        with pytest.raises(RegistryError, match=exactly(message)):
            sources.open("docker-archive:a.tar").resolve(REFERENCE)
    assert len(hashed) == (2 if fits else 0)


def test_an_archive_is_read_once_by_several_threads(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.tar", OTHER)
    source = sources.open("docker-archive:a.tar")
    opened = []
    barrier = threading.Barrier(4)

    def note(file: StoredFile) -> Digest:
        opened.append(file)
        time.sleep(0.05)
        return digest_of(file)

    def resolve(_: int) -> Digest:
        barrier.wait()
        return source.resolve(REFERENCE)

    digest_of = docker_archive._digest_of
    monkeypatch.setattr(docker_archive, "_digest_of", note)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(resolve, range(4)))) == 1
    assert len(opened) == len(OTHER.blobs)


def test_a_member_that_is_missing_is_said(tmp_path: Path, sources: Sources) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "loop", link="loop")
        add(tar, "manifest.json", b'[{"Config": "../../etc/passwd", "Layers": ["loop"]}]')
    with pytest.raises(RegistryError, match=r"it has no member '\.\./\.\./etc/passwd'"):
        sources.open("docker-archive:a.tar").resolve(REFERENCE)


# What other programs write


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.integration
@pytest.mark.parametrize("transport", ["oci", "oci-archive", "dir"])
def test_reads_what_skopeo_writes(tmp_path: Path, sources: Sources, transport: str) -> None:
    images.write_layout(PACKED, tmp_path / "layout", "1.0")
    place = f"{transport}:{tmp_path}/out" + ("" if transport == "dir" else ":1.0")
    run("skopeo", "copy", f"oci:{tmp_path}/layout:1.0", place)
    assert read_all(sources.open(place)) == [PACKED.raw, *dict.fromkeys(PACKED.blobs)]


@pytest.mark.integration
def test_reads_an_index_that_skopeo_wrote_into_a_directory(tmp_path: Path, sources: Sources) -> None:
    made = images.index(images.small("app"), images.small("app", platform=images.ARM64))
    images.write_layout(made, tmp_path / "layout", "1.0")
    run("skopeo", "copy", "--all", f"oci:{tmp_path}/layout:1.0", f"dir:{tmp_path}/out")
    source = sources.open("dir:out")
    assert source.manifest(REFERENCE).raw == made.raw
    reference = Reference.parse(f"localhost/app@{made.children[1].digest}")
    assert read_all(source, reference)[0] == made.children[1].raw


@pytest.mark.integration
def test_reads_what_skopeo_writes_for_docker(tmp_path: Path, sources: Sources) -> None:
    images.write_layout(IMAGE, tmp_path / "layout", "1.0")
    run("skopeo", "copy", f"oci:{tmp_path}/layout:1.0", f"docker-archive:{tmp_path}/out.tar:localhost/app:1.0")
    config = read_all(sources.open("docker-archive:out.tar:localhost/app:1.0"))[1]
    assert json.loads(config)["rootfs"] == json.loads(IMAGE.blobs[0])["rootfs"]


@pytest.mark.integration
def test_reads_what_podman_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    storage = tmp_path / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    images.write_layout(IMAGE, tmp_path / "layout", "1.0")
    run("skopeo", "copy", f"oci:{tmp_path}/layout:1.0", "containers-storage:localhost/app:1.0")
    found = []
    for _ in range(2):
        with Sources(tmp_path, allow_local=True) as sources:
            found.append(read_all(sources.open("containers-storage:localhost/app:1.0")))
        assert list((tmp_path / "scratch").iterdir()) == []
    assert found[0] == found[1]
    assert json.loads(found[0][1])["rootfs"] == json.loads(IMAGE.blobs[0])["rootfs"]
    with (
        Sources(tmp_path, allow_local=True) as sources,
        pytest.raises(RegistryError, match=r"skopeo cannot copy it: .*nothing"),
    ):
        sources.open("containers-storage:localhost/nothing:1.0")


def test_without_skopeo_an_engine_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        Sources(tmp_path, allow_local=True) as sources,
        pytest.raises(RegistryError, match="skopeo: not installed, but needed for"),
    ):
        sources.open("docker-daemon:localhost/app:1.0")


# What is outside of the package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Give a package with a layout beside it, and links to it in the package."""
    images.write_layout(IMAGE, tmp_path / "outside/app", "1.0")
    pack(tmp_path / "outside/app", tmp_path / "outside/app.tar")
    package = tmp_path / "package"
    shutil.copytree(tmp_path / "outside/app", package / "inside/app")
    (package / "inside/link").symlink_to("../inside/./app")
    (package / "absolute").symlink_to(package / "inside/app")
    (package / "linked").symlink_to("../outside/app")
    (package / "chain").symlink_to("linked")
    (package / "app.tar").symlink_to(tmp_path / "outside/app.tar")
    for name, replaced in (("blobs", "blobs"), ("index", "index.json"), ("each", f"blobs/sha256/{IMAGE.digest.hex}")):
        directory = package / f"linked {name}"
        shutil.copytree(package / "inside/app", directory)
        path = directory / replaced
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(tmp_path / "outside/app" / replaced)
    return package


OUTSIDE = [
    *("oci:{}/outside/app", "oci:../outside/app", "oci:inside/../../outside/app", "oci:linked", "oci:chain"),
    *("oci:absolute", "oci:linked blobs", "oci:linked index", "oci:linked each"),
    *("oci-archive:../outside/app.tar", "oci-archive:app.tar", "oci:/proc/self/root{}/outside/app"),
]


@pytest.mark.parametrize("place", OUTSIDE)
def test_place_outside_of_the_package_needs_the_option(tmp_path: Path, package: Path, place: str) -> None:
    place = place.format(tmp_path)
    with Sources(package) as sources, pytest.raises(DescriptionError, match=r"prefetch --allow-local-sources$"):
        read_all(sources.open(place))
    assert sources.describe_access(place, REFERENCE) == ""


@pytest.mark.parametrize("place", [place for place in OUTSIDE if "/../" not in place])
def test_place_outside_of_the_package_is_reported(tmp_path: Path, package: Path, place: str) -> None:
    place = place.format(tmp_path)
    with Sources(package, allow_local=True) as sources:
        assert read_all(sources.open(place))[0] == IMAGE.raw
        assert sources.describe_access(place, REFERENCE) == "from this machine"


@pytest.mark.parametrize("place", ["oci:inside/app", "oci:inside/link", "oci:inside/link/../app", "oci:{}/inside/app"])
@pytest.mark.parametrize("allow_local", [False, True])
def test_place_in_the_package_needs_no_option(package: Path, place: str, allow_local: bool) -> None:
    place = place.format(package)
    with Sources(package, allow_local=allow_local) as sources:
        assert read_all(sources.open(place))[0] == IMAGE.raw
        assert sources.describe_access(place, REFERENCE) == ""


@pytest.mark.parametrize("transport", ["containers-storage", "docker-daemon"])
def test_store_of_an_engine_needs_the_option(tmp_path: Path, transport: str) -> None:
    place = f"{transport}:localhost/app:1.0"
    with Sources(tmp_path) as sources, pytest.raises(DescriptionError, match=r"prefetch --allow-local-sources$"):
        sources.open(place)
