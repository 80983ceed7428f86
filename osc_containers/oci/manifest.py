"""Manifests, indexes and configurations of images.

Digests are computed over bytes, so each value keeps the bytes that it was parsed from. Nothing here writes JSON.

Spec: OCI image-spec v1.1 (manifest.md, image-index.md, config.md, descriptor.md); Docker's "Image Manifest Version 2,
Schema 2".
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from osc_containers.formats import strict_json
from osc_containers.formats.strict_json import Fields
from osc_containers.oci import platform as platforms
from osc_containers.oci.digest import Digest
from osc_containers.oci.platform import Platform

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = (INDEX, DOCKER_LIST)
MANIFEST_TYPES = (MANIFEST, DOCKER_MANIFEST)

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
CONFIG_TYPES = ("application/vnd.oci.image.config.v1+json", DOCKER_CONFIG)
_OLD_CONFIG_TYPES = ("", "application/json", "application/octet-stream", "text/html")
"""Types of configurations in Docker manifests from around 2016; engines still load them."""
# The rest of a type says how the layer is compressed or encrypted; `quirk` judges that.
_LAYER_PREFIXES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)

MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest or index; registries have the same limit (distribution-spec v1.1, "Pushing Manifests")."""
CONFIG_LIMIT = 16 << 20
"""Bytes of a configuration."""
# Bounds for hostile documents. No engine can mount nearly as many layers.
LAYER_COUNT_LIMIT = 1000
INDEX_COUNT_LIMIT = 10_000

# RFC 3339, 5.6, where 'T' and 'Z' may be in lower case.
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,12})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_VENDOR_TREE = "application/vnd."
"""What the media types of all formats begin with that are made for registries (RFC 6838, 3.2)."""
_UNSPECIFIC = ("", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain")
"""Types for files of unknown type; some builders write them into the document."""
_ATTESTATION = "vnd.docker.reference.type"


class NotAnImageError(ValueError):
    """A document is well-formed, but belongs to something else than an image."""


class Descriptor(NamedTuple):
    """The reference to a blob in a manifest or index; `size` is in bytes.

    `is_image` is about entries of an index: false for attestations and artifacts that are marked as such.

    Descriptors are equal if they refer to the same blob: digest, size and media type.
    """

    digest: Digest
    size: int
    media_type: str
    platform: Platform | None = None
    is_image: bool = True
    urls: tuple[str, ...] = ()

    # The entry of an index has a platform and annotations; the descriptor of the same manifest in a lock has none.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descriptor) and self[:3] == other[:3]

    # A tuple has its own `__ne__`, which would compare all fields.
    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:3])

    @classmethod
    def from_fields(cls, item: Fields) -> "Descriptor":
        """Return the descriptor in a JSON document.

        :raises ValueError: a property is missing or has the wrong type.
        """
        annotations = item.member("annotations") if "annotations" in item else Fields({}, "")
        media_type = item.line("mediaType", "")
        return cls(
            digest=cls.digest_of(item),
            size=item.size("size"),
            media_type=media_type,
            platform=_platform(item.member("platform")) if "platform" in item else None,
            is_image=_is_image(media_type, item.line("artifactType", "")) and _ATTESTATION not in annotations,
            urls=item.lines("urls"),
        )

    @staticmethod
    def digest_of(item: Fields) -> Digest:
        """Return the property `digest`.

        :raises ValueError: it is missing or is not a digest.
        """
        text = item.text("digest")
        try:
            return Digest.parse(text)
        except ValueError as error:
            raise ValueError(f"{item.path('digest')}: {error}") from None


def _is_image(media_type: str, artifact_type: str) -> bool:
    """Tell whether an entry of an index may be an image or an index, by what the entry says (descriptor.md)."""
    # The artifact type of an image is the type of its configuration. Other types of the vendor tree are other formats.
    is_known = media_type in INDEX_TYPES + MANIFEST_TYPES or not media_type.startswith(_VENDOR_TREE)
    return is_known and artifact_type in ("", *CONFIG_TYPES)


class Manifest(NamedTuple):
    """The manifest of an image for one platform."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def digest(self) -> Digest:
        """The digest of the manifest itself."""
        return Digest.of(self.raw)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The configuration and the layers without duplicates, in the order of the manifest."""
        return tuple({blob.digest: blob for blob in (self.config, *self.layers)}.values())


