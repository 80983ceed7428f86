"""Which engine cannot load which image, by its manifest. `scripts/engines` shows that it is so."""

from pathlib import Path

import pytest

from osc_containers.kiwi.backend import BACKENDS
from osc_containers.obs import engines
from osc_containers.obs.loadability import judge
from osc_containers.obs.selection import Use
from osc_containers.oci import quirk
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor, Manifest, parse_document
from osc_containers.oci.reference import Reference
from tests.support.images import Image
from tests.support.odd_images import CASES

PAGE = Path(__file__).parent.parent.parent / "docs/engines.md"
APP = Reference.parse("registry.example.com/team/app:1.0")
CLASSIC = "docker cannot load it with the classic image store, the default before 29: "
CONTAINERD = "docker cannot load it with the containerd image store, the default since 29: "
OLD_PODMAN = "podman cannot load it so that it runs, before release 5 of podman: "
PODMAN, DOCKER = "podman cannot load it: ", "docker cannot load it: "
# The start of the problem of each case for podman and for docker; the other cases have none.
PROBLEMS: dict[str, tuple[str, str]] = {
    "layer with URLs": (f"{PODMAN}layers[1] has 'urls'", ""),
    "layer with URLs, not distributable": (f"{PODMAN}layers[1] has 'urls'", ""),
    "layer with URLs, Docker": (f"{PODMAN}layers[1] has 'urls'", ""),
    "layer with URLs, Docker foreign": (f"{PODMAN}layers[1] has 'urls'", ""),
    "OCI manifest, Docker's config": (f"{PODMAN}an OCI manifest with a config of type application/vnd.docker", ""),
    "OCI manifest, Docker's config and layers": (f"{PODMAN}an OCI manifest with a config of type", ""),
    "Docker manifest, OCI layers": (f"{PODMAN}layers[0] in a Docker manifest is application/vnd.oci.image", ""),
    "Docker manifest, OCI layers, zstd": (f"{PODMAN}layers[0] in a Docker manifest is application/vnd.oci", ""),
    "Docker manifest, OCI config and layers": (f"{PODMAN}layers[0] in a Docker manifest is", ""),
    "Docker manifest, zstd": (f"{PODMAN}layers[0] is application/vnd.docker", "docker cannot load it with the cont"),
    "sha512 for the config": (f"{PODMAN}the config has a sha512 digest", f"{DOCKER}the config has a sha512 digest"),
    "sha512 for the layers": (
        f"{PODMAN}layers[0] has no sha256 digest (1 more likewise)",
        f"{DOCKER}layers[0] has no sha256 digest",
    ),
    "sha384 for all": (f"{PODMAN}the config has a sha384 digest", f"{DOCKER}the config has a sha384 digest"),
    "126 layers": ("", f"{CLASSIC}126 layers"),
    "250 layers": (
        "podman cannot load it so that it runs, before release 5 of podman: 250 layers",
        f"{CLASSIC}250 layers",
    ),
    "gzip under a plain type": ("", f"{CONTAINERD}layers[0] is application/vnd.oci.image.layer.v1.tar, but is"),
    "zstd under a plain type": ("", f"{CONTAINERD}layers[0] is application/vnd.oci.image.layer.v1.tar, but is"),
    "unknown layer type": ("", f"{CONTAINERD}layers[0] is application/vnd.oci.image.layer.v1.tar+xz"),
    "bzip2 under a plain type": ("", f"{CONTAINERD}layers[0] is application/vnd.oci.image.layer.v1.tar, but is"),
    "number as a label": (
        f"{PODMAN}config.'config'.'Labels'.'a': got 1, expected a string",
        f"{DOCKER}config.'config'.'Labels'.'a': got 1, expected a string",
    ),
    "text as the date": (f"{PODMAN}config.'created': got 'yesterday'", f"{DOCKER}config.'created': got 'yesterday'"),
    "no diff_ids": ("", f"{DOCKER}config: got 0 diff_ids for 2 layers, expected one for each"),
    "encrypted layer type, though not encrypted": (
        f"{PODMAN}layers[0] is application",
        f"{DOCKER}layers[0] is application",
    ),
}

