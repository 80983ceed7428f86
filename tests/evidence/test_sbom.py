"""SBOMs are valid for the libraries of their formats, whatever an image says of itself, and always the same bytes."""

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from osc_containers.evidence.sbom import cyclonedx, licenses
from osc_containers.evidence.sbom.component import Component, inventory, labels_of
from osc_containers.evidence.sbom.document import FORMATS, file_name, render
from osc_containers.lock.signature import RecordedSignature
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference
from tests.support.sbom_validators import problems

OCI = "org.opencontainers.image."
SIGNATURE = RecordedSignature("sigstore", "r.test/ns/app", f"sha256:{'a' * 64}", b"{}", b"x")


def blob(text: str) -> Descriptor:
    return Descriptor(digest=Digest.of(text.encode()), size=1, media_type="application/octet-stream")


def component(reference: str = "r.test:5000/ns/app:1", arch: str = "x86_64", **more: Any) -> Component:
    image = Image(manifest=blob(reference + arch), config=blob("config"), layers=(blob("base"), blob(reference)))
    labels = {f"{OCI}{key}": value for key, value in more.pop("labels", {}).items()}
    return Component(Reference.parse(reference), arch, Digest.of(b"index"), image, labels=labels, **more)


LABELS: list[Mapping[str, str]] = [
    {},
    {"licenses": "MIT AND (Apache-2.0 OR GPL-2.0-or-later WITH Classpath-exception-2.0)"},
    {"licenses": "Proprietary, see https://r.test"},
    {"licenses": "MIT AND", "source": "git@r.test:x.git", "url": "javascript:x", "documentation": "https://r.test/a b"},
    {"source": "https://r.test/x.git?a=b#c", "url": "https://r.test", "documentation": "http://r.test:80/x"},
    {"licenses": "x" * 5000, "source": f"https://r.test/{'x' * 5000}", "url": "https://r.test/<\u202e>"},
    {"licenses": '"\\\n\0\u202e{}', "url": "https://r.test/%zz|^`"},
]


@pytest.mark.integration
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("labels", LABELS)
def test_documents_are_valid(format_: str, labels: Mapping[str, str]) -> None:
    components = [
        component(labels=labels, created="2024-02-30T00:00:00Z", signatures=(SIGNATURE,)),
        component("busybox", created="2024-05-06T01:02:03.123456789+02:00", labels=labels),
        component("busybox", "aarch64", created="0001-01-01T00:00:00+05:00"),
        component(f"r.test/x--y__z@sha256:{'0' * 64}", "armv7l", labels=labels),
        component(f"r.test/app:A_b.c@sha256:{'0' * 64}"),
        component("r.test/app:A_b.c"),
    ]
    text = render(inventory("appliance", "1.2.3", components), format_)
    assert problems(text, format_) == []
    assert json.loads(text)


@pytest.mark.integration
@pytest.mark.parametrize("format_", FORMATS)
def test_an_image_without_containers_has_a_valid_document(format_: str) -> None:
    assert problems(render(inventory("appliance", "1", []), format_), format_) == []


@pytest.mark.parametrize("format_", FORMATS)
def test_order_does_not_matter(format_: str) -> None:
    components = [component(f"r.test/app{n}:1", created=f"2024-01-0{n}T00:00:00Z") for n in range(1, 6)]
    text = render(inventory("appliance", "1", components), format_)
    random.Random(1).shuffle(components)
    assert render(inventory("appliance", "1", components), format_) == text
    assert b"2024-01-05T00:00:00Z" in text


def test_a_document_of_other_content_has_another_id() -> None:
    one, other = (cyclonedx.document(inventory("x", "1", [component(name)])) for name in ("a", "b"))
    assert one["serialNumber"] != other["serialNumber"]


def test_the_time_is_that_of_the_source() -> None:
    components = [component(created="2024-01-01T00:00:00Z")]
    assert inventory("x", "1", components, {"SOURCE_DATE_EPOCH": "86400"}).timestamp == "1970-01-02T00:00:00Z"
    assert inventory("x", "1", components, {"SOURCE_DATE_EPOCH": "x"}).timestamp == "2024-01-01T00:00:00Z"


def test_signatures_and_digests_are_listed() -> None:
    for format_ in FORMATS:
        text = render(inventory("x", "1", [component(signatures=(SIGNATURE,))]), format_).decode()
        assert f"signed as r.test/ns/app by sha256:{'a' * 64}" in text
        assert str(Digest.of(b"index")) in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIT", "MIT"),
        ("(MIT)", "(MIT)"),
        ("MIT  OR ( ISC AND Zlib )", "MIT OR (ISC AND Zlib)"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("GPL-2.0-only WITH MIT", ""),
        ("mit", ""),
        ("MIT,ISC", ""),
        ("MIT OR", ""),
        ("MIT)", ""),
        ("(" * 5000, ""),
        ("", ""),
    ],
)
def test_only_known_licences_are_expressions(text: str, expected: str) -> None:
    assert licenses.expression(text) == expected


def test_labels_are_read_without_trust() -> None:
    assert labels_of(b'{"config": {"Labels": {"a": "b", "c": 1, "d": "\\ud800"}}}') == {"a": "b"}
    for text in (b"", b"[]", b'{"config": null}', b'{"config": {"Labels": null}}', b'{"config": {"Labels": []}}'):
        assert labels_of(text) == {}


def test_file_names_are_plain() -> None:
    image = inventory("../my image", "1.0/2", [])
    assert file_name(image, "x86_64", "spdx", "kvm") == "_my_image.x86_64-1.0_2-kvm.containers.spdx.json"
