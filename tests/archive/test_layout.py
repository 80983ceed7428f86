"""The layout of an archive is computed in advance, and every tar program reads it as intended."""

import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osc_containers.archive.layout import Layout, Member, lay_out, path_of
from osc_containers.formats import tar
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import MANIFEST, Descriptor
from osc_containers.oci.reference import Reference
from tests.support.strategies import images, references

APP = Reference.parse("registry.example.com:5000/team/app:1.0")


def descriptor(content: bytes, algorithm: str = "sha256") -> Descriptor:
    return Descriptor(digest=Digest.of(content, algorithm), size=len(content), media_type=MANIFEST)


def image_of(contents: list[bytes], algorithm: str) -> tuple[Image, dict[Digest, bytes]]:
    """Return an image whose manifest, configuration and layers have these contents, and the contents by digest."""
    manifest, config, *layers = (descriptor(content, algorithm) for content in contents)
    image = Image(manifest=manifest, config=config, layers=tuple(layers))
    return image, {Digest.of(content, algorithm): content for content in contents}


def write(layout: Layout, contents: dict[Digest, bytes], path: Path) -> None:
    """Write an archive according to its layout, with the blobs last, and nothing outside of the layout."""
    with path.open("wb") as file:
        file.truncate(layout.size)
        for offset, content in layout.frame():
            file.seek(offset)
            file.write(content)
        for member in reversed(tuple(layout.blobs())):
            file.seek(member.offset)
            file.write(contents[member.digest])


def read(path: Path) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert (file is None) is member.isdir(), "all others are regular files"
            name = f"{member.name}/" if member.isdir() else member.name
            assert name not in contents
            contents[name] = file.read() if file else b""
    return contents


@given(images, references)
def test_members_are_contiguous_and_fill_the_archive(image: Image, reference: Reference) -> None:
    layout = lay_out(image, reference, "x86_64")
    end = 0
    for member in layout.members:
        assert member.start == end
        assert member.offset == member.start + len(member.header)
        assert 0 <= member.end - (member.offset + member.size) < tar.BLOCK
        end = member.end
    assert layout.size == end + len(tar.END)
    assert layout.size % tar.BLOCK == 0


@given(images, references)
def test_blobs_are_in_the_order_of_the_manifest(image: Image, reference: Reference) -> None:
    names = [member.name for member in lay_out(image, reference, "x86_64").members]
    blobs = [path_of(blob.digest) for blob in (*image.layers, image.config, image.manifest)]
    directories = dict.fromkeys(f"{Path(path).parent}/" for path in blobs)
    assert names == ["oci-layout", "blobs/", *directories, *dict.fromkeys(blobs), "index.json", "manifest.json"]


@settings(max_examples=30)
@given(
    st.lists(st.binary(max_size=1100) | st.sampled_from([b"", b"x" * 512, b"y" * 511]), min_size=2, max_size=6),
    st.sampled_from(["sha256", "sha512"]),
    references,
)
def test_tarfile_and_gnu_tar_read_the_members(contents: list[bytes], algorithm: str, reference: Reference) -> None:
    image, blobs = image_of(contents, algorithm)
    layout = lay_out(image, reference, "x86_64")
    with TemporaryDirectory() as directory:
        path = Path(directory) / "x.ociarchive"
        write(layout, blobs, path)
        expected = {
            member.name: blobs[member.digest] if member.content is None else member.content for member in layout.members
        }
        assert read(path) == expected
        assert listing("tar", path) == [(member.size, member.name) for member in layout.members]


