"""The libraries of the formats of SBOMs, as judges of our documents.

They are imported where they are used: they need seconds, and the fast tests do without them.
"""

import json
import re
from typing import Any


def problems(text: bytes, format_: str) -> list[str]:
    """Return what the libraries of a format find wrong."""
    document = json.loads(text)
    if format_ == "spdx":
        found = _spdx_problems(document)
        purls = [
            reference["referenceLocator"]
            for package in document["packages"]
            for reference in package.get("externalRefs", [])
            if reference["referenceType"] == "purl"
        ]
    else:
        found = _cyclonedx_problems(text.decode())
        components = [each for part in document["components"] for each in (part, *part.get("components", ()))]
        purls = [each["purl"] for each in components]
    return found + [purl for purl in purls if canonical(purl) != purl]


def _spdx_problems(document: Any) -> list[str]:
    from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    parser: Any = JsonLikeDictParser
    return [each.validation_message for each in validate_full_spdx_document(parser().parse(document))]


def _cyclonedx_problems(text: str) -> list[str]:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return [repr(error)] if error else []


def canonical(purl: str) -> str:
    """Return a package URL as packageurl-python writes it, but with escapes in capitals for every type."""
    from packageurl import PackageURL

    text = PackageURL.from_string(purl).to_string()
    return re.sub("%[0-9a-f]{2}", lambda match: match[0].upper(), text)
