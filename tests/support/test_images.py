"""The generated images are valid for our parser, a real registry and skopeo."""

import json
import subprocess
from pathlib import Path

import pytest

from osc_containers.oci.manifest import Index, parse_document
from osc_containers.oci.platform import Platform
from tests.support import images
from tests.support.docker_registry import DockerRegistry, StartRegistry
from tests.support.images import AMD64, ARM64, Image

IMAGES = {
    "oci": images.small("oci"),
    "docker": images.small("docker", docker=True),
    "zstd": images.image(images.layer({"etc/x": b"x"}, compression="zstd")),
    "plain": images.image(images.random_layer("plain", 5000)),
    "untyped": images.image(images.layer({"etc/x": b"x"}), media_types=False),
    "oci-index": images.multi_platform("oci"),
    "docker-list": images.multi_platform("docker", docker=True),
    "nested": images.index(images.multi_platform("nested")),
    "arm": images.index(*(images.small("arm", platform=Platform("linux", "arm", v)) for v in ("v6", "v7"))),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES.keys())
def test_our_parser_reads_the_images(image: Image) -> None:
    for part in image.manifests():
        if not part.annotations:
            parsed = parse_document(part.raw, part.media_type, "image")
            assert parsed.digest == part.digest
            assert parsed.media_type == part.media_type


@pytest.mark.parametrize("image", [images.helm_chart(), images.artifact()])
def test_an_artifact_is_not_an_image(image: Image) -> None:
    with pytest.raises(ValueError, match="not an image but an artifact"):
        parse_document(image.raw, image.media_type, "image")


def test_an_index_has_its_platforms() -> None:
    parsed = parse_document(IMAGES["oci-index"].raw, "", "image")
    assert isinstance(parsed, Index)
    assert [entry.platform for entry in parsed.manifests] == [AMD64, ARM64, Platform("unknown", "unknown")]
    assert [entry.is_image for entry in parsed.manifests] == [True, True, False]


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert images.multi_platform("oci") == IMAGES["oci-index"]
    assert images.random_layer("a", 9) != images.random_layer("b", 9)


@pytest.mark.integration
@pytest.mark.parametrize("name", IMAGES)
def test_a_registry_serves_the_bytes_that_were_pushed(docker_registry: DockerRegistry, name: str) -> None:
    image = IMAGES[name]
    reference = docker_registry.push(image, f"images/{name}:1.0")
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == image.raw


@pytest.mark.integration
def test_a_registry_can_require_tls_and_a_password(start_registry: StartRegistry, tmp_path: Path) -> None:
    registry = start_registry(tls=True, users={"ann": "secret"})
    image = IMAGES["oci"]
    reference = registry.push(image, "private/app:1.0")
    assert registry.authority
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca.crt").write_bytes(registry.authority.read_bytes())
    command = ["skopeo", "inspect", "--raw", f"--cert-dir={tmp_path}/certs", f"docker://{reference}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode
    assert "authentication required" in result.stderr
    assert subprocess.run([*command, "--creds=ann:secret"], check=True, capture_output=True).stdout == image.raw


@pytest.mark.integration
def test_a_registry_records_its_requests(start_registry: StartRegistry) -> None:
    registry = start_registry()
    image = IMAGES["oci"]
    reference = registry.push(image, "app:1.0")
    count = len(registry.requests())
    command = ["skopeo", "inspect", "--tls-verify=false", f"docker://{reference}"]
    assert json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["Digest"] == str(image.digest)
    blobs = [request for request in registry.requests()[count:] if request.is_blob]
    assert [request.written for request in blobs] == [len(image.blobs[0])]
    assert registry.blob_file(image.digest).read_bytes() == image.raw


@pytest.mark.integration
def test_skopeo_reads_a_layout(tmp_path: Path) -> None:
    images.write_layout(IMAGES["oci"], tmp_path / "layout", "app")
    command = ["skopeo", "inspect", f"oci:{tmp_path}/layout:app"]
    assert json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["Architecture"] == "amd64"
