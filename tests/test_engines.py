"""What we write is what every engine loads: the right name, and the image that was pinned, in each form there is."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import images
import pytest
from fake_source import FakeSource
from test_prefetch import run, want

pytestmark = pytest.mark.integration

NAME = "registry.example.com:5000/team/app:1.0"


def forms() -> dict[str, tuple[images.Image, str]]:
    """Return images in every form that registries serve, and what is asked for."""
    layers = {kind: images.layer({"etc/one": kind.encode()}, compression=kind) for kind in ("none", "gzip", "zstd")}
    plain = images.image(layers["none"], layers["gzip"])
    return {
        "oci": (plain, NAME),
        "oci, zstd": (images.image(layers["zstd"]), NAME),
        "oci, index": (images.multi_platform("app"), NAME),
        "schema 2": (images.image(layers["gzip"], docker=True), NAME),
        "schema 2, list": (images.multi_platform("app", docker=True), NAME),
        "docker hub": (plain, "docker.io/library/app:latest"),
        "tag and digest": (plain, f"{NAME}@{plain.digest}"),
        "digest": (plain, f"registry.example.com/team/app@{plain.digest}"),
        "digest of an index": (images.multi_platform("app"), ""),
    }


@pytest.fixture(params=forms())
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, images.Image, str]:
    """Give an archive, the image in it, and the name that it should have."""
    image, reference = forms()[request.param]
    reference = reference or f"registry.example.com/team/app@{image.digest}"
    run(FakeSource({reference: image}), tmp_path, *want(reference))
    (path,) = tmp_path.glob("*.ociarchive")
    chosen = image.children[0] if image.children else image
    name, _, digest = reference.partition("@")
    tagged = ":" in name.rpartition("/")[2]
    return path, chosen, name if tagged or not digest else f"{name}@{chosen.digest}"


def output(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def config_of(image: images.Image) -> str:
    return str(json.loads(image.raw)["config"]["digest"])


def test_skopeo_sees_the_manifest_of_the_registry(archive: tuple[Path, images.Image, str], tmp_path: Path) -> None:
    path, image, _ = archive
    assert output("skopeo", "inspect", "--raw", f"oci-archive:{path}").encode() == image.raw
    assert output("skopeo", "inspect", "--format", "{{.Digest}}", f"oci-archive:{path}").strip() == str(image.digest)
    output("skopeo", "--insecure-policy", "copy", "--quiet", f"docker-archive:{path}", f"dir:{tmp_path}/copy")


@pytest.mark.parametrize("load", ["load", "pull"])
def test_podman_has_name_and_digest(archive: tuple[Path, images.Image, str], tmp_path: Path, load: str) -> None:
    path, image, name = archive
    podman = ("podman", "--root", tmp_path / "root", "--runroot", tmp_path / "run", "--storage-driver", "vfs")
    output(*podman, *(("load", "--quiet", "-i", path) if load == "load" else ("pull", "-q", f"oci-archive:{path}")))
    found = json.loads(output(*podman, "image", "inspect", name))[0]
    assert f"sha256:{found['Id']}" == config_of(image)
    assert found["Digest"] == str(image.digest)


@contextmanager
def daemon(command: list[str | Path], log: Path, answers: Callable[[], bool]) -> Iterator[None]:
    """Run a daemon in namespaces of its own, until it answers and while the block runs."""
    with log.open("wb") as written:
        process = subprocess.Popen(["unshare", "--net", "--mount", *command], stdout=written, stderr=written)
    try:
        deadline = time.monotonic() + 60
        while not answers():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the socket of a containerd of our own."""
    directory = tmp_path_factory.mktemp("containerd")
    config = directory / "config.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    places: list[str | Path] = [
        "--root",
        directory / "root",
        "--state",
        directory / "state",
        "--address",
        directory / "socket",
    ]
    ctr: list[str | Path] = ["ctr", "--address", directory / "socket", "version"]
    with daemon(
        ["containerd", "--config", config, *places],
        directory / "log",
        lambda: subprocess.run(ctr, capture_output=True).returncode == 0,
    ):
        yield directory / "socket"


def test_containerd_has_name_and_digest(archive: tuple[Path, images.Image, str], containerd: Path) -> None:
    path, image, name = archive
    ctr = ("ctr", "--address", containerd, "--namespace", path.parent.name[-60:].strip("_-"), "images")
    output(*ctr, "import", "--no-unpack", path)
    lines = [line.split() for line in output(*ctr, "list").splitlines()[1:]]
    assert [(line[0], line[2]) for line in lines] == [(name, str(image.digest))]


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a Docker of our own, with its classic store."""
    directory = tmp_path_factory.mktemp("docker")
    address = f"unix://{directory}/socket"
    places: list[str | Path] = [
        "--data-root",
        directory / "data",
        "--exec-root",
        directory / "exec",
        "--pidfile",
        directory / "pid",
    ]
    command: list[str | Path] = ["dockerd", "--host", address, *places, "--bridge=none", "--iptables=false"]
    answers = ["docker", "--host", address, "info"]
    with daemon(
        [*command, "--storage-driver=vfs"],
        directory / "log",
        lambda: subprocess.run(answers, capture_output=True).returncode == 0,
    ):
        yield address


def test_docker_s_classic_store_has_name_and_image(archive: tuple[Path, images.Image, str], dockerd: str) -> None:
    path, image, name = archive
    if b"+zstd" in image.raw:
        return  # Docker 20.10 cannot unpack it, from whatever archive; later ones can
    loaded = output("docker", "--host", dockerd, "load", "--quiet", "--input", str(path))
    known = name if "@" not in name else config_of(image)  # it has no names with digests: such an image is known by id
    assert known.removeprefix("docker.io/library/") in loaded  # Docker shows its own hub's names short
    assert output("docker", "--host", dockerd, "image", "inspect", "--format", "{{.Id}}", known).strip() == config_of(
        image
    )
