"""Container engines load archives of every form of image that registries serve, and with every form of name.

The package is prefetched by the installed service. Digests are those of the registry: nothing is converted.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from osc_containers.obs.package import Package
from osc_containers.oci.digest import Digest
from osc_containers.oci.platform import Platform
from tests.support import engines, images, packages, service_program
from tests.support.docker_registry import DockerRegistry
from tests.support.engines import output
from tests.support.images import AMD64, ARM64, Image, image, layer

pytestmark = pytest.mark.integration


def _layers(seed: str, *compressions: images.Compression) -> list[images.Layer]:
    return [layer({f"srv/{seed}{n}": seed.encode() * 99}, compression=each) for n, each in enumerate(compressions)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An image, its name in the registry and its attributes in a description, where `{digest}` is its digest."""

    pushed_name: str
    image: Image
    attributes: str
    name: str
    """The name in engines."""
    source: str = "HOST"
    arch: str = "x86_64"

    @property
    def manifest(self) -> Image:
        """The manifest of the architecture."""
        return next(part for part in self.image.manifests() if part.platform == self.platform and part.blobs)

    @property
    def platform(self) -> Platform:
        """The platform of the architecture."""
        return {"x86_64": AMD64, "aarch64": ARM64}[self.arch]

    @property
    def top(self) -> Image:
        """The document that `index.json` names: an index of manifests, or else the manifest."""
        if not self.image.children:
            return self.image
        return self.image if all(child.blobs for child in self.image.children) else self.image.children[0]

    @property
    def config(self) -> Digest:
        """The ID of the image in docker and podman."""
        return Digest.of(self.manifest.blobs[0])


_INDEX = images.multi_platform("engines")
_LIST = images.multi_platform("engines", docker=True)
_NESTED = images.index(images.index(image(*_layers("nested", "gzip"))), images.small("nested", platform=ARM64))
_TAG = 'name="{}" path="engines" tag="1.0"'
_FORMS = {
    "index": _INDEX,
    "list": _LIST,
    "nested": _NESTED,
    "single": images.small("engines-single"),
    "docker": images.small("engines-docker", docker=True),
    "plain": image(*_layers("plain", "none", "none")),
    "gzip": image(*_layers("gzip", "gzip", "gzip")),
    "zstd": image(*_layers("zstd", "zstd", "zstd")),
    "mixed": image(*_layers("mixed", "none", "zstd", "gzip")),
    "docker-plain": image(*_layers("docker-plain", "none", "gzip"), docker=True),
    "typeless": image(*_layers("typeless", "gzip"), media_types=False),
    "twice": image(*_layers("twice", "gzip") * 2),
}
_CASES = {
    **{
        form: Case(
            pushed_name=f"engines/{form}:1.0", image=made, attributes=_TAG.format(form), name=f"HOST/engines/{form}:1.0"
        )
        for form, made in _FORMS.items()
    },
    **{
        f"{form}-aarch64": Case(
            pushed_name=f"engines/{form}:1.0",
            image=_FORMS[form],
            attributes=_TAG.format(form),
            name=f"HOST/engines/{form}:1.0",
            arch="aarch64",
        )
        for form in ("index", "list")
    },
    "tag and digest": Case(
        pushed_name="engines/pinned:2.0",
        image=_INDEX,
        attributes='name="pinned" path="engines" tag="2.0@{digest}"',
        name="HOST/engines/pinned:2.0",
    ),
    "digest": Case(
        pushed_name="engines/digest:2.0",
        image=_LIST,
        attributes='name="digest" path="engines" tag="{digest}"',
        name=f"HOST/engines/digest@{_LIST.digest}",
    ),
    "docker.io": Case(
        pushed_name="library/engine:latest",
        image=images.small("hub"),
        attributes='name="engine"',
        source="docker.io",
        name="docker.io/library/engine:latest",
    ),
}
_HUB = '[[registry]]\nprefix = "docker.io"\nlocation = "HOST"\ninsecure = true\n'


