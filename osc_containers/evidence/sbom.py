"""What is embedded in an image, as an SBOM: the containers, their layers, digests, sources, licences and signatures.

The same content gives the same bytes: ids are made from the content, and the time is that of the newest container.
"""

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from osc_containers import __version__
from osc_containers.evidence import licenses
from osc_containers.formats import strict_json
from osc_containers.lock.signature import RecordedSignature
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.reference import Reference

TOOL = "osc-containers"
FORMATS = {"spdx": "spdx", "cyclonedx": "cdx"}
"""The formats, and what the names of their files end with, before `.json`."""

_NAMESPACE = uuid.UUID("6f1f6c0e-3a1c-4a57-9f5b-3f1a4c1f2d10")
_EPOCH = "1970-01-01T00:00:00Z"
_PART = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*"
_URL = re.compile(rf"https?://[A-Za-z0-9.-]+(?::[0-9]{{1,5}})?(?:/{_PART})?(?:\?{_PART})?(?:#{_PART})?")
_URL_LENGTH = 500
_LABEL_LENGTH = 1000
_LABELS = "org.opencontainers.image."


class Component(NamedTuple):
    """One container: its name, the image for one kiwi architecture, and what is known of it.

    `digest` is what the reference resolved to; `labels` are those of the image's configuration.
    """

    reference: Reference
    arch: str
    digest: Digest
    image: Image
    created: str = ""
    labels: Mapping[str, str] = {}
    signatures: tuple[RecordedSignature, ...] = ()

    @property
    def key(self) -> str:
        """What distinguishes it from the others."""
        return f"{self.reference} ({self.arch})"

    @property
    def purl(self) -> str:
        """The package URL (purl-spec, type `oci`)."""
        name = self.reference.repository.rpartition("/")[2]
        qualifiers = {
            "arch": platform.of_architecture(self.arch).architecture,
            "repository_url": self.reference.name,
            **({"tag": self.reference.tag} if self.reference.tag else {}),
        }
        text = "&".join(f"{key}={quote(value, safe=':/')}" for key, value in sorted(qualifiers.items()))
        return f"pkg:oci/{quote(name, safe='')}@{quote(str(self.image.manifest.digest), safe=':')}?{text}"

    @property
    def version(self) -> str:
        """The tag or the digest of the reference."""
        return self.reference.tag or str(self.reference.digest)

    def label(self, name: str) -> str:
        """Return a label of the image-spec, shortened."""
        return self.labels.get(_LABELS + name, "")[:_LABEL_LENGTH]

    def url(self, name: str) -> str:
        """Return a label that is a web address; else an empty text."""
        text = self.label(name)
        return text if len(text) <= _URL_LENGTH and _URL.fullmatch(text) else ""


class Inventory(NamedTuple):
    """The image that is built, and its containers; `timestamp` is in UTC."""

    name: str
    version: str
    components: tuple[Component, ...]
    timestamp: str


def inventory(name: str, version: str, components: Iterable[Component], environ: Mapping[str, str] = {}) -> Inventory:
    """Return an inventory; its time is SOURCE_DATE_EPOCH, or else that of the newest container."""
    ordered = tuple(sorted(components, key=lambda each: each.key))
    epoch = environ.get("SOURCE_DATE_EPOCH", "")
    times = [time for each in ordered if (time := utc(each.created))]
    timestamp = max(times, default=_EPOCH)
    if epoch.isascii() and epoch.isdecimal() and len(epoch) < 12:
        timestamp = utc(datetime.fromtimestamp(int(epoch), UTC).isoformat())
    return Inventory(name=name, version=version, components=ordered, timestamp=timestamp)


def render(inventory: Inventory, format_: str) -> bytes:
    """Return the document in one of the `FORMATS`."""
    document = spdx(inventory) if format_ == "spdx" else cyclonedx(inventory)
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def file_name(inventory: Inventory, arch: str, format_: str, suffix: str = "") -> str:
    """Return the name of the file: OBS publishes those of all packages and flavors in one directory."""
    stem = f"{inventory.name}.{arch}-{inventory.version}{f'-{suffix}' if suffix else ''}"
    return f"{re.sub(r'[^A-Za-z0-9._+-]', '_', stem)[:200].lstrip('.')}.containers.{FORMATS[format_]}.json"


def labels_of(config: bytes) -> Mapping[str, str]:
    """Return the labels in the configuration of an image; those that are not text are left out."""
    try:
        document = strict_json.load(config, "config")
        values = document.member("config").member("Labels").values
    except ValueError:
        return {}
    return {key: value for key, value in values.items() if isinstance(value, str) and _is_unicode(value)}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def utc(date: str) -> str:
    """Return an RFC 3339 date in UTC, in whole seconds; an empty text if it is none."""
    try:
        moment = datetime.fromisoformat(re.sub(r"\.[0-9]+", "", date).upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    return moment.replace(tzinfo=None, microsecond=0).isoformat() + "Z"


def _id(body: Mapping[str, object]) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, json.dumps(body, sort_keys=True))


def _signature_lines(component: Component) -> list[str]:
    return [f"signed as {each.identity} by {each.key}" for each in component.signatures]


# CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/

