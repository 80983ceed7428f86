"""Manifests, indexes and configurations are validated, and images are selected in the same way as by engines."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.archive.layout import lay_out
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    INDEX_TYPES,
    MANIFEST,
    Index,
    Manifest,
    candidates,
    created_of,
    parse_document,
    platform_of,
)
from osc_containers.oci.platform import Platform
from osc_containers.oci.reference import Reference
from tests.support import images
from tests.support.messages import assert_bounded, exactly
from tests.support.strategies import json_values, mutated

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
DIGEST = f"sha256:{'0' * 64}"
OTHER = f"sha256:{'1' * 64}"
ONLY = {"manifest": "only config, layers", "index": "only manifests"}


def blob(media_type: str = LAYER_TYPE, digest: object = DIGEST, size: object = 7, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def manifest(**changes: object) -> dict[str, object]:
    """Return a manifest; None as a value removes a property."""
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": blob(CONFIG_TYPE, OTHER), "layers": [blob()]}
    return {key: value for key, value in (document | changes).items() if value is not None}


def index(*entries: dict[str, object], **changes: object) -> dict[str, object]:
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}
    return {key: value for key, value in (document | changes).items() if value is not None}


def parse(document: object, media_type: str = "") -> Manifest | Index:
    return parse_document(json.dumps(document).encode(), media_type, "r.io/x:1")


NOT_FOR_AMD64 = "no image for linux/amd64 (in kiwi: x86_64, amd64)"
ADVICE = "list the container's architectures in its 'arch' attribute"


@pytest.mark.parametrize(
    ("document", "media_type", "kind"),
    [
        (manifest(), "", MANIFEST),
        (manifest(mediaType=DOCKER_MANIFEST), MANIFEST, DOCKER_MANIFEST),
        (manifest(mediaType=None), f"{MANIFEST}; charset=utf-8", MANIFEST),
        (manifest(mediaType=None), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (manifest(mediaType=None), "application/json", MANIFEST),
        (manifest(mediaType=None), "text/plain; charset=utf-8", MANIFEST),
        (manifest(mediaType=None), "binary/octet-stream", MANIFEST),
        (manifest(mediaType=None), "application/vnd.example.nonsense", MANIFEST),
        (manifest(mediaType=None), INDEX, MANIFEST),
        (manifest(mediaType=None, config=blob(DOCKER_CONFIG_TYPE)), "binary/octet-stream", DOCKER_MANIFEST),
        (manifest(mediaType=None, config=blob(DOCKER_CONFIG_TYPE)), MANIFEST, MANIFEST),
        (manifest(mediaType="application/octet-stream"), "text/html", MANIFEST),
        (index(mediaType=None), "text/html; charset=utf-8", INDEX),
        (index(mediaType=None), MANIFEST, INDEX),
        (manifest(schemaVersion=None, layers=[]), "", MANIFEST),
        (manifest(mediaType=DOCKER_MANIFEST, config=blob("application/octet-stream")), "", DOCKER_MANIFEST),
        (manifest(mediaType=DOCKER_MANIFEST, config=blob("")), "", DOCKER_MANIFEST),
        (manifest(layers=[blob(), blob()]), "", MANIFEST),
        (index(), "", INDEX),
        (index(mediaType=DOCKER_LIST), "", DOCKER_LIST),
        (index(mediaType=None), "application/octet-stream", INDEX),
        (index(mediaType=None), DOCKER_LIST, DOCKER_LIST),
        (index(manifests=None), "", INDEX),
        (index(config=None, layers=None), "", INDEX),
    ],
)
def test_the_media_type_in_a_document_takes_precedence(document: dict[str, object], media_type: str, kind: str) -> None:
    result = parse(document, media_type)
    assert isinstance(result, Index if kind in INDEX_TYPES else Manifest)
    assert result.media_type == kind
    assert result.digest == Digest.of(json.dumps(document).encode())


def test_all_properties_of_a_descriptor_are_read() -> None:
    platform = {"os": "linux", "architecture": "arm", "variant": "v7", "os.version": "ignored"}
    annotations = {"vnd.docker.reference.type": "attestation-manifest"}
    result = parse(index(blob(MANIFEST, platform=platform, annotations=annotations, urls=["https://r.io/x"])))
    assert isinstance(result, Index)
    (entry,) = result.manifests
    assert (entry.digest, entry.size, entry.media_type) == (Digest.parse(DIGEST), 7, MANIFEST)
    assert entry.platform == Platform("linux", "arm", "v7")
    assert not entry.is_image
    assert entry.urls == ("https://r.io/x",)


def test_blobs_of_a_manifest_have_no_duplicates() -> None:
    result = parse(manifest(layers=[blob(), blob(digest=OTHER), blob()]))
    assert isinstance(result, Manifest)
    assert [str(part.digest) for part in result.blobs] == [OTHER, DIGEST]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], ": got an array, expected an object"),
        ({}, ": got media type '' and no properties, expected the manifest or index of an image"),
        (manifest(mediaType="a/b"), ": got media type 'a/b', expected the manifest or index of an image"),
        (manifest(mediaType="a" * 999), f": got media type '{'a' * 120}', expected the manifest or index of an image"),
        (manifest(mediaType=7), ": mediaType: got a number, expected a string"),
        (manifest(mediaType="\x1b"), ": mediaType: got '\\x1b', expected printable characters"),
        (manifest(schemaVersion="2"), ": schemaVersion: got a string, expected a whole number"),
        (manifest(schemaVersion=1), ": got schemaVersion 1, expected 2; push the image again with a current tool"),
        (manifest(schemaVersion=3), ": got schemaVersion 3, expected 2; push the image again with a current tool"),
        (manifest(manifests=[]), f": got config, layers, manifests, expected {ONLY['manifest']}"),
        (manifest(layers=None, fsLayers=[]), f": got config, fsLayers, expected {ONLY['manifest']}"),
        (manifest(history=[]), f": got config, history, layers, expected {ONLY['manifest']}"),
        (index(layers=[]), f": got layers, manifests, expected {ONLY['index']}"),
        (index(config={}, manifests=None), f": got config, expected {ONLY['index']}"),
        (manifest(config=None), ": config: missing"),
        (manifest(config=[]), ": config: got an array, expected an object"),
        (manifest(config=blob("a/b")), ": not an image but an artifact of type 'a/b'; use the reference of an image"),
        (
            manifest(config=blob("a/b"), artifactType="c/d"),
            ": not an image but an artifact of type 'c/d'; use the reference of an image",
        ),
        (
            manifest(config=blob("application/octet-stream")),
            ": not an image but an artifact of type 'application/octet-stream'; use the reference of an image",
        ),
        (manifest(config=blob("")), ": not an image but an artifact of type ''; use the reference of an image"),
        (
            manifest(config=blob(CONFIG_TYPE, size=(16 << 20) + 1)),
            ": got a config of 16777217 bytes, expected at most 16777216",
        ),
        (manifest(layers={}), ": layers: got an object, expected an array"),
        (manifest(layers=[blob(), 7]), ": layers[1]: got a number, expected an object"),
        (manifest(layers=[blob("a/b")]), ": layers[0]: got media type 'a/b', expected a layer"),
        (manifest(layers=[blob()] * 1001), ": layers: got 1001 entries, expected at most 1000"),
        (manifest(layers=[blob(), blob(size=8)]), f": {DIGEST} has different sizes, 7 and 8"),
        (manifest(layers=[blob(digest=OTHER, size=8)]), f": {OTHER} has different sizes, 7 and 8"),
        (manifest(layers=[blob(size=-1)]), ": layers[0].size: got -1, expected a size in bytes"),
        (manifest(layers=[blob(size=None)]), ": layers[0].size: missing"),
        (manifest(layers=[blob(digest=None)]), ": layers[0].digest: missing"),
        (manifest(layers=[blob(digest=7)]), ": layers[0].digest: got a number, expected a string"),
        (
            manifest(layers=[blob(digest="md5:0")]),
            ": layers[0].digest: got digest algorithm 'md5', expected one of sha256, sha384, sha512",
        ),
        (manifest(layers=[blob(urls="x")]), ": layers[0].urls: got a string, expected an array"),
        (manifest(layers=[blob(annotations=[])]), ": layers[0].annotations: got an array, expected an object"),
        (index(manifests=[7]), ": manifests[0]: got a number, expected an object"),
        (index(*[blob(MANIFEST)] * 10_001), ": manifests: got 10001 entries, expected at most 10000"),
    ],
)
def test_an_error_names_the_invalid_property(document: object, message: str) -> None:
    with pytest.raises(ValueError, match=exactly(f"r.io/x:1{message}")):
        parse(document)


def test_the_size_of_a_manifest_is_limited() -> None:
    message = "r.io/x:1: got a manifest of 4194305 bytes, expected at most 4194304"
    with pytest.raises(ValueError, match=exactly(message)):
        parse_document(b"{}".ljust((4 << 20) + 1), MANIFEST, "r.io/x:1")
    assert isinstance(parse_document(json.dumps(index()).encode().ljust(4 << 20), "", "r.io/x:1"), Index)


REAL: list[Any] = [
    json.loads(image.raw)
    for image in (images.small("x"), images.small("x", docker=True), images.multi_platform("x"), images.artifact())
]


@given(st.sampled_from(REAL).flatmap(mutated).map(json.dumps) | st.binary(), st.text())
def test_any_bytes_give_a_usable_document_or_an_error(text: str | bytes, media_type: str) -> None:
    raw = text if isinstance(text, bytes) else text.encode()
    try:
        result = parse_document(raw, media_type, "x")
        if isinstance(result, Index):
            candidates(result, images.AMD64, "x")
    except ValueError as error:
        assert_bounded(error)
        return
    if isinstance(result, Manifest):
        lay_out(
            Image(manifest=result.config, config=result.config, layers=result.layers), Reference.parse("x"), "x86_64"
        )


def entry(architecture: str, variant: str = "", *, system: str = "linux", size: int = 0) -> dict[str, object]:
    parts = {"os": system, "architecture": architecture, "variant": variant}
    return blob(MANIFEST, size=size, platform={key: value for key, value in parts.items() if value})


AMD64, ARM64, V7 = Platform("linux", "amd64"), Platform("linux", "arm64", "v8"), Platform("linux", "arm", "v7")
NESTED = blob(INDEX)
ATTESTATION = {**entry("amd64"), "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}


@pytest.mark.parametrize(
    ("entries", "target", "position"),
    [
        ([entry("arm64"), entry("amd64")], AMD64, 1),
        ([entry("amd64", "v2"), entry("amd64", "v1"), entry("amd64", "v3")], AMD64, 1),
        ([entry("amd64", "v1"), entry("amd64")], AMD64, 1),
        ([entry("amd64", system="windows"), entry("amd64"), entry("amd64")], AMD64, 1),
        ([ATTESTATION, entry("amd64")], AMD64, 1),
        ([entry("arm64"), entry("arm64", "v8")], ARM64, 1),
        ([entry("arm64", "v9"), entry("arm64")], ARM64, 1),
        ([entry("arm"), entry("arm", "v5"), entry("arm", "v6"), entry("arm", "v8")], V7, 2),
        ([entry("arm64"), entry("arm")], V7, 1),
        ([entry("arm64"), NESTED], AMD64, 1),
        ([NESTED, entry("amd64")], AMD64, 1),
        ([entry("arm64"), blob(MANIFEST), NESTED, blob(MANIFEST)], AMD64, 1),
        ([entry("arm64"), blob(MANIFEST, platform={})], AMD64, 1),
        ([entry("arm64", system=""), entry("", system="windows"), entry("amd64", system="")], AMD64, 2),
        ([entry("arm64", system=""), entry("arm64")], ARM64, 1),
    ],
)
def test_the_best_entry_of_an_index_is_selected(entries: list[object], target: Platform, position: int) -> None:
    document = index(manifests=[{**item, "size": size} for size, item in enumerate(entries)])  # type: ignore[dict-item]
    result = parse(document)
    assert isinstance(result, Index)
    assert candidates(result, target, "x")[0].size == position


def test_the_best_entry_is_found_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    comparisons = []

    class Rank(int):
        def __lt__(self, other: int) -> bool:
            comparisons.append(other)
            return super().__lt__(other)

    monkeypatch.setattr("osc_containers.oci.platform.rank", lambda target, candidate: Rank(0))
    result = parse(index(*[entry("amd64")] * 1000))
    assert isinstance(result, Index)
    assert len(candidates(result, AMD64, "x")) == 1000
    assert len(comparisons) < 1000


@pytest.mark.parametrize(
    "other",
    [
        entry("arm64") | {"digest": f"blake3:{'0' * 64}"},
        entry("arm64") | {"digest": None},
        entry("arm64") | {"size": -1},
        blob(MANIFEST, digest="md5:0"),
    ],
)
def test_an_unusable_entry_does_not_affect_the_others(other: dict[str, object]) -> None:
    result = parse(index(other, entry("amd64", size=1)))
    assert isinstance(result, Index)
    assert candidates(result, AMD64, "x")[0].size == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], f"none; {ADVICE}"),
        ([ATTESTATION, blob("a/b")], f"none; {ADVICE}"),
        ([entry("unknown", system="unknown"), entry("arm64", "v8")], f"linux/arm64/v8; {ADVICE}"),
        (
            [entry("s390x"), entry("amd64", "v3"), entry("s390x")],
            f"linux/amd64/v3, linux/s390x; {ADVICE}, where no value selects linux/amd64/v3",
        ),
        (
            [entry(str(number)) for number in range(1000, 1999)],
            f"{', '.join(f'linux/{n}' for n in range(1000, 1999))[:400]}; no value of 'arch' selects any of these; "
            "use another image, or ask its author for one",
        ),
        (
            [entry("amd64", "v2"), entry("amd64", system="windows")],
            "linux/amd64/v2, windows/amd64; no value of 'arch' selects any of these; name the image for linux/amd64/v2 "
            f"by its own digest, tag='{DIGEST}', or use another one",
        ),
        (
            [entry("arm64", "v8"), blob(MANIFEST, platform={"os": "\n"}), blob(MANIFEST, size=-1)],
            "linux/arm64/v8, and 2 unusable (manifests[1].platform.os: got '\\n', expected printable characters); "
            f"{ADVICE}",
        ),
    ],
)
def test_available_platforms_are_listed_if_none_fits(entries: list[dict[str, object]], message: str) -> None:
    result = parse(index(*entries))
    assert isinstance(result, Index)
    with pytest.raises(ValueError, match=exactly(f"x: {NOT_FOR_AMD64}; available: {message}")):
        candidates(result, AMD64, "x")


@pytest.mark.parametrize(
    ("config", "platform", "created"),
    [
        ({}, Platform("", ""), ""),
        ({"os": "linux", "architecture": "amd64"}, AMD64, ""),
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, V7, ""),
        ({"created": "2024-02-29T23:59:59Z"}, Platform("", ""), "2024-02-29T23:59:59Z"),
        ({"created": "2024-01-01t00:00:00.123456789+02:00"}, Platform("", ""), "2024-01-01t00:00:00.123456789+02:00"),
        ({"created": "yesterday"}, Platform("", ""), ""),
        ({"created": "2024-01-01T00:00:00Z\n"}, Platform("", ""), ""),
        ({"created": "2024-01-01"}, Platform("", ""), ""),
        ({"created": 7}, Platform("", ""), ""),
    ],
)
def test_a_configuration_has_a_platform_and_a_date(config: dict[str, object], platform: Platform, created: str) -> None:
    raw = json.dumps(config).encode()
    assert platform_of(raw, "x: config") == platform
    assert created_of(raw, "x: config") == created


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"", "x: config: not valid JSON; Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "x: config: got an array, expected an object"),
        (b'{"os": 7}', "x: config.os: got a number, expected a string"),
        (b'{"architecture": "\\ud800"}', "x: config.architecture: got a lone surrogate, expected valid Unicode"),
        (b'{"variant": "\\u0000"}', "x: config.variant: got '\\x00', expected printable characters"),
    ],
)
def test_an_invalid_configuration_is_refused(config: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        platform_of(config, "x: config")


@given(st.dictionaries(st.sampled_from(["created", "os", "architecture", "variant"]), json_values).map(json.dumps))
def test_any_configuration_gives_values_or_an_error(config: str) -> None:
    try:
        str(platform_of(config.encode(), "x: config")).encode()
        created_of(config.encode(), "x: config").encode()
    except ValueError as error:
        assert_bounded(error)