_OLD_PODMAN = "so that it runs, before release 5 of podman: "
STORE_PROBLEMS = {
    "OCI manifest, Docker's config": "an OCI manifest with a config of type application/vnd.docker",
    "OCI manifest, Docker's config and layers": "an OCI manifest with a config of type",
    "Docker manifest, OCI layers": "layers[0] in a Docker manifest is application/vnd.oci.image",
    "Docker manifest, OCI layers, zstd": "layers[0] in a Docker manifest is application/vnd.oci",
    "Docker manifest, OCI config and layers": "layers[0] in a Docker manifest is",
    "Docker manifest, zstd": "layers[0] is application/vnd.docker",
    "sha512 for the config": "the config has a sha512 digest",
    "sha384 for all": "the config has a sha384 digest",
    "encrypted layer type, though not encrypted": "layers[0] is application",
    "125 layers": f"{_OLD_PODMAN}125 layers",
    "126 layers": f"{_OLD_PODMAN}126 layers",
    "250 layers": f"{_OLD_PODMAN}250 layers",
    "bzip2 under a plain type": "layers[0] is compressed with bzip2",
    "number as a label": "config.'config'.'Labels'.'a': got 1, expected a string",
    "text as the date": "config.'created': got 'yesterday', expected a time",
    "no diff_ids": "config: got 0 diff_ids for 2 layers, expected one for each",
}
"""The problem of each case for a read-only store; the other cases have none."""


def find(image: Image) -> tuple[quirk.Found, ...]:
    """Return the quirks of the image for amd64."""
    part = next(each for each in image.manifests() if each.blobs and b"helm" not in each.raw)
    manifest = parse_document(part.raw, part.media_type, "case")
    assert isinstance(manifest, Manifest)
    blobs = {Digest.of(blob): blob for blob in part.blobs}

    def read_start(layer: Descriptor) -> bytes:
        return blobs.get(layer.digest, b"")[: quirk.MAGIC_SIZE]

    config = quirk.find_in_config(blobs.get(manifest.config.digest, part.blobs[0]), manifest)
    return quirk.find(manifest) + config + quirk.find_in_layers(manifest, read_start)


def use(backend: str, *, arch: str = "x86_64", is_fetch_only: bool = False, is_stored: bool = False) -> Use:
    return Use(arch=arch, backend=backend, is_fetch_only=is_fetch_only, where="a.kiwi:7", is_stored=is_stored)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_an_engine_cannot_load_is_named(name: str, backend: str) -> None:
    problem = PROBLEMS.get(name, ("", ""))[backend == "docker"].replace("podman cannot", f"{backend} cannot")
    judgements = judge(APP, "x86_64", [use(backend)], find(CASES[name](name)))
    assert bool(judgements) == bool(problem)
    if problem:
        always = problem.startswith(f"{backend} cannot load it: ")
        assert judgements[0].why.startswith(f"{APP} (x86_64): {problem}")
        assert (judgements[0].will_fail, judgements[0].is_hopeless, judgements[0].where) == (always, always, "a.kiwi:7")


@pytest.mark.parametrize("name", CASES)
def test_what_a_store_cannot_have_is_named(name: str) -> None:
    judgements = judge(APP, "x86_64", [use("podman", is_stored=True, is_fetch_only=True)], find(CASES[name](name)))
    problem = STORE_PROBLEMS.get(name, "")
    assert bool(judgements) == bool(problem)
    if problem:
        always = not problem.startswith("so that")
        start = f"{APP} (x86_64): a read-only store cannot have it"
        assert judgements[0].why.startswith(f"{start}: {problem}" if always else f"{start} {problem}")
        assert (judgements[0].will_fail, judgements[0].is_hopeless) == (always, always)
        assert not judgements[0].is_fetch_only


