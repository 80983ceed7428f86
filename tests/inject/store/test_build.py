"""Stores as a whole: reproducible, and complete or an error that names the layer."""

import hashlib
import itertools
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from osc_containers.errors import Error
from osc_containers.inject.store import records
from osc_containers.oci import image_config
from osc_containers.oci.digest import Digest
from tests.support import images, layer_tars, store
from tests.support.layer_tars import Writer

NAME = "registry.example.com/app:1.0"
OTHER = "registry.example.com/other:1.0"

needs_mksquashfs = pytest.mark.integration
Install = Callable[[str], dict[str, str]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Return a function that installs a mksquashfs that prints something, and returns the environment for it."""

    def write(output: str) -> dict[str, str]:
        program = tmp_path / "bin/mksquashfs"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{output}\n")
        program.chmod(0o755)
        return {"PATH": f"{program.parent}:/usr/bin:/bin"}

    return write


@pytest.fixture
def stub(install: Install) -> dict[str, str]:
    """Return an environment with a mksquashfs that fails if it is asked for a file system."""
    return install("[ $1 = -version ] && echo 'mksquashfs version 4.6.1 (2023/03/25)'")


def problems(directory: Path, contents: dict[str, images.Image], **options: object) -> list[str]:
    with pytest.raises(Error) as caught:
        store.make(directory, contents, **options)  # type: ignore[arg-type]
    return list(caught.value.problems)


def with_config(image: images.Image, **changes: object) -> images.Image:
    """Return an image with another configuration."""
    manifest, config = json.loads(image.raw), json.loads(image.blobs[0])
    content = json.dumps(config | changes).encode()
    manifest["config"] |= {"digest": str(Digest.of(content)), "size": len(content)}
    return images.Image(
        raw=json.dumps(manifest).encode(), media_type=image.media_type, blobs=(content, *image.blobs[1:])
    )


@needs_mksquashfs
def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    contents = {NAME: images.small("a"), OTHER: images.image(images.layer_of(layer_tars.special()))}
    sums: list[str] = []
    for order in (contents, dict(reversed(contents.items()))):
        directory = tmp_path / str(len(sums))
        directory.mkdir()
        squashfs, summary = store.make(directory, order)
        assert list(summary.images) == sorted(contents)
        assert [path.name for path in squashfs.parent.iterdir()] == [squashfs.name], "a temporary file is left"
        sums.append(hashlib.sha256(squashfs.read_bytes()).hexdigest())
        time.sleep(1.1)  # a time in the file system would be another one now
    assert sums[0] == sums[1]


@needs_mksquashfs
def test_one_image_with_two_names_is_stored_once(tmp_path: Path) -> None:
    base = layer_tars.base()
    packed, plain = (images.image(images.layer_of(base, compression=each)) for each in ("gzip", "none"))
    squashfs, summary = store.make(tmp_path, {NAME: packed, OTHER: plain})
    with store.mounted(squashfs, tmp_path / "m") as mount:
        [record] = store.records(mount, "images").values()
    assert record["names"] == [NAME, OTHER]
    assert {f"manifest-{packed.digest}", f"manifest-{plain.digest}"} < set(record["big-data-names"])  # type: ignore[call-overload]
    assert summary.layer_count == 1


@needs_mksquashfs
def test_layers_can_be_restored_byte_for_byte(tmp_path: Path) -> None:
    layers = [images.layer_of(layer_tars.special()), images.random_layer("r", 5 << 20)]
    squashfs, _ = store.make(tmp_path, {NAME: images.image(*layers)})
    with store.mounted(squashfs, tmp_path / "m") as mount:
        lower = ""
        for layer in layers:
            lower = records.layer_id(lower, layer.diff_id)
            assert Digest.of(store.restore_tar(mount, lower)) == layer.diff_id


def test_every_bad_layer_is_named(tmp_path: Path, stub: dict[str, str]) -> None:
    def layer(name: str) -> images.Layer:
        writer = Writer()
        writer.add(name)
        return images.layer_of(writer.done())

    good = images.layer({"etc/base": b"base\n"})
    first, second = layer("/absolute"), layer("../parent")
    contents = {NAME: images.image(good, first), OTHER: images.image(second)}
    advice = "load this container instead: leave it out of 'store'"
    assert problems(tmp_path, contents, environ=stub) == [
        f"{NAME}: layer 2 of 2, {Digest.of(first.content)}: '/absolute': got an absolute path, expected one relative "
        f"to the root of the layer; {advice}",
        f"{OTHER}: layer 1 of 1, {Digest.of(second.content)}: '../parent': got a path with '..'; {advice}",
    ]


def test_a_damaged_blob_is_named(tmp_path: Path, stub: dict[str, str]) -> None:
    image = images.image(images.layer({"etc/base": b"base\n"}, compression="none"))
    for blob in (Digest.of(image.blobs[1]), Digest.of(image.blobs[0]), image.digest):
        [problem] = problems(tmp_path, {NAME: image}, damaged=blob, environ=stub)
        assert str(blob) in problem
        assert "is damaged" in problem


def test_layers_that_are_not_those_of_the_config_are_refused(tmp_path: Path, stub: dict[str, str]) -> None:
    layer = images.layer({"etc/base": b"base\n"})
    other = images.Layer(content=layer.content, compression="gzip", diff_id=Digest.of(b"other"))
    [problem] = problems(tmp_path, {NAME: images.image(other)}, environ=stub)
    assert f"it unpacks to {layer.diff_id}, expected {other.diff_id} as in the image's configuration" in problem


BAD_CONFIGS = {
    "no layers": ({"rootfs": {"type": "layers", "diff_ids": []}}, "got 0 diff_ids for 1 layers"),
    "one too many": ({"rootfs": {"diff_ids": [f"sha256:{'0' * 64}"] * 2}}, "got 2 diff_ids for 1 layers"),
    "no digest": ({"rootfs": {"diff_ids": ["x"]}}, "config: rootfs.diff_ids: got 'x', expected a digest"),
    "SHA-512": ({"rootfs": {"diff_ids": [f"sha512:{'0' * 128}"]}}, "got another digest algorithm"),
    "no rootfs": ({"rootfs": None}, "config: rootfs: missing"),
}


@pytest.mark.parametrize(("changes", "problem"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_configurations_are_refused(
    tmp_path: Path, stub: dict[str, str], changes: dict[str, object], problem: str
) -> None:
    image = with_config(images.image(images.layer({"etc/base": b"base\n"})), **changes)
    [message] = problems(tmp_path, {NAME: image}, environ=stub)
    assert problem in message


WRONG_TYPES = {
    "date": ({"created": "garbage"}, "config.'created': got 'garbage', expected a time"),
    "date that is none": ({"created": "2024-02-30T00:00:00Z"}, "expected a time"),
    "date in history": ({"history": [{}, {"created": "never"}]}, "config.'history'[1].'created': got 'never'"),
    "history": ({"history": 5}, "config.'history': got 5, expected a list"),
    "architecture": ({"ARCHITECTURE": 7}, "config.'ARCHITECTURE': got 7, expected a string"),
    "environment": ({"config": {"Env": "x"}}, "config.'config'.'Env': got 'x', expected a list"),
    "command": ({"config": {"cmd": [1]}}, "config.'config'.'cmd'[0]: got 1, expected a string"),
    "label": ({"config": {"Labels": {"a": 1}}}, "config.'config'.'Labels'.'a': got 1, expected a string"),
    "port": ({"config": {"ExposedPorts": {"80": 1}}}, "config.'config'.'ExposedPorts'.'80': got 1, expected an object"),
    "health check": ({"config": {"Healthcheck": {"Interval": 1.5}}}, "expected a number"),
    "flag": ({"history": [{"empty_layer": "yes"}]}, "expected a boolean"),
    "large number": ({"size": 1 << 63}, "expected a number"),
}


@pytest.mark.parametrize(("changes", "problem"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_configurations_that_break_podman_are_refused(
    tmp_path: Path, stub: dict[str, str], changes: dict[str, object], problem: str
) -> None:
    """With such an image in a store, "podman images" fails for all images."""
    image = images.image(images.layer({"etc/base": b"base\n"}))
    image_config.check_types(image.blobs[0])
    [message] = problems(tmp_path, {NAME: with_config(image, **changes)}, environ=stub)
    assert problem in message
    assert "; a read-only store cannot have it; load this container instead" in message


def test_other_values_in_a_configuration_are_ignored() -> None:
    config = {
        "created": "0001-01-01T00:00:00.123456789+01:00",
        "config": None,
        "history": [None, {"created": None, "moby.buildkit": 5}],
        "vendor": [{"anything": 1.5}],
        "container_config": {"Volumes": {"/data": None}, "StopTimeout": 10, "Tty": False},
    }
    image_config.check_types(json.dumps(config).encode())


def test_too_many_layers_are_refused(tmp_path: Path, stub: dict[str, str]) -> None:
    image = images.image(*[images.layer({"f": bytes([number])}) for number in range(256)] * 2)
    [problem] = problems(tmp_path, {NAME: image}, environ=stub)
    assert "512 layers, at most 500 can be mounted" in problem


def test_a_missing_mksquashfs_is_named(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, {NAME: images.small("a")}, environ={"PATH": "/nowhere"})
    assert problem == "mksquashfs: not installed, but 'store' needs it; install squashfs or squashfs-tools"


@pytest.mark.parametrize(
    ("output", "shown"), [("mksquashfs version 4.4 (2019/08/29)", "version 4.4"), ("", "an unknown version")]
)
def test_an_old_mksquashfs_is_refused(tmp_path: Path, install: Install, output: str, shown: str) -> None:
    [problem] = problems(tmp_path, {NAME: images.small("a")}, environ=install(f"echo '{output}'"))
    assert problem == f"mksquashfs: got {shown}, expected 4.5 or newer, which can read tar archives"


FAILURES = {
    "at once": ("echo 'no zstd here' >&2; exit 1", "mksquashfs: no zstd here"),
    "at the end": ("cat > /dev/null; echo 'FATAL ERROR: no space left' >&2; exit 1", "no space left"),
    "silently": ('cat > /dev/null; printf "hsqs\\007\\0\\0\\0" > $2', "got a file system of 7 files, expected 32"),
    "with nonsense": ("cat > /dev/null; echo nonsense > $2", "got a file system of"),
}


@pytest.mark.parametrize(("script", "problem"), FAILURES.values(), ids=FAILURES)
def test_failures_of_mksquashfs_are_reported(tmp_path: Path, install: Install, script: str, problem: str) -> None:
    environ = install(f"[ $1 = -version ] && echo 'version 4.6' && exit; {script}")
    [message] = problems(tmp_path, {NAME: images.small("a")}, environ=environ)
    assert problem in message


@pytest.mark.parametrize(
    ("created", "expected"),
    {
        "2024-01-02T03:04:05Z": "2024-01-02T03:04:05Z",
        "2024-01-02t03:04:05.123456789z": "2024-01-02T03:04:05Z",
        "2024-01-02T03:04:05+05:30": "2024-01-01T21:34:05Z",
        "0001-01-01T00:00:00Z": "0001-01-01T00:00:00Z",
        "0987-06-05T04:03:02.1+00:00": "0987-06-05T04:03:02Z",
        "0001-01-01T00:00:00+14:00": "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59-12:00": "1970-01-01T00:00:00Z",
        "2024-13-40T25:61:61Z": "1970-01-01T00:00:00Z",
        "": "1970-01-01T00:00:00Z",
    }.items(),
)
def test_dates_are_those_that_go_reads(created: str, expected: str) -> None:
    assert records.timestamp(created) == expected


MEASURED = """
import resource, sys, zlib
from pathlib import Path
from osc_containers.inject.store import build
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import MANIFEST, parse_document
from osc_containers.fs.ranges import FileSlice
directory = Path(sys.argv[1])
manifest = parse_document((directory / "manifest").read_bytes(), MANIFEST, "manifest")
files = {Digest.of(path.read_bytes()): path.open("rb") for path in directory.iterdir() if path.name != "layer"}
files[manifest.layers[0].digest] = (directory / "layer").open("rb")
workspace = directory / "workspace"
workspace.mkdir()
image = build.StoreImage(name="registry.example.com/app:1.0", image=Image.from_documents(manifest))
build.build([image], lambda blob: FileSlice(files[blob.digest].fileno(), 0), directory / "store", workspace)
# Not ru_maxrss of this process, into which Linux counts the memory of the process that started it.
(own,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(int(own) + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@needs_mksquashfs
def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    size = 200 << 20
    parts = itertools.chain([layer_tars.header(b"zeros", size=size)], itertools.repeat(bytes(1 << 20), size >> 20))
    diff_id, digest, packer = hashlib.sha256(), hashlib.sha256(), zlib.compressobj(1, wbits=31)
    with (tmp_path / "layer").open("wb") as file:
        for part in itertools.chain(parts, [bytes(1024), None]):
            if part:
                diff_id.update(part)
            packed = packer.compress(part) if part else packer.flush()
            digest.update(packed)
            file.write(packed)
    layer = images.Layer(content=b"", compression="gzip", diff_id=Digest("sha256", diff_id.hexdigest()))
    image = images.image(layer)
    manifest = json.loads(image.raw)
    size = (tmp_path / "layer").stat().st_size
    manifest["layers"][0] |= {"digest": f"sha256:{digest.hexdigest()}", "size": size}
    (tmp_path / "manifest").write_text(json.dumps(manifest))
    (tmp_path / "config").write_bytes(image.blobs[0])
    done = subprocess.run([sys.executable, "-c", MEASURED, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 256 << 10, "KiB of the process and of mksquashfs"