_ROOT = "image"
_ALGORITHMS = {"sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}


def cyclonedx(inventory: Inventory) -> Mapping[str, object]:
    """Return the document in CycloneDX 1.6."""
    components = [_cyclonedx_component(each) for each in inventory.components]
    keys = [each.key for each in inventory.components]
    body = {
        "metadata": {
            "timestamp": inventory.timestamp,
            "tools": {"components": [{"type": "application", "name": TOOL, "version": __version__}]},
            "component": {
                "bom-ref": _ROOT,
                "type": "operating-system",
                "name": inventory.name,
                **({"version": inventory.version} if inventory.version else {}),
            },
        },
        "components": components,
        "dependencies": [{"ref": _ROOT, "dependsOn": keys}, *({"ref": key} for key in keys)],
        # All containers are listed, but not what is in them.
        "compositions": [
            {"aggregate": "complete", "assemblies": [_ROOT]},
            *([{"aggregate": "incomplete", "assemblies": keys}] if keys else []),
        ],
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_id(body)}",
        "version": 1,
        **body,
    }


def _cyclonedx_component(component: Component) -> Mapping[str, object]:
    image, digest = component.image, component.image.manifest.digest
    urls = {"vcs": "source", "website": "url", "documentation": "documentation"}
    references = [{"type": kind, "url": url} for kind, label in urls.items() if (url := component.url(label))]
    text = component.label("licenses")
    expression = licenses.expression(text)
    properties = [
        ("arch", component.arch),
        ("config", str(image.config.digest)),
        ("created", component.created),
        ("digest", str(component.digest)),
        *(("layer", str(layer.digest)) for layer in image.layers),
        *(("signature", line) for line in _signature_lines(component)),
    ]
    return {
        "bom-ref": component.key,
        "type": "container",
        "name": component.reference.name,
        "version": component.version,
        "purl": component.purl,
        "hashes": [{"alg": _ALGORITHMS[digest.algorithm], "content": digest.hex}],
        **({"licenses": [{"expression": expression}]} if expression else {}),
        **({"licenses": [{"license": {"name": text}}]} if text and not expression else {}),
        **({"externalReferences": references} if references else {}),
        "properties": [{"name": f"{TOOL}:{name}", "value": value} for name, value in properties if value],
    }


# SPDX 2.3, https://spdx.github.io/spdx-spec/v2.3/

_DOCUMENT, _IMAGE = "SPDXRef-DOCUMENT", "SPDXRef-Image"
_UNKNOWN = "NOASSERTION"


def spdx(inventory: Inventory) -> Mapping[str, object]:
    """Return the document in SPDX 2.3."""
    packages: list[Mapping[str, object]] = [
        _spdx_package(_IMAGE, inventory.name, "OPERATING-SYSTEM", version=inventory.version)
    ]
    relationships = [(_DOCUMENT, "DESCRIBES", _IMAGE)]
    extracted: dict[str, str] = {}
    layers: dict[str, Mapping[str, object]] = {}
    for component in inventory.components:
        container = f"SPDXRef-Container-{uuid.uuid5(_NAMESPACE, component.key)}"
        packages.append(_spdx_container(container, component, inventory.timestamp, extracted))
        relationships.append((_IMAGE, "CONTAINS", container))
        for layer in dict.fromkeys(layer.digest for layer in component.image.layers):
            key = f"SPDXRef-Layer-{layer.algorithm}-{layer.hex}"
            layers[key] = _spdx_package(key, str(layer), "ARCHIVE", checksums=[_spdx_checksum(layer)])
            relationships.append((container, "CONTAINS", key))
    body: dict[str, object] = {
        "packages": [*packages, *layers.values()],
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relationships
        ],
    }
    if extracted:
        body["hasExtractedLicensingInfos"] = [
            {"licenseId": key, "extractedText": text, "name": text} for key, text in sorted(extracted.items())
        ]
    name = quote(inventory.name, safe="")
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": f"{inventory.name}-containers",
        "documentNamespace": f"https://open-build-service.org/spdx/{TOOL}/{name}-{_id(body)}",
        "creationInfo": {"created": inventory.timestamp, "creators": [f"Tool: {TOOL}-{__version__}"]},
        **body,
    }


def _spdx_package(key: str, name: str, purpose: str, *, version: str = "", **more: object) -> dict[str, object]:
    return {
        "SPDXID": key,
        "name": name,
        **({"versionInfo": version} if version else {}),
        "primaryPackagePurpose": purpose,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        "copyrightText": _UNKNOWN,
        "supplier": _UNKNOWN,
        **more,
    }


def _spdx_container(key: str, component: Component, timestamp: str, extracted: dict[str, str]) -> Mapping[str, object]:
    image, digest = component.image, component.image.manifest.digest
    references = [
        {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": component.purl},
        *(
            {"referenceCategory": "OTHER", "referenceType": "vcs", "referenceLocator": url}
            for url in (component.url("source"),)
            if url
        ),
    ]
    text = component.label("licenses")
    license_ = licenses.expression(text)
    if text and not license_:
        license_ = f"LicenseRef-{uuid.uuid5(_NAMESPACE, text)}"
        extracted[license_] = text
    annotations: Sequence[Mapping[str, str]] = [
        {
            "annotationDate": timestamp,
            "annotationType": "OTHER",
            "annotator": f"Tool: {TOOL}-{__version__}",
            "comment": line,
        }
        for line in _signature_lines(component)
    ]
    built = utc(component.created)
    source = f"resolved to {component.digest}; config {image.config.digest}; architecture {component.arch}"
    return _spdx_package(
        key,
        component.reference.name,
        "CONTAINER",
        version=component.version,
        licenseDeclared=license_ or _UNKNOWN,
        checksums=[_spdx_checksum(digest)],
        sourceInfo=source,
        externalRefs=references,
        **({"homepage": url} if (url := component.url("url")) else {}),
        **({"builtDate": built} if built else {}),
        **({"annotations": annotations} if annotations else {}),
    )


def _spdx_checksum(digest: Digest) -> Mapping[str, str]:
    return {"algorithm": digest.algorithm.upper(), "checksumValue": digest.hex}
