"""Layout directories: every engine finds in them the bytes that the registry served."""

import json
from pathlib import Path

import pytest

from osc_containers.archive.layout import path_of
from osc_containers.inject import layout_directory
from osc_containers.inject.image_file import BlobFile, TextFile
from osc_containers.inject.layout_directory import LAYOUTS
from tests.support import images
from tests.support.e2e.packed import Packed, pack
from tests.support.engines import output

NAME = "registry.example.com:5000/team/app:1.0"
KINDS = {
    "OCI": images.small("app"),
    "OCI index": images.multi_platform("app"),
    "Docker": images.small("app", docker=True),
    "Docker list": images.multi_platform("app", docker=True),
    "repeated layer": images.image(*[images.layer({"a": b"a"})] * 2),
    "large": images.image(images.random_layer("large", 3 << 20)),
}


def texts(packed: Packed, *, has_stream: bool = False) -> dict[str, str]:
    """Return the text files of a layout by name."""
    load = packed.load
    files = layout_directory.files(load.id, load.reference, load.image, load.arch, has_stream=has_stream)
    return {Path(file.path).name: file.text for file in files if isinstance(file, TextFile)}


@pytest.mark.parametrize("kind", KINDS)
def test_stream_is_the_archive(kind: str) -> None:
    packed = pack(NAME, KINDS[kind])
    files = texts(packed, has_stream=True)
    frame, content = files["frame"].encode(), b""
    for line in files["stream"].splitlines():
        count, path = line.split()
        digest = next(digest for digest in packed.blobs if path_of(digest) == path)
        content += frame[: int(count)] + packed.blobs[digest]
        frame = frame[int(count) :]
    assert content + frame == packed.archive


@pytest.mark.parametrize("kind", KINDS)
def test_index_json_names_the_document_that_engines_resolve(kind: str) -> None:
    packed = pack(NAME, KINDS[kind])
    (entry,) = json.loads(texts(packed)["index.json"])["manifests"]
    assert entry["digest"] == str(KINDS[kind].digest)
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == NAME


def test_engines_cannot_load_nested_indexes_so_the_inner_one_is_named() -> None:
    inner = images.multi_platform("app")
    packed = pack(NAME, images.index(inner))
    (entry,) = json.loads(texts(packed)["index.json"])["manifests"]
    assert entry["digest"] == str(inner.digest)


def test_every_blob_of_the_platform_is_there_and_no_other() -> None:
    packed = pack(NAME, KINDS["OCI index"])
    load = packed.load
    files = layout_directory.files(load.id, load.reference, load.image, load.arch, has_stream=False)
    paths = {file.path for file in files if isinstance(file, BlobFile)}
    assert paths == {f"{LAYOUTS}/app_1.0/blobs/sha256/{digest.hex}" for digest in packed.blobs}


@pytest.mark.integration
def test_skopeo_reads_the_directory(tmp_path: Path) -> None:
    packed = pack(NAME, KINDS["OCI"])
    packed.write(tmp_path)
    document = output("skopeo", "inspect", "--raw", f"oci:{packed.directory(tmp_path)}:{NAME}")
    assert document.encode() == KINDS["OCI"].raw
