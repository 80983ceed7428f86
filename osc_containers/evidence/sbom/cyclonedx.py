"""SBOMs in CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/)."""

from collections.abc import Mapping

from osc_containers import __version__
from osc_containers.evidence.sbom import licenses
from osc_containers.evidence.sbom.component import TOOL, Component, Inventory, SoftwarePackage, content_id

_ROOT = "image"
_ALGORITHMS = {"sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}


def document(inventory: Inventory) -> Mapping[str, object]:
    """Return the document in CycloneDX 1.6."""
    components = [_component(each) for each in inventory.components]
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
        # All containers are listed, but of what is in them at most the packages of the distribution.
        "compositions": [
            {"aggregate": "complete", "assemblies": [_ROOT]},
            *([{"aggregate": "incomplete", "assemblies": keys}] if keys else []),
        ],
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{content_id(body)}",
        "version": 1,
        **body,
    }


def _component(component: Component) -> Mapping[str, object]:
    image, digest = component.image, component.image.manifest.digest
    urls = {"vcs": "source", "website": "url", "documentation": "documentation"}
    references = [{"type": kind, "url": url} for kind, label in urls.items() if (url := component.url(label))]
    properties = [
        ("arch", component.arch),
        ("config", str(image.config.digest)),
        ("created", component.created),
        ("digest", str(component.digest)),
        *(("layer", str(layer.digest)) for layer in image.layers),
        *(("signature", line) for line in component.signature_lines),
        *(("not read", line) for line in component.gaps),
    ]
    return {
        "bom-ref": component.key,
        "type": "container",
        "name": component.reference.name,
        "version": component.version,
        "purl": component.purl,
        "hashes": [{"alg": _ALGORITHMS[digest.algorithm], "content": digest.hex}],
        **_licenses(component.label("licenses")),
        **({"externalReferences": references} if references else {}),
        **({"components": [_package(component, each) for each in component.packages]} if component.packages else {}),
        "properties": [{"name": f"{TOOL}:{name}", "value": value} for name, value in properties if value],
    }


def _package(component: Component, package: SoftwarePackage) -> Mapping[str, object]:
    return {
        # The same package may be in several containers, but a `bom-ref` must be unique in the document.
        "bom-ref": f"{component.key} {package.purl}",
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        **_licenses(package.license),
    }


def _licenses(text: str) -> Mapping[str, object]:
    expression = licenses.expression(text)
    if expression:
        return {"licenses": [{"expression": expression}]}
    return {"licenses": [{"license": {"name": text}}]} if text else {}
