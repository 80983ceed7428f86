"""What is unusual about an image, so that some engines cannot load it, although its manifest is valid.

`kiwi.backend` says which engine cannot load what; `scripts/engines` tries it.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from osc_containers.oci import image_config
from osc_containers.oci.manifest import DOCKER_CONFIG, DOCKER_MANIFEST, MANIFEST, Descriptor, Manifest

LAYER_LIMIT = 125
"""Layers of an image in the classic store of docker (moby, layer/layer.go)."""
MOUNT_LIMIT = 129
"""Layers that podman could mount before release 5."""
STORE_MOUNT_LIMIT = 50
"""Layers in a read-only store that podman could mount before release 5: the options of a mount must fit in a page, and
the layers of such a store have long paths in them, of 65 bytes and the name of the profile."""
STACK_LIMIT = 500
"""Layers that overlayfs can mount (Linux, fs/overlayfs: OVL_MAX_STACK)."""
_OCI = "application/vnd.oci."
_TAR = "tar"
_COMPRESSIONS = ("", "+gzip", "+zstd", ".gzip", ".zstd")
"""What may follow `tar` in the media type of a layer."""
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_RARE = ("bzip2", "xz")
MAGIC_SIZE = max(map(len, _MAGIC))
"""Bytes at the start of a layer that tell how it is compressed."""


class Quirk(Enum):
    """A kind of image that some engines cannot load; the value is a phrase for documentation."""

    URLS = "layers with URLs"
    DOCKER_CONFIG = "an OCI manifest with Docker's config type"
    OCI_LAYERS = "a Docker manifest with OCI layer types"
    DOCKER_ZSTD = "a Docker manifest with zstd"
    CONFIG_DIGEST = "a config with another digest than sha256"
    LAYER_DIGEST = "layers with other digests than sha256"
    MANY_LAYERS = f"more than {LAYER_LIMIT} layers"
    TOO_MANY_TO_MOUNT = f"more than {MOUNT_LIMIT} layers"
    MANY_IN_STORE = f"more than {STORE_MOUNT_LIMIT} layers"
    TOO_MANY_TO_STACK = f"more than {STACK_LIMIT} layers"
    ENCRYPTED = "encrypted layers"
    UNKNOWN_LAYER = "layers of an unknown type"
    HIDDEN_COMPRESSION = "compressed layers under a type that says nothing of it"
    RARE_COMPRESSION = f"layers that are compressed with {' or '.join(_RARE)}"
    CONFIG_TYPES = "a configuration with values of the wrong type"
    DIFF_IDS = "a configuration without a sha256 diff_id for each layer"

    @property
    def remedy(self) -> str:
        """What can be done about the image itself."""
        return _REMEDIES.get(self, "build or push the image again with a current tool")


_REMEDIES = {
    Quirk.URLS: "push a copy of the image without them",
    Quirk.MANY_LAYERS: "build the image with fewer layers (--squash)",
    Quirk.TOO_MANY_TO_MOUNT: "build the image with fewer layers (--squash)",
    Quirk.MANY_IN_STORE: "build the image with fewer layers (--squash)",
    Quirk.TOO_MANY_TO_STACK: "build the image with fewer layers (--squash)",
    Quirk.ENCRYPTED: "decrypt the image and push it again: `skopeo copy --decryption-key`",
}


class Found(NamedTuple):
    """A quirk of an image, and where it is in the manifest."""

    quirk: Quirk
    detail: str


def find(manifest: Manifest) -> tuple[Found, ...]:
    """Return the quirks of an image that its manifest shows, each of them once."""
    return tuple(Found(quirk=quirk, detail=detail) for quirk, detail in _find(manifest))


def _find(manifest: Manifest) -> Iterator[tuple[Quirk, str]]:
    is_docker = manifest.media_type == DOCKER_MANIFEST
    if manifest.media_type == MANIFEST and manifest.config.media_type == DOCKER_CONFIG:
        yield Quirk.DOCKER_CONFIG, f"an OCI manifest with a config of type {DOCKER_CONFIG}, a mix that it refuses"
    if manifest.config.digest.algorithm != "sha256":
        yield Quirk.CONFIG_DIGEST, f"the config has a {manifest.config.digest.algorithm} digest, and sha256 is expected"
    kinds: tuple[tuple[Quirk, Callable[[Descriptor], bool], str], ...] = (
        (Quirk.URLS, lambda layer: bool(layer.urls), "has 'urls', and is downloaded from there at the first boot"),
        (Quirk.LAYER_DIGEST, lambda layer: layer.digest.algorithm != "sha256", "has no sha256 digest"),
        (
            Quirk.OCI_LAYERS,
            lambda layer: is_docker and layer.media_type.startswith(_OCI),
            "in a Docker manifest is {}, a mix that it refuses",
        ),
        (Quirk.DOCKER_ZSTD, lambda layer: is_docker and layer.media_type.endswith("tar.zstd"), "is {}"),
        (Quirk.ENCRYPTED, lambda layer: layer.media_type.endswith("+encrypted"), "is {}, which needs a key"),
        (Quirk.UNKNOWN_LAYER, _is_unknown, "is {}, which it does not know"),
    )
    for quirk, matches, what in kinds:
        numbers = [number for number, layer in enumerate(manifest.layers) if matches(layer)]
        if numbers:
            more = f" ({len(numbers) - 1} more likewise)" if len(numbers) > 1 else ""
            kind = manifest.layers[numbers[0]].media_type[:120]
            yield quirk, f"layers[{numbers[0]}] {what.format(kind)}{more}"
    if len(manifest.layers) > LAYER_LIMIT:
        yield Quirk.MANY_LAYERS, f"{len(manifest.layers)} layers, at most {LAYER_LIMIT} are possible"
    if len(manifest.layers) > MOUNT_LIMIT:
        yield Quirk.TOO_MANY_TO_MOUNT, f"{len(manifest.layers)} layers, at most {MOUNT_LIMIT} can be mounted"
    if len(manifest.layers) > STORE_MOUNT_LIMIT:
        yield Quirk.MANY_IN_STORE, f"{len(manifest.layers)} layers, at most {STORE_MOUNT_LIMIT} can be mounted"
    if len(manifest.layers) > STACK_LIMIT:
        yield Quirk.TOO_MANY_TO_STACK, f"{len(manifest.layers)} layers, at most {STACK_LIMIT} can be mounted"


def _is_unknown(layer: Descriptor) -> bool:
    # A type without `tar` is its own suffix, and therefore unknown.
    suffix = layer.media_type.rpartition(_TAR)[2]
    return suffix not in _COMPRESSIONS and not suffix.endswith("+encrypted")


def find_in_config(config: bytes, manifest: Manifest) -> tuple[Found, ...]:
    """Return the quirks of an image that its configuration shows."""
    found = []
    try:
        image_config.check_types(config)
    except ValueError as error:
        found.append(Found(quirk=Quirk.CONFIG_TYPES, detail=str(error)))
    try:
        image_config.diff_ids(config, len(manifest.layers))
    except ValueError as error:
        found.append(Found(quirk=Quirk.DIFF_IDS, detail=str(error)))
    return tuple(found)


def find_in_layers(manifest: Manifest, read_start: Callable[[Descriptor], bytes]) -> tuple[Found, ...]:
    """Return the quirks of an image that only the bytes of its layers show, each of them once.

    `read_start` returns the first `MAGIC_SIZE` bytes of a layer, or fewer if it is not there.
    """
    found: dict[Quirk, str] = {}
    for number, layer in enumerate(manifest.layers):
        start = read_start(layer)
        name = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")
        # A type that ends so says that the layer is not compressed. containerd believes it, podman looks at the bytes.
        if name and layer.media_type.endswith(_TAR):
            detail = f"layers[{number}] is {layer.media_type[:120]}, but is compressed with {name}"
            found.setdefault(Quirk.HIDDEN_COMPRESSION, detail)
        if name in _RARE:
            found.setdefault(Quirk.RARE_COMPRESSION, f"layers[{number}] is compressed with {name}")
    return tuple(Found(quirk=quirk, detail=detail) for quirk, detail in found.items())
