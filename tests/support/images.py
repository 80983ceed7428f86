"""Generated container images: every kind that registries serve, in any size.

An `Image` is a manifest or an index with everything that it refers to. The same arguments give the same bytes on every
machine, so tests can compare archives and locks.

Spec: OCI image-spec v1.1; Docker's "Image Manifest Version 2, Schema 2".
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import zstandard

from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST
from osc_containers.oci.platform import Platform

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64", "v8")

Compression = Literal["none", "gzip", "zstd"]

_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_LAYER_SUFFIXES = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}
_DOCKER_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_LAYER_SUFFIXES = {"none": "", "gzip": ".gzip"}  # the format has no zstd
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_DOCKER_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer as registries store it; `diff_id` is the digest of the uncompressed tar archive."""

    content: bytes
    compression: Compression
    diff_id: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A manifest with its blobs, or an index with its children."""

    raw: bytes
    media_type: str
    platform: Platform | None = None
    annotations: Mapping[str, str] | None = None
    blobs: tuple[bytes, ...] = ()
    children: tuple["Image", ...] = ()
    entry: Mapping[str, object] | None = None
    """More properties of the entry for it in an index."""

    @property
    def digest(self) -> Digest:
        """The digest of the manifest or index."""
        return Digest.of(self.raw)

    def descriptor(self) -> dict[str, object]:
        """Return the entry for this image in an index."""
        entry = _descriptor(self.raw, self.media_type)
        if self.platform:
            parts = {"architecture": self.platform.architecture, "os": self.platform.os}
            entry["platform"] = parts | ({"variant": self.platform.variant} if self.platform.variant else {})
        return entry | ({"annotations": dict(self.annotations)} if self.annotations else {}) | dict(self.entry or {})

    def manifests(self) -> Iterator["Image"]:
        """Yield all manifests and indexes, each one after those that it refers to."""
        for child in self.children:
            yield from child.manifests()
        yield self


def layer(files: Mapping[str, bytes], *, compression: Compression = "gzip") -> Layer:
    """Return a layer with these files, owned by root and dated 1970; those in `bin` directories are executable."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o755 if "bin" in Path(name).parts else 0o644
            tar.addfile(member, io.BytesIO(content))
    return layer_of(archive.getvalue(), compression=compression)


def layer_of(archive: bytes, *, compression: Compression = "gzip") -> Layer:
    """Return the layer with this tar archive."""
    return Layer(content=_compress(archive, compression), compression=compression, diff_id=Digest.of(archive))


def random_layer(seed: str, size: int, *, compression: Compression = "none") -> Layer:
    """Return a layer with a file of `size` incompressible bytes, which depend on `seed` only."""
    return layer({f"srv/{seed}": hashlib.shake_256(seed.encode()).digest(size)}, compression=compression)


def _compress(content: bytes, compression: Compression) -> bytes:
    if compression == "gzip":
        return gzip.compress(content, compresslevel=1, mtime=0)
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=1).compress(content)
    return content


def image(
    *layers: Layer,
    platform: Platform = AMD64,
    docker: bool = False,
    media_types: bool = True,
    created: str = "1970-01-01T00:00:00Z",
    config_changes: Mapping[str, object] | None = None,
) -> Image:
    """Return an image in the format of OCI or Docker; without `media_types` its manifest does not declare its type.

    `config_changes` replaces properties of the configuration; those that are None are left out.
    """
    config: dict[str, object] = {
        "architecture": platform.architecture,
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin:/bin"]},
        "created": created,
        "history": [{"created": created, "created_by": f"layer {n}"} for n in range(len(layers))],
        "os": platform.os,
        "rootfs": {"diff_ids": [str(part.diff_id) for part in layers], "type": "layers"},
        "variant": platform.variant or None,
        **(config_changes or {}),
    }
    config = {name: value for name, value in config.items() if value is not None}
    manifest = _manifest(
        (_dumps(config), _DOCKER_CONFIG_TYPE if docker else _CONFIG_TYPE),
        [(part.content, _layer_type(part, docker)) for part in layers],
        DOCKER_MANIFEST if docker else MANIFEST,
        media_types=media_types,
    )
    return replace(manifest, platform=platform)