@pytest.fixture(scope="module")
def package(installed: Path, docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package with the archives of all cases. The registry of the tests is a mirror of docker.io for it."""
    host, base = docker_registry.host, tmp_path_factory.mktemp("engines")
    sections: dict[str, None] = {}  # without duplicates
    for case in _CASES.values():
        docker_registry.push(case.image, case.pushed_name)
        attributes = case.attributes.format(digest=case.image.digest)
        source = case.source.replace("HOST", host)
        sections[packages.section(source, f'{attributes} arch="{case.arch}"')] = None
    configuration = base / "home/.config/containers/registries.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(_HUB.replace("HOST", host))
    package = packages.write(base / "package", *sections)
    done = service_program.run(
        installed / "lib/obs/service/kiwi_containers",
        package,
        "--arch=x86_64,aarch64",
        environment={"HOME": str(base / "home")},
    )
    assert done.returncode == 0, done.stderr
    return package


def archive_of(package: Path, registry: DockerRegistry, case: Case) -> Path:
    """Return the archive of a case, according to the lock."""
    names = Package(package).require_lock().archive_names()
    found = [
        name
        for (reference, arch), name in names.items()
        if str(reference).partition("@")[0] == case.name.partition("@")[0].replace("HOST", registry.host)
        and arch == case.arch
    ]
    assert len(found) == 1
    return package / found[0]


@pytest.fixture(params=_CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return _CASES[request.param]


@pytest.fixture
def archive(package: Path, docker_registry: DockerRegistry, case: Case) -> Path:
    return archive_of(package, docker_registry, case)


@pytest.fixture
def name(docker_registry: DockerRegistry, case: Case) -> str:
    return case.name.replace("HOST", docker_registry.host)


def test_skopeo_reads_the_original_manifest(archive: Path, case: Case, tmp_path: Path) -> None:
    skopeo = ("skopeo", f"--override-arch={case.platform.architecture}")
    image = json.loads(output(*skopeo, "inspect", f"oci-archive:{archive}"))
    assert image["Digest"] == str(case.top.digest)
    assert output(*skopeo, "inspect", "--raw", f"oci-archive:{archive}").encode() == case.top.raw
    output(*skopeo, "copy", "--preserve-digests", f"oci-archive:{archive}", f"dir:{tmp_path}")
    assert (tmp_path / "manifest.json").read_bytes() == case.manifest.raw
    assert {Digest.of(blob).hex for blob in case.manifest.blobs} <= {path.name for path in tmp_path.iterdir()}


def test_skopeo_reads_the_archive_as_a_docker_archive(archive: Path, case: Case, name: str, tmp_path: Path) -> None:
    output("skopeo", "copy", f"docker-archive:{archive}", f"dir:{tmp_path}")
    assert json.loads((tmp_path / "manifest.json").read_text())["config"]["digest"] == str(case.config)
    if "@" not in name:
        config = json.loads(output("skopeo", "inspect", "--config", f"docker-archive:{archive}:{name}"))
        assert config["os"] == "linux"


@pytest.fixture(scope="module")
def podman() -> Iterator[Sequence[str]]:
    with engines.podman() as command:
        yield command


def test_podman_loads_an_archive_with_name_and_all_digests(
    podman: Sequence[str], archive: Path, case: Case, name: str
) -> None:
    if case.platform == AMD64:
        assert output(*podman, "load", "--quiet", "--input", archive).strip() == f"Loaded image: {name}"
    else:  # `load` wants the image of this machine's architecture
        output(*podman, "pull", "--quiet", f"--arch={case.platform.architecture}", f"oci-archive:{archive}")
    repository = re.sub(r"[:@][^/]*$", "", name)
    digests = {f"{repository}@{digest}" for digest in (case.top.digest, case.manifest.digest)}
    for each in (name, *digests):
        image = json.loads(output(*podman, "image", "inspect", each))[0]
        assert image["Id"] == case.config.hex, each
        assert image["Architecture"] == case.platform.architecture
    assert set(image["RepoDigests"]) == digests
    output(*podman, "image", "rm", "--force", case.config.hex)


@pytest.fixture(scope="module")
def docker() -> Iterator[Sequence[str]]:
    with engines.docker() as command:
        yield command


# Docker supports zstd since 23.0, but Debian 12 has 20.10.
@pytest.mark.parametrize("case", [name for name in _CASES if name not in ("zstd", "mixed")], indirect=True)
def test_docker_loads_an_archive_with_its_name(docker: Sequence[str], archive: Path, case: Case, name: str) -> None:
    output(*docker, "load", "--quiet", "--input", archive)
    is_named = "@" not in name  # docker has no names with digests; such an image is only known by its ID
    image = json.loads(output(*docker, "image", "inspect", name if is_named else str(case.config)))[0]
    assert image["Id"] == str(case.config)
    # Docker shortens the names of images on Docker Hub.
    assert image["RepoTags"] == ([name.removeprefix("docker.io/library/")] if is_named else [])
    output(*docker, "image", "rm", "--force", str(case.config))


@pytest.fixture(scope="module")
def ctr() -> Iterator[Sequence[str]]:
    with engines.containerd() as command:
        yield command


def test_containerd_imports_an_archive_with_name_and_digest(
    ctr: Sequence[str], archive: Path, case: Case, name: str
) -> None:
    output(*ctr, "images", "import", "--no-unpack", f"--platform={case.platform}", archive)
    lines = [line.split() for line in output(*ctr, "images", "list").splitlines()[1:]]
    digests = {line[0]: line[2] for line in lines}
    assert digests == {name: str(case.top.digest)}
    for reference in digests:
        output(*ctr, "images", "remove", reference)


def test_podman_mounts_a_loaded_image(podman: Sequence[str], package: Path, docker_registry: DockerRegistry) -> None:
    """All layers are unpacked in order, so the file of the first one is in the mounted image."""
    for form in ("plain", "gzip", "zstd", "mixed"):
        output(*podman, "load", "--quiet", "--input", archive_of(package, docker_registry, _CASES[form]))
        name = f"{docker_registry.host}/engines/{form}:1.0"
        mount_point = Path(output(*podman, "image", "mount", name).strip())
        assert sorted(os.listdir(mount_point / "srv"))[0] == f"{form}0"
        output(*podman, "image", "unmount", name)


def test_an_export_of_blobs_is_the_archive(installed: Path, package: Path, tmp_path: Path) -> None:
    """So engines load it, too; nothing is downloaded for the other layout."""
    blobs, program = tmp_path / "package", installed / "bin/osc-containers"
    shutil.copytree(package, blobs)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": "/dev/null"}
    for command in (["prefetch", "--locked", "--layout", "blobs"], ["verify"]):
        subprocess.run([program, *command, "--arch", "x86_64"], cwd=blobs, env=environment, check=True)
    assert not list(blobs.glob("*.ociarchive"))
    names = Package(package).require_lock().archive_names()
    mine = {reference: name for (reference, arch), name in names.items() if arch == "x86_64"}
    for reference, name in mine.items():
        command = ["export", str(reference), str(tmp_path / "x"), "--force", "--arch", "x86_64"]
        subprocess.run([program, *command], cwd=blobs, env=environment, check=True, stdout=subprocess.DEVNULL)
        assert (tmp_path / "x").read_bytes() == (package / name).read_bytes()
