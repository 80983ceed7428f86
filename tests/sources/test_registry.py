"""What podman can pull from an odd registry is pulled: the first time, later, and as it is locked.

The commands run as a user runs them, against a registry in this process.
"""

import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from osc_containers.oci.digest import Digest
from tests.support import faults, images
from tests.support.docker_registry import DockerRegistry
from tests.support.fault_registry import Answer, Exchange, Fault, Request
from tests.support.workplace import Workplace

IMAGE = images.image(images.random_layer("odd", 5_000))
OTHER = images.image(images.random_layer("other", 500))
ARM64 = images.image(images.random_layer("arm64", 500), platform=images.ARM64)


# Digests


def is_by_digest(request: Request) -> bool:
    return "/manifests/sha" in request.path


def claiming(digest: Digest) -> Fault:
    """Let the registry claim another digest than that of what it sends."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.answer()
        answer.headers["Docker-Content-Digest"] = str(digest)
        exchange.send(answer)

    return fault


@pytest.mark.parametrize(
    ("status", "tag"), [(404, "1.0"), (404, f"1.0@{IMAGE.digest}"), (400, "1.0"), (405, "1.0"), (501, "1.0")]
)
def test_a_registry_may_serve_manifests_by_tag_only(workplace: Workplace, status: int, tag: str) -> None:
    workplace.registry.push(IMAGE, "team/app:1.0")
    workplace.registry.script = faults.on(faults.status(status), is_by_digest)
    workplace.use(f'name="app" tag="{tag}"')
    workplace.pull(expected=IMAGE)


def test_a_tag_that_moves_is_followed_without_requests_by_digest(workplace: Workplace) -> None:
    workplace.registry.script = faults.on(faults.status(404), is_by_digest)
    workplace.registry.push(IMAGE, "team/app:1.0")
    workplace.succeed("prefetch")
    workplace.registry.push(OTHER, "team/app:1.0")
    assert OTHER.digest.short in workplace.fail("outdated")
    for archive in workplace.directory.glob("*archive"):
        archive.unlink()
    output = workplace.fail("prefetch", "--locked")
    assert f"no manifest {IMAGE.digest} at {workplace.registry.host}: HTTP 404" in output
    assert f"tag '1.0' names {OTHER.digest} now: run the prefetch without 'locked'" in output
    workplace.pull(expected=OTHER)
    workplace.use(f'name="app" tag="1.0@{IMAGE.digest}"')
    assert f"names {OTHER.digest} now: correct the digest in the description" in workplace.fail("prefetch")


@pytest.mark.parametrize("method", ["HEAD", "GET", "both"])
def test_what_is_sent_counts_and_not_what_a_header_claims(workplace: Workplace, method: str) -> None:
    workplace.registry.push(IMAGE, "team/app:1.0")
    workplace.registry.script = faults.on(
        claiming(OTHER.digest), lambda request: request.method in (method, *(("HEAD", "GET") * (method == "both")))
    )
    output = workplace.pull(expected=IMAGE)
    assert (f"says {OTHER.digest}, but what it sends is {IMAGE.digest}" in output) == (method != "HEAD")


def test_a_manifest_that_an_index_lists_must_come_by_digest(workplace: Workplace) -> None:
    workplace.registry.push(images.index(IMAGE, ARM64), "team/app:1.0")
    workplace.registry.script = faults.on(faults.status(404), is_by_digest)
    output = workplace.fail("prefetch")
    assert f"no manifest {IMAGE.digest} at" in output
    assert "the index of tag '1.0' lists it, and it can be had by its digest only: push the image again" in output


# Platforms


def unnamed(**changes: str | None) -> images.Image:
    return images.image(images.random_layer("unnamed", 500), config_changes=changes)


def listed(image: images.Image, **changes: str) -> images.Image:
    """Return an index that lists an image for amd64, or another platform, whatever its configuration says."""
    return images.index(ARM64, replace(image, platform=images.AMD64._replace(**changes)))


@pytest.mark.parametrize(
    ("image", "warning"),
    [
        (unnamed(os="", architecture=""), "its config names no platform; taken for linux/amd64"),
        (unnamed(os=None, architecture=None), "its config names no platform"),
        (unnamed(os=None), "its config names no operating system"),
        (unnamed(architecture=""), "its config names no architecture"),
        (listed(unnamed(os="", architecture="")), ""),
        (images.index(listed(unnamed(architecture=None))), ""),
        (listed(unnamed(os="", architecture=""), os="", architecture=""), "its config names no platform"),
        (listed(ARM64), "its config is for linux/arm64/v8, but its index lists it for linux/amd64; taken"),
    ],
)
def test_an_image_without_platform_or_with_another_is_pulled(
    workplace: Workplace, image: images.Image, warning: str
) -> None:
    workplace.registry.push(image, "team/app:1.0")
    output = workplace.pull(expected=image)
    assert warning in output
    assert ("config" in output) == bool(warning)


# Indexes


def labelled(image: images.Image, **properties: object) -> images.Image:
    """Return an artifact or an image as an entry for amd64, with more properties."""
    return replace(image, platform=images.AMD64, entry=properties)


HELM, ARTIFACT = images.helm_chart(), images.artifact()
ORAS = replace(ARTIFACT, media_type="application/vnd.oci.artifact.manifest.v1+json")


@pytest.mark.parametrize(
    "index",
    [
        images.index(labelled(ARTIFACT, artifactType="application/vnd.example.thing"), IMAGE),
        images.index(labelled(HELM), labelled(ARTIFACT), IMAGE),
        images.index(replace(HELM, platform=None), replace(IMAGE, platform=None)),
        images.index(labelled(ORAS), labelled(HELM, artifactType="application/vnd.cncf.helm.config.v1+json"), IMAGE),
        images.index(labelled(images.attestation(IMAGE), annotations={}), IMAGE),
        images.index(labelled(IMAGE, artifactType="application/vnd.oci.image.config.v1+json"), OTHER),
        images.index(images.index(labelled(HELM), IMAGE)),
        images.index(images.index(ARM64), images.index(HELM), images.index(labelled(HELM), IMAGE)),
    ],
)
def test_artifacts_in_an_index_are_passed_over(workplace: Workplace, index: images.Image) -> None:
    workplace.registry.push(index, "team/app:1.0")
    workplace.pull(expected=index)
    assert str(IMAGE.digest) in (workplace.directory / "containers.lock").read_text()


@pytest.mark.parametrize(
    ("index", "is_direct"),
    [
        (images.index(IMAGE, ARM64), False),
        (images.index(ARM64, labelled(images.attestation(IMAGE), annotations={}), IMAGE), True),
        (images.index(IMAGE, labelled(HELM)), False),
        (images.index(labelled(HELM, artifactType="a/b"), IMAGE), True),
        (images.index(images.index(labelled(HELM), IMAGE)), True),
        (images.index(replace(IMAGE, platform=None)), False),
        (images.index(replace(HELM, platform=None), replace(IMAGE, platform=None)), True),
        (images.index(replace(IMAGE, platform=images.AMD64._replace(os=""))), True),
    ],
)
def test_an_archive_leads_engines_to_the_image(workplace: Workplace, index: images.Image, is_direct: bool) -> None:
    workplace.registry.push(index, "team/app:1.0")
    workplace.pull(expected=index)
    with tarfile.open(next(workplace.directory.glob("*archive"))) as archive:
        file = archive.extractfile("index.json")
        assert file
        (entry,) = json.load(file)["manifests"]
    assert (entry["digest"] == str(IMAGE.digest)) == is_direct


def test_an_index_of_artifacts_alone_is_reported(workplace: Workplace) -> None:
    workplace.registry.push(images.index(labelled(HELM), labelled(ARTIFACT)), "team/app:1.0")
    assert "not an image but an artifact of type 'application/vnd.cncf.helm" in workplace.fail("prefetch")


V2 = images.image(images.random_layer("v2", 500), platform=images.AMD64._replace(variant="v2"))
WINDOWS = replace(OTHER, platform=images.AMD64._replace(os="windows"))


def test_platforms_that_nothing_selects_are_reported(workplace: Workplace) -> None:
    workplace.registry.push(images.index(V2, WINDOWS), "team/app:1.0")
    output = workplace.fail("prefetch")
    assert "no image for linux/amd64 (in kiwi: x86_64, amd64); available: linux/amd64/v2, windows/amd64; no " in output
    assert "no value of 'arch' selects any of these; name the image for linux/amd64/v2 by its own digest" in output
    assert f"tag='{V2.digest}'" in output
    workplace.use(f'name="app" tag="{V2.digest}"')
    assert "it is for linux/amd64/v2, expected linux/amd64; taken" in workplace.pull(expected=V2)
    workplace.registry.push(images.index(V2, ARM64), "team/app:1.0")
    workplace.use('name="app" tag="1.0"')
    assert "list the container's architectures in its 'arch' attribute" in workplace.fail("prefetch")


@pytest.mark.parametrize("media_type", ["binary/octet-stream", "text/html", "application/vnd.example", None])
@pytest.mark.parametrize("is_index", [False, True])
def test_the_shape_of_a_manifest_counts_and_not_its_content_type(
    workplace: Workplace, media_type: str | None, is_index: bool
) -> None:
    image = images.image(images.random_layer("untyped", 500), media_types=False)
    image = images.index(image, ARM64, media_types=False) if is_index else image
    workplace.registry.push(image, "team/app:1.0")

    def relabel(exchange: Exchange) -> None:
        answer = exchange.answer()
        answer.headers.pop("Content-Type", None)
        answer.headers |= {"Content-Type": media_type} if media_type else {}
        exchange.send(answer)

    workplace.registry.script = lambda request: relabel
    workplace.pull(expected=image)


# Answers of something else than a registry

PAGES = {
    "typed": ("text/html; charset=utf-8", b"<!DOCTYPE html>\n<title>Sign in</title>"),
    "xhtml": ("application/xhtml+xml", b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'/>"),
    "untyped": ("application/json", b"\xef\xbb\xbf\n <HTML><body>Sign in</body></HTML>"),
    "empty": ("text/html", b""),
}


def page(content_type: str, body: bytes) -> Fault:
    return lambda exchange: exchange.send(
        Answer(status=200, headers={"Content-Type": content_type, "Content-Length": str(len(body))}, body=body)
    )


REQUESTS: dict[str, Callable[[Request], bool]] = {
    "a manifest": lambda request: "/manifests/" in request.path,
    "a token from the token server": lambda request: request.path == "/token",
    "a blob": lambda request: request.is_blob,
}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("expectation", REQUESTS)
def test_a_web_page_is_named_and_not_asked_for_again(workplace: Workplace, name: str, expectation: str) -> None:
    workplace.registry.push(IMAGE, "team/app:1.0")
    workplace.registry.auth = "bearer"
    workplace.registry.script = faults.on(page(*PAGES[name]), REQUESTS[expectation])
    output = workplace.fail("prefetch")
    assert f"http://{workplace.registry.host}: got a web page (HTML), expected {expectation}; open" in output
    assert "tried" not in output
    matching = [request for request in workplace.registry.requests if REQUESTS[expectation](request)]
    assert len({request.path for request in matching}) == len(matching)


@pytest.mark.parametrize("length", [None, "whole"])
def test_a_page_as_long_as_the_layer_is_named(workplace: Workplace, length: str | None) -> None:
    workplace.registry.push(IMAGE, "team/app:1.0")
    layer = IMAGE.blobs[1]
    body = b"<html>".ljust(len(layer) if length else len(layer) - 7)

    def send(exchange: Exchange) -> None:
        headers = {"Content-Length": str(len(body))} if length else {"Connection": "close"}
        exchange.send(Answer(status=200, headers=headers, body=body))

    workplace.registry.script = faults.on(send, lambda request: Digest.of(layer).hex in request.path)
    assert "got a web page (HTML), expected a blob" in workplace.fail("prefetch")
    assert sum(Digest.of(layer).hex in request.path for request in workplace.registry.requests) == 1


@pytest.mark.parametrize(
    ("expectation", "body", "problem"),
    [
        (
            "a manifest",
            b'{"error": "log in", "url": "https://x"}',
            "the properties 'error', 'url', expected the manifest",
        ),
        (
            "a manifest",
            b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "gone"}]}',
            "got an error although the status is 200 ('MANIFEST_UNKNOWN', 'gone')",
        ),
        ("a manifest", b"{}", "got media type 'application/json' and no properties, expected the manifest"),
        ("a token from the token server", b'{"error": "log in"}', "got no token"),
        ("a token from the token server", b'{"token": 7}', "token: got a number, expected a string"),
    ],
)
def test_json_of_something_else_is_not_asked_for_again(
    workplace: Workplace, expectation: str, body: bytes, problem: str
) -> None:
    workplace.registry.push(IMAGE, "team/app:1.0")
    workplace.registry.auth = "bearer"
    workplace.registry.script = faults.on(page("application/json", body), REQUESTS[expectation])
    output = workplace.fail("prefetch")
    assert problem in output
    assert "tried" not in output


def test_a_login_to_the_network_is_named(workplace: Workplace) -> None:
    workplace.registry.script = lambda request: faults.status(511)
    assert "HTTP 511; the network wants a login of its own: open any page in a browser" in workplace.fail("prefetch")
    assert len(workplace.registry.requests) == 1


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_an_index_with_other_digests_is_refused_before_layers_are_fetched(workplace: Workplace, algorithm: str) -> None:
    digest = Digest.of(IMAGE.raw, algorithm)
    index = images.index(labelled(IMAGE, digest=str(digest)), ARM64)
    workplace.registry.push(index, "team/app:1.0")
    workplace.registry.manifests["team/app", str(digest)] = (IMAGE.raw, IMAGE.media_type)
    output = workplace.fail("prefetch")
    assert f"the index lists the image as {digest}, and engines find it by sha256 only" in output
    assert not any(request.is_blob for request in workplace.registry.requests)


@pytest.mark.integration
@pytest.mark.parametrize(
    "image", [unnamed(os="", architecture=""), unnamed(os=None), listed(unnamed(os="", architecture="")), listed(ARM64)]
)
def test_what_skopeo_copies_from_a_real_registry_is_pulled(
    workplace: Workplace, docker_registry: DockerRegistry, image: images.Image, tmp_path: Path
) -> None:
    name = docker_registry.push(image, f"odd/{image.digest.short}:1.0")
    skopeo = ["skopeo", "--override-arch=amd64", "copy", "--src-tls-verify=false", f"docker://{name}"]
    subprocess.run([*skopeo, f"dir:{tmp_path}/copy"], check=True, capture_output=True)
    copied = Digest.of((tmp_path / "copy/manifest.json").read_bytes())
    workplace.use(f'name="{image.digest.short}" tag="1.0"', source=f"{docker_registry.host}/odd")
    workplace.pull(expected=image)
    assert str(copied) in (workplace.directory / "containers.lock").read_text()
