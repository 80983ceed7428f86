"""SBOMs in SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/)."""

import uuid
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from osc_containers import __version__
from osc_containers.evidence.sbom import licenses
from osc_containers.evidence.sbom.component import (
    NAMESPACE,
    TOOL,
    Component,
    Inventory,
    SoftwarePackage,
    content_id,
    utc,
)
from osc_containers.oci.digest import Digest

_DOCUMENT, _IMAGE = "SPDXRef-DOCUMENT", "SPDXRef-Image"
_UNKNOWN = "NOASSERTION"


def document(inventory: Inventory) -> Mapping[str, object]:
    """Return the document in SPDX 2.3."""
    packages: list[Mapping[str, object]] = [
        _package(_IMAGE, inventory.name, "OPERATING-SYSTEM", version=inventory.version)
    ]
    relationships = [(_DOCUMENT, "DESCRIBES", _IMAGE)]
    extracted: dict[str, str] = {}
    layers: dict[str, Mapping[str, object]] = {}
    for component in inventory.components:
        container = f"SPDXRef-Container-{uuid.uuid5(NAMESPACE, component.key)}"
        packages.append(_container(container, component, inventory.timestamp, extracted))
        relationships.append((_IMAGE, "CONTAINS", container))
        # An image may have the same layer several times, and several containers may share it.
        for layer in dict.fromkeys(layer.digest for layer in component.image.layers):
            key = f"SPDXRef-Layer-{layer.algorithm}-{layer.hex}"
            layers[key] = _package(key, str(layer), "ARCHIVE", checksums=[_checksum(layer)])
            relationships.append((container, "CONTAINS", key))
        for package in component.packages:
            key = f"SPDXRef-Package-{uuid.uuid5(NAMESPACE, f'{component.key} {package.purl}')}"
            packages.append(_installed(key, package, extracted))
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
        "documentNamespace": f"https://open-build-service.org/spdx/{TOOL}/{name}-{content_id(body)}",
        "creationInfo": {"created": inventory.timestamp, "creators": [f"Tool: {TOOL}-{__version__}"]},
        **body,
    }


def _package(key: str, name: str, purpose: str, *, version: str = "", **more: object) -> dict[str, object]:
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


def _container(key: str, component: Component, timestamp: str, extracted: dict[str, str]) -> Mapping[str, object]:
    image, digest = component.image, component.image.manifest.digest
    references = [
        _purl(component.purl),
        *(
            {"referenceCategory": "OTHER", "referenceType": "vcs", "referenceLocator": url}
            for url in (component.url("source"),)
            if url
        ),
    ]
    annotations: Sequence[Mapping[str, str]] = [
        {
            "annotationDate": timestamp,
            "annotationType": "OTHER",
            "annotator": f"Tool: {TOOL}-{__version__}",
            "comment": line,
        }
        for line in (*component.signature_lines, *(f"not read: {gap}" for gap in component.gaps))
    ]
    built = utc(component.created)
    source = f"resolved to {component.digest}; config {image.config.digest}; architecture {component.arch}"
    return _package(
        key,
        component.reference.name,
        "CONTAINER",
        version=component.version,
        licenseDeclared=_license(component.label("licenses"), extracted),
        checksums=[_checksum(digest)],
        sourceInfo=source,
        externalRefs=references,
        **({"homepage": url} if (url := component.url("url")) else {}),
        **({"builtDate": built} if built else {}),
        **({"annotations": annotations} if annotations else {}),
    )


def _installed(key: str, package: SoftwarePackage, extracted: dict[str, str]) -> Mapping[str, object]:
    return _package(
        key,
        package.name,
        "LIBRARY",
        version=package.version,
        licenseDeclared=_license(package.license, extracted),
        externalRefs=[_purl(package.purl)],
    )


def _purl(purl: str) -> Mapping[str, str]:
    return {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}


def _license(text: str, extracted: dict[str, str]) -> str:
    """Return what `licenseDeclared` says; a text that is no expression is added to `extracted` under an id."""
    expression = licenses.expression(text)
    if text and not expression:
        expression = f"LicenseRef-{uuid.uuid5(NAMESPACE, text)}"
        extracted[expression] = text
    return expression or _UNKNOWN


def _checksum(digest: Digest) -> Mapping[str, str]:
    return {"algorithm": digest.algorithm.upper(), "checksumValue": digest.hex}