def test_every_problem_belongs_to_a_case() -> None:
    assert set(PROBLEMS) | set(STORE_PROBLEMS) < set(CASES)


@pytest.mark.parametrize(
    ("uses", "expected"),
    [
        ([use("podman")], [(True, True)]),
        ([use("podman"), use("docker")], [(True, False)]),
        ([use("podman"), use("container-snap")], [(True, True), (True, True)]),
        ([use("podman", is_fetch_only=True)], [(False, False)]),
        ([use("podman"), use("docker", is_fetch_only=True)], [(True, True)]),
        ([use("podman", arch="aarch64")], []),
        ([use("docker")], []),
        ([], []),
    ],
)
def test_an_image_that_one_engine_loads_is_not_hopeless(uses: list[Use], expected: list[tuple[bool, bool]]) -> None:
    judgements = judge(APP, "x86_64", uses, find(CASES["layer with URLs"]("urls")))
    assert [(each.will_fail, each.is_hopeless) for each in judgements] == expected


def test_the_ways_out_are_named() -> None:
    (judgement,) = judge(APP, "x86_64", [use("podman")], find(CASES["layer with URLs"]("urls")))
    assert judgement.fix == (
        "push a copy of the image without them, use backend='docker', or set "
        "fetch_only='true' and load it in your own way"
    )


def outcomes() -> dict[str, dict[str, list[bool]]]:
    """Return the table of docs/engines.md: whether each engine loads each case, in one release after the other."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [cell.strip().lower() for cell in lines[0].split("|")[2:-1]]
    titles = [cell.split(",")[0].split()[0] + ("-store" if "read-only store" in cell else "") for cell in cells]
    table: dict[str, dict[str, list[bool]]] = {}
    for line in lines[1:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if name in CASES:
            row = table[name] = {}
            for title, cell in zip(titles, cells, strict=True):
                row.setdefault(title, []).append(cell == "yes")
    return table


@pytest.mark.parametrize("backend", ["podman", "podman-store", "docker"])
def test_what_engines_were_seen_not_to_load_is_named(backend: str) -> None:
    table = outcomes()
    assert set(table) == set(CASES), "run scripts/engines"
    for name, row in table.items():
        # Before release 23, Docker knew no zstd; `check` says so of every image that has it.
        loads = row[backend][1:] if backend == "docker" else row[backend]
        wanted = use(backend.removesuffix("-store"), is_stored=backend == "podman-store")
        judgements = judge(APP, "x86_64", [wanted], find(CASES[name](name)))
        assert judgements or all(loads), f"{backend} cannot load {name}"
        assert any(each.will_fail for each in judgements) or any(loads), f"{backend} never loads {name}"


def test_what_ctr_was_seen_not_to_load_is_named_for_engines() -> None:
    uses, choices = [use("podman", is_fetch_only=True)], engines.parse(["containerd=*"])
    for name, row in outcomes().items():
        judgements = judge(APP, "x86_64", uses, find(CASES[name](name)), choices)
        assert bool(judgements) != all(row["ctr"]), name
        assert any(each.is_hopeless for each in judgements) != any(row["ctr"]), name


def test_an_engine_decides_instead_of_the_backend() -> None:
    uses, found = [use("podman", is_fetch_only=True)], find(CASES["sha512 for the config"]("sha512 for the config"))
    (judgement,) = judge(APP, "x86_64", uses, found, engines.parse(["containerd:moby=*"]))
    assert judgement.why.startswith(f"{APP} (x86_64): containerd cannot load it: ")
    assert judgement.fix == (
        "build or push the image again with a current tool, or use a pattern of engine that does not match it, and "
        "load it in your own way"
    )
    assert judgement.is_hopeless
    (judgement,) = judge(APP, "x86_64", uses, found, engines.parse(["containerd=*/other:*"]))
    assert judgement.is_fetch_only
