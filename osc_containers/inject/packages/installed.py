"""The packages that are installed in a container."""

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from osc_containers.evidence.sbom.component import SoftwarePackage
from osc_containers.formats.layer_tar import printable
from osc_containers.fs.ranges import FileSlice
from osc_containers.inject.packages import databases, rpm_databases, text_databases
from osc_containers.inject.packages.databases import OS_RELEASE, Databases, Layer
from osc_containers.inject.packages.record import COUNT_LIMIT, Record, Release, parse_release, to_package
from osc_containers.oci import image_config
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor


class Installed(NamedTuple):
    """The packages, sorted and each once, and what could not be read."""

    packages: tuple[SoftwarePackage, ...] = ()
    gaps: tuple[str, ...] = ()


def read(
    image: Image,
    config: bytes,
    open_blob: Callable[[Descriptor], FileSlice],
    environ: Mapping[str, str] = os.environ,
) -> Installed:
    """Return the packages in an image whose blobs were verified; `environ` has the PATH for the program zstd."""
    try:
        ids = image_config.diff_ids(config, len(image.layers))
    except ValueError as error:
        return Installed(gaps=(str(error),))
    layers = [Layer(blob, diff_id, open_blob(blob)) for blob, diff_id in zip(image.layers, ids, strict=True)]
    return of_databases(databases.find(layers, environ))


def of_databases(found: Databases) -> Installed:
    """Return the packages in databases. What one of them has before it is damaged counts, too."""
    gaps = dict.fromkeys(found.gaps)
    records: set[Record] = set()
    release = Release()
    # If both files are there, the one in /etc counts (os-release(5)), which is the last here.
    for path in OS_RELEASE:
        release = parse_release(found.files[path]) if path in found.files else release
    for path, content in sorted(found.files.items()):
        where = printable(path)
        try:
            records.update(islice(_records(path, content), COUNT_LIMIT - len(records)))
        except ValueError as error:
            gaps[f"{where}: {error}"] = None
        if len(records) >= COUNT_LIMIT:
            gaps[f"{where}: got {COUNT_LIMIT} packages, no more are read"] = None
            break
    # A package counts once, even if its database has it several times or its name in several spellings.
    packages = {each.purl: each for each in (to_package(record, release) for record in sorted(records))}
    return Installed(packages=tuple(sorted(packages.values())), gaps=tuple(gaps))


def _records(path: bytes, content: bytes) -> Iterator[Record]:
    name = path.rpartition(b"/")[2]
    if path in OS_RELEASE:
        return
    if path.startswith(b"var/lib/dpkg/"):
        if not name.endswith(b".md5sums"):
            yield from text_databases.dpkg(content)
    elif name == b"installed":
        yield from text_databases.apk(content)
    elif name == b"rpmdb.sqlite":
        yield from rpm_databases.sqlite(content)
    elif name == b"Packages.db":
        yield from rpm_databases.ndb(content)
    elif name == b"Packages":
        raise ValueError("Berkeley DB is not supported")
    elif content:
        raise ValueError("the database has a write-ahead log, which is not read")
