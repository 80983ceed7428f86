"""The JSON files of podman's storage: which images and layers a store has, and how they are called.

Format: containers/storage, `layers.go` (Layer), `images.go` (Image), `lockfile.go`; the IDs of layers are those of
containers/image (`storage_dest.go`), so that podman uses the layers of a store for newer versions of its images.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from osc_containers.inject.store.inflate import GZIP, PLAIN, ZSTD
from osc_containers.oci.digest import Digest

_COMPRESSION = {PLAIN: 0, GZIP: 2, ZSTD: 4}
"""The numbers of containers/storage (`pkg/archive`, Compression)."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Names with other characters are encoded for the file system (containers/storage, makeBigDataBaseName).
_PLAIN_NAME = re.compile(r"[0-9a-z.]+")


class LayerRecord(NamedTuple):
    """A layer of a store. `lower` has the IDs of all layers below it, the nearest first."""

    id: str
    lower: tuple[str, ...]
    blob: Digest
    blob_size: int
    compression: str
    diff_id: Digest
    size: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    created: str

    def as_json(self) -> dict[str, object]:
        """Return the entry for layers.json."""
        compression = _COMPRESSION[self.compression]
        return {
            "id": self.id,
            **({"parent": self.lower[0]} if self.lower else {}),
            "created": self.created,
            "compressed-diff-digest": str(self.blob),
            "compressed-size": self.blob_size,
            "diff-digest": str(self.diff_id),
            "diff-size": self.size,
            **({"compression": compression} if compression else {}),
            **({"uidset": self.uids} if self.uids else {}),
            **({"gidset": self.gids} if self.gids else {}),
        }


class ImageRecord(NamedTuple):
    """An image of a store; `data` are its documents, by the names under which podman asks for them."""

    id: str
    digest: Digest
    names: tuple[str, ...]
    layer: str
    data: Mapping[str, bytes]
    created: str

    def as_json(self) -> dict[str, object]:
        """Return the entry for images.json."""
        return {
            "id": self.id,
            "digest": str(self.digest),
            "names": self.names,
            "names-history": self.names,
            "layer": self.layer,
            "metadata": "{}",
            "big-data-names": list(self.data),
            "big-data-sizes": {name: len(content) for name, content in self.data.items()},
            "big-data-digests": {name: str(Digest.of(content)) for name, content in self.data.items()},
            "created": self.created,
        }


def layer_id(parent: str, diff_id: Digest) -> str:
    """Return the ID of a layer above `parent`, which is empty for the lowest layer."""
    return hashlib.sha256(f"{parent}+{diff_id.hex}".encode()).hexdigest() if parent else diff_id.hex


def link_name(layer: str) -> str:
    """Return the short name of a layer. All lower layers together must fit in the options of one mount."""
    # 26 is also the length of podman's own names (containers/storage, drivers/overlay, idLength).
    return base64.b32encode(hashlib.sha256(layer.encode()).digest())[:26].decode()


def data_file(name: str) -> str:
    """Return the file in which podman keeps a document of an image."""
    return name if _PLAIN_NAME.fullmatch(name) else "=" + base64.b64encode(name.encode()).decode()


def timestamp(created: str) -> str:
    """Return a date of an image's configuration in the only form that Go reads; 1970 if it is no valid date.

    A single invalid date would make podman refuse the whole store.
    """
    try:
        date = datetime.fromisoformat(created.upper())
        # Python 3.11 has no other way that neither overflows nor depends on the time zone of the machine.
        seconds = (date - _EPOCH) // timedelta(seconds=1)
        # `%Y` would not pad the year 1, which is Go's zero time and the date of images of reproducible builders.
        return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat() + "Z"
    except (ValueError, TypeError, OverflowError):
        return "1970-01-01T00:00:00Z"


def dump(records: Sequence[LayerRecord | ImageRecord]) -> bytes:
    """Return the content of layers.json or images.json."""
    return json.dumps([record.as_json() for record in records], separators=(",", ":")).encode()
