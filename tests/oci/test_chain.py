"""The chain from a reference to its layers holds in every link, or the image is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from osc_containers.oci import chain
from osc_containers.oci.chain import Claim
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor, Index, Manifest, parse_document
from osc_containers.oci.reference import Reference
from tests.support import images

APP = Reference.parse("registry.example.com/team/app:1.0")
CREATED = "1970-01-01T00:00:00Z"


def manifest_of(image: images.Image) -> Manifest:
    document = parse_document(image.raw, image.media_type, "manifest")
    assert isinstance(document, Manifest)
    return document


def index_of(image: images.Image) -> Index:
    document = parse_document(image.raw, image.media_type, "index")
    assert isinstance(document, Index)
    return document


AMD64 = images.image(images.layer({"app": b"amd64"}))
ARM64 = images.image(images.layer({"app": b"arm64"}), platform=images.ARM64)
OTHER = images.image(images.layer({"app": b"other"}))
INDEX = images.index(AMD64, ARM64)
NESTED = images.index(INDEX)
UNNAMED = images.image(images.layer({"app": b"unnamed"}), config_changes={"os": "", "architecture": None})
MISLABELLED = images.index(replace(ARM64, platform=images.AMD64), replace(UNNAMED, platform=images.ARM64))
BYTES = {
    Digest.of(content): content
    for each in (AMD64, ARM64, OTHER, INDEX, NESTED, UNNAMED, MISLABELLED)
    for content in (each.raw, *each.blobs)
}


def read(descriptor: Descriptor) -> bytes:
    return BYTES[descriptor.digest]


def claim(image: images.Image, *indexes: images.Image) -> Claim:
    """Return what is true of an image that was found by way of indexes."""
    top = indexes[0] if indexes else image
    found = Image.from_documents(manifest_of(image), [index_of(index) for index in indexes])
    return Claim(APP, top.digest, top.media_type, "x86_64", found, CREATED)


@pytest.mark.parametrize(
    "true", [claim(AMD64), claim(AMD64, INDEX), claim(AMD64, NESTED, INDEX), claim(UNNAMED), claim(ARM64, MISLABELLED)]
)
def test_a_chain_that_holds_is_accepted(true: Claim) -> None:
    chain.check(true, read)


TRUE = claim(AMD64, INDEX)
SHORT = TRUE.image.manifest._replace(size=1)


@pytest.mark.parametrize(
    ("claim", "problem"),
    [
        (claim(OTHER, INDEX), "index: for linux/amd64 it has sha256:"),
        (claim(ARM64, INDEX), "index: for linux/amd64 it has sha256:"),
        (claim(AMD64)._replace(digest=INDEX.digest), "its manifest is sha256:"),
        (TRUE._replace(digest=AMD64.digest), "its index is sha256:"),
        (TRUE._replace(media_type=AMD64.media_type), "its index is sha256:"),
        (TRUE._replace(reference=Reference.parse(f"{APP.name}@{OTHER.digest}")), "the lock has the digest sha256:"),
        (TRUE._replace(created="2000-01-01T00:00:00Z"), "config: it was created 1970-01-01T00:00:00Z, but the lock"),
        (TRUE._replace(arch="aarch64"), "index: for linux/arm64/v8 it has sha256:"),
        (claim(ARM64), "it is for linux/arm64/v8 only, expected an image for linux/amd64 (x86_64)"),
        (TRUE._replace(image=TRUE.image._replace(manifest=SHORT)), "manifest: its "),
        (TRUE._replace(image=TRUE.image._replace(starts_at_manifest=True)), "index: an engine takes the manifest, but"),
        (TRUE._replace(image=TRUE.image._replace(layers=())), "manifest: its config and layers differ from"),
        (TRUE._replace(image=TRUE.image._replace(config=claim(OTHER).image.config)), "manifest: its config and layers"),
        (claim(AMD64, INDEX)._replace(image=claim(AMD64, INDEX, INDEX).image), "index: for linux/amd64 it has sha256:"),
    ],
)
def test_a_link_that_does_not_hold_is_refused(claim: Claim, problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        chain.check(claim, read)
    assert str(caught.value).startswith(problem)


def changed(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


@pytest.mark.parametrize("change", [changed, lambda content: content[:-1], lambda content: content + b" "])
@pytest.mark.parametrize("number", range(3))
def test_any_other_bytes_of_a_document_are_refused(number: int, change: Callable[[bytes], bytes]) -> None:
    document = TRUE.image.documents[number]

    def read_changed(descriptor: Descriptor) -> bytes:
        return change(read(descriptor)) if descriptor == document else read(descriptor)

    with pytest.raises(ValueError, match=r"bytes do not match sha256:[0-9a-f]{64} of \d+ bytes"):
        chain.check(TRUE, read_changed)
