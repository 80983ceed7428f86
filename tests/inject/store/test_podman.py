"""The store next to the one that podman writes for the same images.

These are podman 4.3 and 5.4, or that of the release in $E2E_SUITE: `make store` has the newest.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from osc_containers.oci.manifest import DOCKER_MANIFEST, MANIFEST
from tests.support import images, layer_tars, store
from tests.support.e2e.machine import SUITES, make_root
from tests.support.engines import output

pytestmark = pytest.mark.integration

NAME = "registry.example.com/team"


def every_kind() -> dict[str, images.Image]:
    """Return images by name that have every kind of layer, manifest and compression."""
    base = images.layer_of(layer_tars.base())
    special, old = layer_tars.special(), layer_tars.old_styles()
    other = images.random_layer("other", 3 << 20, compression="zstd")
    platforms = images.index(images.image(base, images.layer_of(special)), images.small("x", platform=images.ARM64))
    return {
        f"{NAME}/special:1.0": platforms,
        f"{NAME}/docker:1.0": images.image(images.layer_of(old), docker=True, created="2024-01-02T03:04:05.6Z"),
        f"{NAME}/several:1.0": images.image(base, other, images.layer_of(special, compression="none")),
        f"{NAME}/old:1.0": images.image(images.layer_of(old, compression="none")),
    }


class Stores(NamedTuple):
    """A store of ours and one of podman's."""

    ours: Path
    podmans: Path


@pytest.fixture(scope="module", params=SUITES)
def stores(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stores]:
    directory = tmp_path_factory.mktemp("s")
    contents = every_kind()
    squashfs, _ = store.make(directory, contents)
    for number, (name, image) in enumerate(contents.items()):
        _pull(request.param, directory, image, name, directory / str(number))
    with store.mounted(squashfs, directory / "ours") as ours:
        yield Stores(ours=ours, podmans=directory / "p")


IN_ROOT = """
root=$1 directory=$2
shift 2
mount --rbind "$root" "$root"
for each in dev proc sys; do mount --rbind "/$each" "$root/$each"; done
mount -t tmpfs tmp "$root/tmp"
mkdir -p "$root$directory"
mount --rbind "$directory" "$root$directory"
exec chroot "$root" "$@"
"""


def run(suite: str, directory: Path, *command: str | Path) -> None:
    """Run a command of a release of Debian that only needs files below a directory."""
    enter = ("unshare", "--mount", "--propagation=private", "sh", "-euc", IN_ROOT, "sh", make_root(suite))
    output(*enter, directory, *command)


def _pull(suite: str, directory: Path, image: images.Image, name: str, layout: Path) -> None:
    images.write_layout(image, layout, name)
    if image.media_type == MANIFEST:
        command = ("podman", f"--root={directory}/p", f"--runroot={directory}/r", "--storage-driver=overlay")
        output("tar", "--create", f"--file={layout}.tar", f"--directory={layout}", ".")
        run(suite, directory, *command, "pull", "--quiet", f"oci-archive:{layout}.tar")
        return
    # From an index in an archive, podman takes the image, but not the name.
    source = f"oci:{layout}:{name}"
    if image.media_type == DOCKER_MANIFEST:
        # An OCI layout cannot have manifests of Docker, but in a directory skopeo leaves them as they are.
        for blob in (layout / "blobs/sha256").iterdir():
            blob.rename(layout / blob.name)
        (layout / "manifest.json").write_bytes(image.raw)
        source = f"dir:{layout}"
    storage = f"containers-storage:[overlay@{directory}/p+{directory}/r]{name}"
    run(suite, directory, "skopeo", "copy", "--quiet", "--insecure-policy", source, storage)


def test_layers_have_the_files_that_podman_unpacks(stores: Stores) -> None:
    ours, podmans = store.records(stores.ours, "layers"), store.records(stores.podmans, "layers")
    assert ours.keys() == podmans.keys()
    for layer in ours:
        directories = (stores.ours / f"overlay/{layer}/diff", stores.podmans / f"overlay/{layer}/diff")
        mine, theirs = map(store.files, directories)
        assert _without_rootless_marks(mine) == theirs, layer
        mine_times, their_times = map(store.times, directories)
        # podman gives directories that are not in the archive, and whiteouts, the time at which it made them.
        different = {path for path in mine_times if mine_times[path] != their_times[path]}
        assert all(mine_times[path] == 0 for path in different)


def _without_rootless_marks(files: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Check that each opaque directory is marked for rootless users as well, and leave out these marks."""
    result = {}
    for path, (*others, xattrs, content) in files.items():
        assert isinstance(xattrs, dict)
        assert xattrs.get("user.overlay.opaque") == xattrs.get("trusted.overlay.opaque"), path
        kept = {name: value for name, value in xattrs.items() if name != "user.overlay.opaque"}
        result[path] = (*others, kept, content)
    return result


def test_records_are_those_of_podman(stores: Stores) -> None:
    # podman has the dates at which it wrote the records, and room for signatures.
    ignored = {"created", "metadata"}
    for kind in ("layers", "images"):
        ours, podmans = store.records(stores.ours, kind), store.records(stores.podmans, kind)
        assert ours.keys() == podmans.keys()
        for identity, theirs in podmans.items():
            mine = ours[identity]
            for key in theirs.keys() - ignored:
                if key.startswith("big-data"):
                    assert _without_signatures(mine[key]) == _without_signatures(theirs[key])
                else:
                    assert mine[key] == theirs[key], (kind, key)


def _without_signatures(value: object) -> object:
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if not name.startswith("signature-")}
    assert isinstance(value, list)
    return {name for name in value if not name.startswith("signature-")}


def test_tar_split_is_that_of_podman(stores: Stores) -> None:
    for layer in store.records(stores.ours, "layers"):
        assert store.tar_split(stores.ours, layer) == store.tar_split(stores.podmans, layer)


def test_documents_are_those_of_podman(stores: Stores) -> None:
    for identity in store.records(stores.ours, "images"):
        directories = [path / "overlay-images" / identity for path in (stores.ours, stores.podmans)]
        mine, theirs = ({path.name: path.read_bytes() for path in each.iterdir()} for each in directories)
        assert mine == {name: content for name, content in theirs.items() if name in mine}
        assert {name for name in theirs if name not in mine} <= {name for name in theirs if name.startswith("=c2ln")}
