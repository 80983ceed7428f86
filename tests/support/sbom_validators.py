"""The libraries of the formats of SBOMs, as judges of our documents."""

import json
import re
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document


def _parse_spdx(document: Any) -> Any:
    parser: Any = JsonLikeDictParser
    return parser().parse(document)


def problems(text: bytes, format_: str) -> list[str]:
    """Return what the libraries of a format find wrong."""
    document = json.loads(text)
    if format_ == "spdx":
        found = [each.validation_message for each in validate_full_spdx_document(_parse_spdx(document))]
        purls = [
            reference["referenceLocator"]
            for package in document["packages"]
            for reference in package.get("externalRefs", [])
            if reference["referenceType"] == "purl"
        ]
    else:
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode())
        found = [repr(error)] if error else []
        components = [each for part in document["components"] for each in (part, *part.get("components", ()))]
        purls = [each["purl"] for each in components]
    return found + [purl for purl in purls if canonical(purl) != purl]


def canonical(purl: str) -> str:
    """Return a package URL as packageurl-python writes it, but with escapes in capitals for every type."""
    text = PackageURL.from_string(purl).to_string()
    return re.sub("%[0-9a-f]{2}", lambda match: match[0].upper(), text)