def _layer_type(part: Layer, docker: bool) -> str:
    if docker:
        return _DOCKER_LAYER_TYPE + _DOCKER_LAYER_SUFFIXES[part.compression]
    return _LAYER_TYPE + _LAYER_SUFFIXES[part.compression]


def index(*children: Image, docker: bool = False, media_types: bool = True) -> Image:
    """Return an OCI index or a Docker manifest list. Its children can be indexes, too."""
    kind = DOCKER_LIST if docker else INDEX
    document: dict[str, object] = {"schemaVersion": 2, "manifests": [child.descriptor() for child in children]}
    raw = _dumps(document | ({"mediaType": kind} if media_types else {}))
    return Image(raw=raw, media_type=kind, children=children)


def attestation(subject: Image) -> Image:
    """Return an attestation about an image, as BuildKit adds it to an index: with an unknown platform."""
    manifest = _manifest(
        (_dumps({"architecture": "unknown", "os": "unknown"}), _CONFIG_TYPE),
        [(_dumps({"subject": str(subject.digest)}), "application/vnd.in-toto+json")],
        MANIFEST,
    )
    annotations = {
        "vnd.docker.reference.digest": str(subject.digest),
        "vnd.docker.reference.type": "attestation-manifest",
    }
    return replace(manifest, platform=Platform("unknown", "unknown"), annotations=annotations)


def helm_chart() -> Image:
    """Return a Helm chart as `helm push` uploads it: an OCI manifest that is not an image."""
    return _manifest(
        (_dumps({"name": "chart", "version": "1.0.0"}), "application/vnd.cncf.helm.config.v1+json"),
        [(b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")],
        MANIFEST,
    )


def artifact() -> Image:
    """Return an artifact with an empty configuration (manifest.md, "Guidelines for Artifact Usage")."""
    return _manifest(
        (b"{}", "application/vnd.oci.empty.v1+json"),
        [(b"data", "application/vnd.example.data")],
        MANIFEST,
        artifact_type="application/vnd.example.thing",
    )


def _manifest(
    config: tuple[bytes, str],
    layers: list[tuple[bytes, str]],
    kind: str,
    *,
    media_types: bool = True,
    artifact_type: str = "",
) -> Image:
    document: dict[str, object] = {
        "schemaVersion": 2,
        "config": _descriptor(*config),
        "layers": [_descriptor(*part) for part in layers],
    }
    document |= {"mediaType": kind} if media_types else {}
    document |= {"artifactType": artifact_type} if artifact_type else {}
    return Image(raw=_dumps(document), media_type=kind, blobs=(config[0], *(content for content, _ in layers)))


def _descriptor(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


def _dumps(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, indent=2, sort_keys=True).encode()


def small(name: str, *, platform: Platform = AMD64, docker: bool = False) -> Image:
    """Return an image with two layers. All small images have the first one in common."""
    files = {f"etc/{name}": f"{name} for {platform}\n".encode()}
    return image(layer({"etc/base": b"base\n"}), layer(files), platform=platform, docker=docker)


def multi_platform(name: str, *, docker: bool = False) -> Image:
    """Return an image for amd64 and arm64. In the format of OCI it has an attestation, as current builders add it."""
    amd64, arm64 = (small(name, platform=platform, docker=docker) for platform in (AMD64, ARM64))
    return index(amd64, arm64, docker=True) if docker else index(amd64, arm64, attestation(amd64))


def write_layout(image: Image, directory: Path, name: str) -> None:
    """Write an OCI image layout that contains `image` with the name `name` (image-layout.md)."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for part in image.manifests():
        for content in (part.raw, *part.blobs):
            (blobs / Digest.of(content).hex).write_bytes(content)
    entry = image.descriptor() | {"annotations": {"org.opencontainers.image.ref.name": name}}
    (directory / "index.json").write_bytes(_dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_bytes(_dumps({"imageLayoutVersion": "1.0.0"}))
