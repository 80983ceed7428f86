"""The text and the file name of an SBOM."""

import re

from osc_containers.evidence.sbom import cyclonedx, spdx
from osc_containers.evidence.sbom.component import Inventory
from osc_containers.formats import json_text

FORMATS = {"spdx": "spdx", "cyclonedx": "cdx"}
"""The formats, and what the names of their files end with, before `.json`."""


def render(inventory: Inventory, format_: str) -> bytes:
    """Return the document in one of the `FORMATS`."""
    return json_text.dumps((spdx if format_ == "spdx" else cyclonedx).document(inventory))


def file_name(inventory: Inventory, arch: str, format_: str, suffix: str = "") -> str:
    """Return the name of the file: OBS publishes those of all packages and flavors in one directory."""
    stem = f"{inventory.name}.{arch}-{inventory.version}{f'-{suffix}' if suffix else ''}"
    return f"{re.sub(r'[^A-Za-z0-9._+-]', '_', stem)[:200].lstrip('.')}.containers.{FORMATS[format_]}.json"
