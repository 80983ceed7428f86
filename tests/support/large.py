"""One layer of 6 GiB through a real registry, and into a root tree: what `make large` runs.

    python -m tests.support.large [--dir DIR] [BYTES]

The registry's layer is a hole in a file, and the tree gets a link, so that DIR needs room for one archive. Each run
says how long it took and its peak memory, which may exceed that of the loaded program by `MOST`, however large the
layer is. What the program itself takes depends on the versions of Python and the libraries.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from osc_containers.oci.digest import Digest
from tests.support import docker_registry, images
from tests.support.docker_registry import DockerRegistry
from tests.support.images import Image

MOST = 48 << 20
"""Bytes of memory, beyond those of the program itself."""
_LOAD = "import osc_containers.cli.main, osc_containers.prefetch.prefetch, osc_containers.sources.transports"
_CHUNK = bytes(1 << 20)  # Linux counts the memory of this process into the peak of those that it starts


def main(arguments: Sequence[str]) -> int:
    """Prefetch twice, verify and inject; the status is 1 if one fails or takes too much memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", default="/var/tmp", metavar="DIR")
    parser.add_argument("size", nargs="?", type=int, default=6 << 30, metavar="BYTES")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as name,
        docker_registry.serve(Path(name, "registry")) as registry,
    ):
        package = Path(name, "package")
        package.mkdir()
        Path(name, "root").mkdir()
        os.environ["HOME"] = name
        push(registry, options.size)
        (package / "appliance.kiwi").write_text(
            f'<image schemaversion="8.0" name="large"><containers source="{registry.host}" backend="podman">'
            '<container name="large" path="team" tag="1"/></containers></image>'
        )
        inject = ("inject", "-q", "--arch", "x86_64", "--root", f"{name}/root")
        prefetch = ("prefetch", "-q", "--arch", "x86_64")
        blobs = (*prefetch, "--layout", "blobs")
        commands = (prefetch, prefetch, ("verify",), inject, blobs, blobs, ("verify",), inject)
        results = [run(package, command) for command in commands]
    return int(not all(results))


def push(registry: DockerRegistry, size: int) -> None:
    """Give the registry an image with a layer of zeros."""
    hasher = hashlib.sha256()
    for start in range(0, size, len(_CHUNK)):
        hasher.update(_CHUNK[: size - start])
    digest = Digest("sha256", hasher.hexdigest())
    blob = registry.blob_file(digest)
    blob.parent.mkdir(parents=True)
    with blob.open("wb") as file:
        file.truncate(size)
    link = blob.parents[4] / "repositories/team/large/_layers/sha256" / digest.hex / "link"
    link.parent.mkdir(parents=True)
    link.write_text(str(digest))
    registry.push(with_layer(digest, size), "team/large:1")


def with_layer(digest: Digest, size: int) -> Image:
    """Return an image that has one layer, whose bytes are already where they belong."""
    image = images.image(images.layer({"a": b"a"}))
    manifest = json.loads(image.raw)
    manifest["layers"][0] |= {"digest": str(digest), "size": size}
    return replace(image, raw=json.dumps(manifest).encode(), blobs=image.blobs[:1])


def run(package: Path, command: Sequence[str]) -> bool:
    """Run a command of ours, print what it took, and tell whether it was good."""
    program = [
        sys.executable,
        "-c",
        "import sys; from osc_containers.cli.main import main; sys.exit(main(sys.argv[1:]))",
    ]
    _, loaded = _run(sys.executable, "-c", _LOAD)
    began = time.monotonic()
    status, peak = _run(*program, *command, package)
    limit = loaded + MOST
    verdict = "failed" if status else "ok" if peak <= limit else f"more memory than {limit >> 20} MiB"
    took = time.monotonic() - began
    print(f"{' '.join(command[:1]):10}{took:8.1f} s{peak >> 20:6} MiB  {verdict}", flush=True)
    return verdict == "ok"


def _run(*command: str | Path) -> tuple[int, int]:
    """Run a command, and return its status and its peak memory in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    return status, usage.ru_maxrss << 10


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