class Index(NamedTuple):
    """An OCI index or a Docker manifest list."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    skipped_entries: tuple[str, ...]
    """Why other entries of the index are unusable; that does not prevent the use of `manifests`."""

    @property
    def digest(self) -> Digest:
        """The digest of the index itself."""
        return Digest.of(self.raw)


def parse_document(raw: bytes, media_type: str, where: str) -> Manifest | Index:
    """Parse a manifest or an index. Error messages start with `where`.

    `media_type` is the type that the source declares, possibly empty; a type in the document takes precedence, and what
    contradicts its properties does not count.

    :raises NotAnImageError: the document belongs to an artifact.
    :raises ValueError: the document is malformed, or is not the manifest or index of an image.
    """
    if len(raw) > MANIFEST_LIMIT:
        raise ValueError(f"{where}: got a manifest of {len(raw)} bytes, expected at most {MANIFEST_LIMIT}")
    document = strict_json.load(raw, where)
    # Version 1 is a different format, which engines no longer load. Some OCI documents have no version.
    version = document.size("schemaVersion") if "schemaVersion" in document else 2
    if version != 2:
        raise ValueError(f"{where}: got schemaVersion {version}, expected 2; push the image again with a current tool")
    kind = _type_of(document, media_type.partition(";")[0].strip())
    if kind in INDEX_TYPES:
        return _index(document, raw, kind)
    if kind in MANIFEST_TYPES:
        return _manifest(document, raw, kind)
    keys = f" and {_keys(document)}" if kind in _UNSPECIFIC else ""
    raise ValueError(f"{where}: got media type {kind[:120]!r}{keys}, expected the manifest or index of an image")


def _keys(document: Fields) -> str:
    """Describe the keys of a document that is something else: of the error of a server, or of a portal in between."""
    keys = ", ".join(repr(key[:40]) for key in list(document.values)[:5])
    return f"the properties {keys}" if keys else "no properties"


def _type_of(document: Fields, declared: str) -> str:
    """Return the media type of a document: its own, or else the declared one, if it agrees with the properties.

    The type is optional in OCI documents (manifest.md), and servers send files of unknown type with any type.
    """
    own = document.line("mediaType", "")
    if own not in _UNSPECIFIC:
        return own
    if "manifests" in document and "config" not in document and "layers" not in document:
        return declared if declared in INDEX_TYPES else INDEX
    if "config" in document and "layers" in document and "manifests" not in document:
        if declared in MANIFEST_TYPES:
            return declared
        config = document.member("config").line("mediaType", "")
        # Engines refuse an OCI manifest with Docker's configuration, so this one must be Docker's.
        return DOCKER_MANIFEST if config == DOCKER_CONFIG else MANIFEST
    return declared or own


def _refuse_other_shapes(document: Fields, *own: str) -> None:
    """Refuse documents that a program could take for another type, as engines do, too (CVE-2021-41190)."""
    keys = [key for key in ("config", "fsLayers", "history", "layers", "manifests") if key in document]
    if set(keys) - set(own):
        raise ValueError(f"{document.where}: got {', '.join(keys)}, expected only {', '.join(own)}")


def _index(document: Fields, raw: bytes, media_type: str) -> Index:
    _refuse_other_shapes(document, "manifests")
    manifests = []
    skipped_entries = []
    for item in _items(document, "manifests", INDEX_COUNT_LIMIT):
        try:
            manifests.append(Descriptor.from_fields(item))
        except ValueError as error:
            # An entry for another platform may use a digest algorithm that does not exist yet.
            skipped_entries.append(str(error).removeprefix(f"{document.where}: "))
    return Index(raw=raw, media_type=media_type, manifests=tuple(manifests), skipped_entries=tuple(skipped_entries))


def _manifest(document: Fields, raw: bytes, media_type: str) -> Manifest:
    _refuse_other_shapes(document, "config", "layers")
    config = Descriptor.from_fields(document.member("config"))
    # Helm charts, signatures and other artifacts have manifests, too. The type of the configuration tells them apart.
    if config.media_type not in CONFIG_TYPES + (_OLD_CONFIG_TYPES if media_type == DOCKER_MANIFEST else ()):
        kind = document.line("artifactType", "") or config.media_type
        raise NotAnImageError(
            f"{document.where}: not an image but an artifact of type {kind[:120]!r}; use the reference of an image"
        )
    layers = tuple(Descriptor.from_fields(item) for item in _items(document, "layers", LAYER_COUNT_LIMIT))
    for number, layer in enumerate(layers):
        if not layer.media_type.startswith(_LAYER_PREFIXES):
            raise NotAnImageError(
                f"{document.where}: layers[{number}]: got media type {layer.media_type[:99]!r}, expected a layer"
            )
    if config.size > CONFIG_LIMIT:
        raise ValueError(f"{document.where}: got a config of {config.size} bytes, expected at most {CONFIG_LIMIT}")
    # A blob that is listed twice is stored once, so its size must be unambiguous.
    sizes: dict[Digest, int] = {}
    for blob in (config, *layers):
        if sizes.setdefault(blob.digest, blob.size) != blob.size:
            raise ValueError(
                f"{document.where}: {blob.digest} has different sizes, {sizes[blob.digest]} and {blob.size}"
            )
    return Manifest(raw=raw, media_type=media_type, config=config, layers=layers)


def _items(document: Fields, key: str, limit: int) -> tuple[Fields, ...]:
    items = document.members(key)
    if len(items) > limit:
        raise ValueError(f"{document.where}: {key}: got {len(items)} entries, expected at most {limit}")
    return items


def _platform(item: Fields) -> Platform:
    return Platform(item.line("os", ""), item.line("architecture", ""), item.line("variant", ""))


def candidates(index: Index, target: Platform, where: str) -> tuple[Descriptor, ...]:
    """Return the entries of `index` that fit the platform `target` best, in their order: engines take the first image.

    If none fits, return those whose platform is unknown and may be `target`. Their configuration has the platform.

    :raises ValueError: there is no such entry. The message lists the available platforms.
    """
    entries = [entry for entry in index.manifests if entry.is_image]
    best = _best([(platforms.rank(target, entry.platform), entry) for entry in entries if entry.platform])
    unknown = tuple(entry for entry in entries if _may_fit(entry, target))
    if best or unknown:
        return best or unknown
    # Entries of the platform "unknown/unknown" are attestations, even if they lack the annotation.
    others = {entry.platform for entry in entries if entry.platform and entry.platform.os != "unknown"}
    available = ", ".join(sorted(map(str, others)))[:400] or "none"
    if index.skipped_entries:
        available += f", and {len(index.skipped_entries)} unusable ({index.skipped_entries[0][:300]})"
    advice = "list the container's architectures in its 'arch' attribute"
    unselectable = sorted(str(platform) for platform in others if not platforms.is_selectable(platform))
    if unselectable and len(unselectable) == len(others):
        advice = f"no value of 'arch' selects any of these; {_other_way(entries, target)}"
    elif unselectable:
        advice += f", where no value selects {', '.join(unselectable)[:400]}"
    raise ValueError(
        f"{where}: no image for {target} (in kiwi: {', '.join(platforms.architectures_of(target))}); available: "
        f"{available}; {advice}"
    )


def _other_way(entries: Iterable[Descriptor], target: Platform) -> str:
    """Say how to get an image that no architecture selects."""
    for entry in entries:
        if entry.platform and entry.platform[:2] == target[:2]:
            return f"name the image for {entry.platform} by its own digest, tag='{entry.digest}', or use another one"
    return "use another image, or ask its author for one"


def engine_choice(index: Index, target: Platform) -> Digest | None:
    """Return the entry of `index` that podman takes on a machine of the platform `target`, whatever it is.

    Source: containers/image, manifest/oci1_index.go.
    """
    best = _best((platforms.rank(target, entry.platform), entry) for entry in index.manifests if entry.platform)
    # If none fits, podman takes the first entry that names no platform.
    best = best or tuple(entry for entry in index.manifests if entry.platform is None)
    return best[0].digest if best else None


def _best(ranked: Iterable[tuple[int | None, Descriptor]]) -> tuple[Descriptor, ...]:
    fitting = [(rank, entry) for rank, entry in ranked if rank is not None]
    best = min((rank for rank, _ in fitting), default=None)
    return tuple(entry for rank, entry in fitting if rank == best)


def _may_fit(entry: Descriptor, target: Platform) -> bool:
    """Tell whether the platform of an entry is unknown, wholly or in part, and may be `target`."""
    if entry.platform and entry.platform.os and entry.platform.architecture:
        return False
    is_document = entry.media_type in INDEX_TYPES + MANIFEST_TYPES
    return is_document and platforms.may_fit(target, entry.platform or Platform("", ""))


def platform_of(config: bytes, where: str) -> Platform:
    """Return the platform that the configuration of an image declares.

    :raises ValueError: it is not a configuration.
    """
    return _platform(strict_json.load(config, where))


def created_of(config: bytes, where: str) -> str:
    """Return the creation date in a configuration in the format of RFC 3339; empty if it is missing or invalid.

    :raises ValueError: it is not a configuration.
    """
    # The date is only displayed, so an invalid one is no reason to refuse the image.
    created = strict_json.load(config, where).values.get("created")
    return created if isinstance(created, str) and is_date(created) else ""


def is_date(text: str) -> bool:
    """Return whether `text` looks like an RFC 3339 date."""
    return _DATE.fullmatch(text) is not None
