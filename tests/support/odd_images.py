"""Images that registries serve, and that not every engine loads. `scripts/engines` tries each of them.

All have a file `/etc/odd` in their last layer.
"""

import bz2
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import zstandard

from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import DOCKER_MANIFEST, MANIFEST
from tests.support import images
from tests.support.images import Image, Layer

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
URL = "http://127.0.0.1:9/layer"
"""Nothing listens there."""

Change = Callable[[dict[str, Any]], object]


def changed(image: Image, change: Change) -> Image:
    """Return an image with another manifest, which `change` makes of the document."""
    document = json.loads(image.raw)
    change(document)
    return replace(image, raw=json.dumps(document, sort_keys=True).encode(), media_type=document["mediaType"])


def plain(
    count: int = 2, compression: images.Compression = "gzip", *, docker: bool = False, seed: str = "odd"
) -> Image:
    """Return an image with nothing odd. Engines recognize layers, so each `seed` has its own."""
    layers = [
        images.layer({"etc/odd": f"{seed} {number}\n".encode()}, compression=compression) for number in range(count)
    ]
    return images.image(*layers, docker=docker)


def with_urls(kind: str = OCI_LAYER + "+gzip", *, docker: bool = False, seed: str = "odd") -> Image:
    """Return an image whose last layer names an address that has it, too."""

    def change(document: dict[str, Any]) -> None:
        document["layers"][-1] |= {"urls": [URL], "mediaType": kind}

    return changed(plain(docker=docker, seed=seed), change)


def mixed(
    manifest: str, config: str, layer: str, compression: images.Compression = "gzip", *, seed: str = "odd"
) -> Image:
    """Return an image with these media types."""

    def change(document: dict[str, Any]) -> None:
        document["mediaType"] = manifest
        document["config"]["mediaType"] = config
        for each in document["layers"]:
            each["mediaType"] = layer

    return changed(plain(compression=compression, seed=seed), change)


def with_digests(algorithm: str, parts: tuple[str, ...] = ("config", "layers"), *, seed: str = "odd") -> Image:
    """Return an image that names its config or layers by other digests than sha256."""
    image = plain(seed=seed)
    digests = {str(Digest.of(blob)): f"{algorithm}:{hashlib.new(algorithm, blob).hexdigest()}" for blob in image.blobs}

    def change(document: dict[str, Any]) -> None:
        entries = [document["config"]] * ("config" in parts) + document["layers"] * ("layers" in parts)
        for each in entries:
            each["digest"] = digests[each["digest"]]

    return changed(image, change)


def mislabelled(label: str, content: images.Compression, *, seed: str = "odd") -> Image:
    """Return an image whose layers are compressed in another way than their media type says."""
    return mixed(MANIFEST, OCI_CONFIG, OCI_LAYER + label, content, seed=seed)


def with_layers(change: Callable[[Layer], bytes], label: str, *, seed: str = "odd") -> Image:
    """Return an image whose layers have other bytes, which `change` makes of them, and this end of their media type."""
    layers = [images.layer({"etc/odd": f"{seed} {number}\n".encode()}, compression="none") for number in range(2)]
    image = images.image(*(replace(layer, content=change(layer)) for layer in layers))

    def relabel(document: dict[str, Any]) -> None:
        for each in document["layers"]:
            each["mediaType"] = OCI_LAYER + label

    return changed(image, relabel)


def chunked(layer: Layer) -> bytes:
    """Return a layer in the way of zstd:chunked: several frames, and one without content at the end."""
    frames = [zstandard.ZstdCompressor().compress(part) for part in (layer.content[:600], layer.content[600:])]
    return b"".join([*frames, struct.pack("<II", 0x184D2A50, 8), b"contents"])


def with_config(seed: str, **changes: object) -> Image:
    """Return an image with other properties in its configuration."""
    layers = [images.layer({"etc/odd": f"{seed} {number}\n".encode()}) for number in range(2)]
    return images.image(*layers, config_changes=changes)


def without_platform(seed: str) -> Image:
    """Return an image whose configuration names no platform."""
    layer = images.layer({"etc/odd": seed.encode()})
    return images.image(layer, config_changes={"os": "", "architecture": ""})


