"""Run a prefetch without a network, and look at what it left."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from osc_containers.obs.package import Package
from osc_containers.obs.selection import ImageRequest
from osc_containers.oci.reference import Reference
from osc_containers.prefetch import prefetch
from osc_containers.prefetch.plan import archive_files, blob_files
from osc_containers.sources.interface import FetchContext
from tests.support import images
from tests.support.fake_source import FakeSource

LAYOUTS = {"archives": archive_files, "blobs": blob_files}

APP = "registry.example.com/team/app:1.0"


WEB = "registry.example.com/team/web:1.0"


def want(*references: str, architectures: Sequence[str] = ("x86_64",)) -> tuple[ImageRequest, ...]:
    return tuple(
        ImageRequest(
            reference=Reference.parse(reference),
            location=f"docker://{reference}",
            architectures=tuple(architectures),
            where="a.kiwi:7",
        )
        for reference in references
    )


def run_prefetch(
    source: FakeSource,
    directory: Path,
    *wanted: ImageRequest,
    outdir: Path | None = None,
    locked: bool = False,
    asked: Sequence[ImageRequest] = (),
    layout: str = "archives",
) -> None:
    network = FetchContext(open_source=source.open)
    prefetch.prefetch(
        Package(directory),
        wanted,
        network,
        outdir=outdir or directory,
        locked=locked,
        all_requests=asked,
        files_of=LAYOUTS[layout],
    )


def hashes(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def identities(directory: Path) -> set[tuple[str, int, int]]:
    """Tell whether a file was replaced or written to."""
    return {(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in directory.iterdir()}


SOURCE = FakeSource({APP: images.image(images.random_layer("app", 300_000)), WEB: images.small("web")})


MOVED = FakeSource({APP: images.image(images.random_layer("moved", 300_000)), WEB: images.small("web")})
