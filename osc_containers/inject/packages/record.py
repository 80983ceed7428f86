"""An installed package as its database describes it, and its package URL."""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from osc_containers.evidence.sbom.component import SoftwarePackage

DEB, APK, RPM = "deb", "apk", "rpm"
COUNT_LIMIT = 100_000
"""Packages of one database."""

_LENGTH = 500
"""Characters of a field; longer ones are cut."""
_ID = re.compile("[a-z0-9][a-z0-9._-]{0,63}")
_VERSION_ID = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# A value is in quotes of either kind, or in none. Escapes are not resolved: no valid value needs any.
_RELEASE_LINE = re.compile(r"""(ID|VERSION_ID)=(["']?)(.*)\2\s*""")


class Record(NamedTuple):
    """What a database says of one package; `kind` is `DEB`, `APK` or `RPM`, `epoch` is rpm's."""

    kind: str
    name: str
    version: str
    arch: str = ""
    license: str = ""
    epoch: str = ""


class Release(NamedTuple):
    """The distribution (os-release(5)); both are empty if the file does not say or is not valid."""

    id: str = ""
    version_id: str = ""


def parse_release(content: bytes) -> Release:
    """Read an os-release file."""
    values = {match[1]: match[3] for line in text(content).splitlines() if (match := _RELEASE_LINE.fullmatch(line))}
    release_id, version_id = values.get("ID", ""), values.get("VERSION_ID", "")
    return Release(
        id=release_id if _ID.fullmatch(release_id) else "",
        version_id=version_id if _VERSION_ID.fullmatch(version_id) else "",
    )


def text(content: bytes) -> str:
    """Decode what a database contains; other bytes than UTF-8 become U+FFFD."""
    return content.decode("utf-8", "replace")


def field(content: bytes) -> str:
    """Decode a value, without blanks around it and without its end if it is too long."""
    # A character has at most four bytes in UTF-8.
    return text(content[: 4 * _LENGTH]).strip()[:_LENGTH]


def to_package(record: Record, release: Release) -> SoftwarePackage:
    """Return the package for an SBOM, with its package URL (purl-spec, types `deb`, `apk` and `rpm`)."""
    distro = f"{release.id}-{release.version_id}" if release.version_id else release.id
    qualifiers: Mapping[str, str] = {
        "arch": record.arch,
        "distro": distro if release.id else "",
        "epoch": record.epoch,
    }
    query = "&".join(f"{key}={quote(value, safe=':/')}" for key, value in sorted(qualifiers.items()) if value)
    namespace = f"{release.id}/" if release.id else ""
    # purl-spec has the names of deb and apk packages in lower case, and those of rpm as they are.
    name = record.name if record.kind == RPM else record.name.lower()
    version_part = f"@{quote(record.version, safe=':/')}" if record.version else ""
    purl = f"pkg:{record.kind}/{namespace}{quote(name, safe=':')}{version_part}{f'?{query}' if query else ''}"
    version = f"{record.epoch}:{record.version}" if record.epoch else record.version
    return SoftwarePackage(name=record.name, version=version, purl=purl, license=record.license)
