"""The stores of a description: one for each overlay directory that has containers for it, built before anything else.

Stores do not share layers, so a container for several profiles is in the store of each of them.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.formats.human import count, size
from osc_containers.fs import plain_file
from osc_containers.inject.image_file import Symlink, TextFile
from osc_containers.inject.store import build, image_files
from osc_containers.inject.store.build import OpenBlob, StoreImage
from osc_containers.inject.store.image_files import STORAGE_CONF, SYSTEM_STORAGE_CONF, Store
from osc_containers.oci.image import Image
from osc_containers.oci.reference import Reference

logger = logging.getLogger(__name__)

_ROOT = "root"
_CONFIGURATION_LIMIT = 1 << 20
# /tmp may be in memory, and is meant for small files (file-hierarchy(7)).
_LARGE_FILES = "/var/tmp"  # noqa: S108 - other users cannot get into the directory that is made there


class StoredContainer(NamedTuple):
    """A container for a store; `unit` is the name of the unit that would load it."""

    reference: Reference
    image: Image
    unit: str


class BuiltStore(NamedTuple):
    """A store with its squashfs in a temporary directory, and all other files that the image needs for it."""

    store: Store
    squashfs: Path
    files: tuple[TextFile | Symlink, ...]


@contextmanager
def workspace(environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Yield a private directory for files as large as the unpacked images."""
    parent = environ.get("TMPDIR") or (_LARGE_FILES if os.path.isdir(_LARGE_FILES) else None)
    with tempfile.TemporaryDirectory(prefix="kiwi_containers-", dir=parent) as directory:
        yield Path(directory)


def build_all(
    groups: Mapping[str, Sequence[StoredContainer]],
    open_blob: OpenBlob,
    directory: Path,
    configured: Collection[str],
    environ: Mapping[str, str],
) -> Mapping[str, BuiltStore]:
    """Build the store of each overlay directory; `groups` has their containers. Temporary files go into `directory`.

    The overlay directories in `configured` have a storage.conf of the packager. `environ` has the PATH for programs.

    :raises Error: as `build.build`.
    """
    stores = {name: Store.of_directory(name) for name in _sorted(groups)}
    result = {}
    for name, store in stores.items():
        images = _by_name(groups[name])
        squashfs = directory / f"store{store.suffix}.squashfs"
        wanted = [StoreImage(name=each, image=image) for each, image in images.items()]
        summary = build.build(wanted, open_blob, squashfs, directory, environ)
        # A file with this mode can become a hard link in the overlay directory, instead of a copy.
        squashfs.chmod(0o644)
        with squashfs.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        logger.info(
            "%s%s: %s, %s, %s unpacked, %s packed, sha256 %s",
            *(name, store.squashfs, count(len(summary.images), "image"), count(summary.layer_count, "layer")),
            *(size(summary.unpacked), size(squashfs.stat().st_size), sha256),
        )
        files = (
            *image_files.render(store, summary.images, sha256, [each.unit for each in groups[name]]),
            *image_files.render_common(list(stores.values()), has_own_configuration=name in configured),
        )
        result[name] = BuiltStore(store=store, squashfs=squashfs, files=files)
    return result


def _by_name(containers: Iterable[StoredContainer]) -> Mapping[str, Image]:
    result: dict[str, Image] = {}
    for each in containers:
        if result.setdefault(each.reference.engine_name, each.image) != each.image:
            raise DescriptionError(
                f"{each.reference.engine_name}: got two different images of this name, expected one; leave one out of "
                "'store'"
            )
    return result


def find_configured(directory: Path, names: Collection[str], with_store: Collection[str]) -> frozenset[str]:
    """Return which of the overlay directories `names` in `directory` have, or inherit, a storage.conf of the packager.

    :raises DescriptionError: podman would not use the stores of `with_store` with one of these files.
    """
    stores = [Store.of_directory(name) for name in _sorted(with_store)]
    configured: set[str] = set()
    problems: list[str] = []
    for name in sorted(names):
        found = _check_files(directory / name, name, stores)
        if found:
            # The files of a profile come on top of those of every image.
            configured |= set(names) if name == _ROOT else {name}
            problems += filter(None, found)
    if problems:
        raise DescriptionError(*problems)
    return frozenset(configured)


def is_configured(root: Path) -> bool:
    """Return whether a root tree has a storage.conf.

    :raises DescriptionError: podman would not use its store with that.
    """
    # In a whole tree, the file in /usr/share is that of a package, and one in /etc may replace it.
    found = _check_files(root, str(root), [Store.of_directory(_ROOT)], (STORAGE_CONF,))
    if any(found):
        raise DescriptionError(*found)
    return bool(found)


def _sorted(names: Iterable[str]) -> list[str]:
    """Return the names of overlay directories in the order in which podman looks for an image in their stores."""
    return sorted(names, key=lambda name: (name != _ROOT, name))


def _check_files(
    directory: Path, shown: str, stores: Sequence[Store], paths: Iterable[str] = (STORAGE_CONF, SYSTEM_STORAGE_CONF)
) -> list[str]:
    """Return a problem for each storage.conf in a directory; it is empty for a good one."""
    found = []
    for path in paths:
        content = plain_file.read(directory, path[1:], _CONFIGURATION_LIMIT) if directory.is_dir() else None
        if content is not None:
            problem = image_files.check_configuration(content, stores)
            found.append(f"{shown}{path}: {problem}" if problem else "")
    return found
