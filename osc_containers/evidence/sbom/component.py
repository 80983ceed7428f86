"""What an SBOM lists: the containers in an image, their layers, digests, sources, licences and signatures.

The same content gives the same bytes: ids are made from the content, and the time is that of the newest container.
"""

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from osc_containers.formats import strict_json
from osc_containers.lock.signature import RecordedSignature
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.reference import Reference

TOOL = "osc-containers"
NAMESPACE = uuid.UUID("6f1f6c0e-3a1c-4a57-9f5b-3f1a4c1f2d10")
"""The namespace of the UUIDs in documents."""

_EPOCH = "1970-01-01T00:00:00Z"
_PART = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*"
_URL = re.compile(rf"https?://[A-Za-z0-9.-]+(?::[0-9]{{1,5}})?(?:/{_PART})?(?:\?{_PART})?(?:#{_PART})?")
_URL_LENGTH = 500
_LABEL_LENGTH = 1000
_LABELS = "org.opencontainers.image."


class SoftwarePackage(NamedTuple):
    """A package that is installed in a container, with its package URL."""

    name: str
    version: str
    purl: str
    license: str = ""


class Component(NamedTuple):
    """One container: its name, the image for one kiwi architecture, and what is known of it.

    `digest` is what the reference resolved to; `labels` are those of the image's configuration. `packages` are those
    inside, as far as they were read, and `gaps` says what could not be read.
    """

    reference: Reference
    arch: str
    digest: Digest
    image: Image
    created: str = ""
    labels: Mapping[str, str] = {}
    signatures: tuple[RecordedSignature, ...] = ()
    packages: tuple[SoftwarePackage, ...] = ()
    gaps: tuple[str, ...] = ()

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

    @property
    def signature_lines(self) -> tuple[str, ...]:
        """A sentence for each signature that was accepted."""
        return tuple(f"signed as {each.identity} by {each.key}" for each in self.signatures)

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
    # With eleven digits, dates end in the year 5138. `datetime` has none after 9999.
    if epoch.isascii() and epoch.isdecimal() and len(epoch) < 12:
        timestamp = utc(datetime.fromtimestamp(int(epoch), UTC).isoformat())
    return Inventory(name=name, version=version, components=ordered, timestamp=timestamp)


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


def content_id(body: Mapping[str, object]) -> uuid.UUID:
    """Return the id of a document with this content."""
    return uuid.uuid5(NAMESPACE, json.dumps(body, sort_keys=True))