def listing(program: str, path: Path) -> list[tuple[int, str]]:
    """Return sizes and names of the members as listed by a tar program, which must print no warning."""
    environment = os.environ | {"TZ": "UTC", "LC_ALL": "C"}
    command = [program, "-tvf", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert result.stderr == ""
    rows = [line.split() for line in result.stdout.splitlines()]
    assert all(row[0] == ("drwxr-xr-x" if row[-1].endswith("/") else "-rw-r--r--") for row in rows)
    # GNU tar: mode owner/group size day time name; bsdtar: mode links owner group size month day year name
    return [(int(row[2] if "/" in row[1] else row[4]), row[-1]) for row in rows]


@pytest.mark.integration
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_bsdtar_reads_the_members(tmp_path: Path, algorithm: str) -> None:
    image, blobs = image_of([b"manifest", b"config", b"", b"x" * 512, b"y" * 1000], algorithm)
    layout = lay_out(image, APP, "x86_64")
    write(layout, blobs, tmp_path / "x")
    assert listing("bsdtar", tmp_path / "x") == [(member.size, member.name) for member in layout.members]


def test_a_layer_may_be_too_large_for_ustar(tmp_path: Path) -> None:
    large = Descriptor(digest=Digest.of(b"large"), size=8**11, media_type="")
    manifest, config = descriptor(b"manifest"), descriptor(b"config")
    layout = lay_out(Image(manifest=manifest, config=config, layers=(large,)), APP, "x86_64")
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(layout.size)
        for offset, content in layout.frame():
            file.seek(offset)
            file.write(content)
    assert path.stat().st_blocks < 1000, "the file system does not support sparse files"
    expected = [(member.size, member.name) for member in layout.members]
    assert (8**11, f"blobs/sha256/{Digest.of(b'large').hex}") in expected
    with tarfile.open(path, "r:") as archive:
        assert [(member.size, f"{member.name}{'/' * member.isdir()}") for member in archive] == expected
    assert listing("tar", path) == expected


def test_a_layer_that_is_used_twice_is_stored_once() -> None:
    image, _ = image_of([b"manifest", b"config", b"layer", b"other", b"layer", b"config"], "sha256")
    layout = lay_out(image, APP, "x86_64")
    layers, other, config = (path_of(Digest.of(content)) for content in (b"layer", b"other", b"config"))
    assert [member.name for member in layout.blobs()] == [
        layers,
        other,
        config,
        path_of(Digest.of(b"manifest")),
    ]
    document = json.loads(content_of(layout, "manifest.json"))
    assert document[0]["Layers"] == [layers, other, layers, config]


def content_of(layout: Layout, name: str) -> bytes:
    member = find(layout, name)
    assert member.content is not None
    assert (len(member.content), Digest.of(member.content)) == (member.size, member.digest)
    return member.content


def find(layout: Layout, name: str) -> Member:
    (member,) = (member for member in layout.members if member.name == name)
    return member


@pytest.mark.parametrize(
    ("reference", "name", "tags"),
    [
        ("registry.example.com:5000/team/app:1.0", "registry.example.com:5000/team/app:1.0", True),
        ("app", "docker.io/library/app:latest", True),
        (f"r.io/a:1@sha256:{'0' * 64}", "r.io/a:1", True),
        # podman would refuse another digest than that of the document.
        (f"r.io/a@sha256:{'0' * 64}", f"r.io/a@{Digest.of(b'manifest')}", False),
    ],
)
def test_the_image_has_its_full_name_for_every_engine(reference: str, name: str, tags: bool) -> None:
    image, _ = image_of([b"manifest", b"config", b"layer"], "sha256")
    layout = lay_out(image, Reference.parse(reference), "x86_64")
    assert json.loads(content_of(layout, "oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads(content_of(layout, "index.json")) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": MANIFEST,
                "digest": str(Digest.of(b"manifest")),
                "size": 8,
                "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
            }
        ],
    }
    assert json.loads(content_of(layout, "manifest.json")) == [
        {
            "Config": path_of(Digest.of(b"config")),
            "RepoTags": [name] if tags else None,
            "Layers": [path_of(Digest.of(b"layer"))],
        }
    ]


@pytest.mark.parametrize(
    ("indexes", "arch", "top"),
    [
        ([], "x86_64", b"manifest"),
        ([b"index"], "x86_64", b"index"),
        ([b"index"], "armv7l", b"index"),
        # A later ARM processor would choose another entry of the index, which is not in the archive.
        ([b"index"], "armv6l", b"manifest"),
        ([b"index"], "armv6hl", b"manifest"),
        ([b"index"], "armv5tel", b"manifest"),
        # No engine follows an index to another one.
        ([b"outer", b"inner"], "aarch64", b"inner"),
    ],
)
def test_an_archive_starts_from_the_index_that_engines_can_use(indexes: list[bytes], arch: str, top: bytes) -> None:
    image, _ = image_of([b"manifest", b"config", b"layer"], "sha256")
    image = image._replace(indexes=tuple(map(descriptor, indexes)))
    layout = lay_out(image, Reference.parse(f"r.io/a@sha256:{'0' * 64}"), arch)
    (entry,) = json.loads(content_of(layout, "index.json"))["manifests"]
    assert (entry["digest"], entry["size"]) == (str(Digest.of(top)), len(top))
    assert set(entry["annotations"].values()) == {f"r.io/a@{Digest.of(top)}"}
    assert {path_of(Digest.of(document)) for document in indexes} <= {member.name for member in layout.members}


def test_the_bytes_of_an_archive_never_change(tmp_path: Path) -> None:
    image, blobs = image_of([b"manifest", b"config", b"layer", b"x" * 600], "sha256")
    write(lay_out(image, APP, "x86_64"), blobs, tmp_path / "x")
    assert (
        hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
        == "b63794b95a952bf201f5874c39bbfd24846cc06d1545c79108bdc80cebdaaac8"
    )