# The keys are the rows of the table in docs/engines.md, in this order.
CASES: Mapping[str, Callable[[str], Image]] = {
    "OCI, gzip": lambda seed: plain(seed=seed),
    "OCI, not compressed": lambda seed: plain(compression="none", seed=seed),
    "OCI, zstd": lambda seed: plain(compression="zstd", seed=seed),
    "Docker, gzip": lambda seed: plain(docker=True, seed=seed),
    "OCI index": lambda seed: images.index(plain(seed=seed), images.small("other", platform=images.ARM64)),
    "no platform in the config": lambda seed: without_platform(seed),
    "index that lists an artifact first": lambda seed: images.index(
        replace(images.helm_chart(), platform=images.AMD64), plain(seed=seed)
    ),
    "index without platforms": lambda seed: images.index(replace(plain(seed=seed), platform=None)),
    "layer with URLs": lambda seed: with_urls(seed=seed),
    "layer with URLs, not distributable": lambda seed: with_urls(FOREIGN_LAYER, seed=seed),
    "layer with URLs, Docker": lambda seed: with_urls(DOCKER_LAYER, docker=True, seed=seed),
    "layer with URLs, Docker foreign": lambda seed: with_urls(DOCKER_FOREIGN_LAYER, docker=True, seed=seed),
    "not distributable layers without URLs": lambda seed: mixed(MANIFEST, OCI_CONFIG, FOREIGN_LAYER, seed=seed),
    "OCI manifest, Docker's config": lambda seed: mixed(MANIFEST, DOCKER_CONFIG, OCI_LAYER + "+gzip", seed=seed),
    "OCI manifest, Docker's layers": lambda seed: mixed(MANIFEST, OCI_CONFIG, DOCKER_LAYER, seed=seed),
    "OCI manifest, Docker's config and layers": lambda seed: mixed(MANIFEST, DOCKER_CONFIG, DOCKER_LAYER, seed=seed),
    "Docker manifest, OCI layers": lambda seed: mixed(DOCKER_MANIFEST, DOCKER_CONFIG, OCI_LAYER + "+gzip", seed=seed),
    "Docker manifest, OCI layers, zstd": lambda seed: mixed(
        DOCKER_MANIFEST, DOCKER_CONFIG, OCI_LAYER + "+zstd", "zstd", seed=seed
    ),
    "Docker manifest, OCI config": lambda seed: mixed(DOCKER_MANIFEST, OCI_CONFIG, DOCKER_LAYER, seed=seed),
    "Docker manifest, OCI config and layers": lambda seed: mixed(
        DOCKER_MANIFEST, OCI_CONFIG, OCI_LAYER + "+gzip", seed=seed
    ),
    "Docker manifest, zstd": lambda seed: mixed(
        DOCKER_MANIFEST, DOCKER_CONFIG, "application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd", seed=seed
    ),
    "sha512 for the config": lambda seed: with_digests("sha512", ("config",), seed=seed),
    "sha512 for the layers": lambda seed: with_digests("sha512", ("layers",), seed=seed),
    "sha384 for all": lambda seed: with_digests("sha384", seed=seed),
    "125 layers": lambda seed: plain(125, seed=seed),
    "126 layers": lambda seed: plain(126, seed=seed),
    "250 layers": lambda seed: plain(250, seed=seed),
    "gzip under a plain type": lambda seed: mislabelled("", "gzip", seed=seed),
    "zstd under a plain type": lambda seed: mislabelled("", "zstd", seed=seed),
    "not compressed under gzip's type": lambda seed: mislabelled("+gzip", "none", seed=seed),
    "zstd under gzip's type": lambda seed: mislabelled("+gzip", "zstd", seed=seed),
    "unknown layer type": lambda seed: mislabelled("+xz", "gzip", seed=seed),
    "zstd:chunked": lambda seed: with_layers(chunked, "+zstd", seed=seed),
    "bzip2 under a plain type": lambda seed: with_layers(lambda layer: bz2.compress(layer.content), "", seed=seed),
    "number as a label": lambda seed: with_config(seed, config={"Labels": {"a": 1}}),
    "text as the date": lambda seed: with_config(seed, created="yesterday"),
    "no diff_ids": lambda seed: with_config(seed, rootfs={"type": "layers", "diff_ids": []}),
    "encrypted layer type, though not encrypted": lambda seed: mislabelled("+gzip+encrypted", "gzip", seed=seed),
}
