"""A complete package, built offline by obs-build with and without the inject service, and booted."""

import json
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from osc_containers.evidence.sbom.document import FORMATS
from tests.support.e2e.appliance import BLOB, LISTED, OWN_FILE
from tests.support.e2e.builds import Build, Built
from tests.support.e2e.debs import HERE
from tests.support.sbom_validators import problems

pytestmark = pytest.mark.integration

_MODES = {
    path: mode
    for path, mode in LISTED.items()
    if "kiwi_containers" in path
    and "docker" not in path
    and "-extra" not in path
    and not path.endswith(("/stream", "/frame"))
}
"""The documented files for the profile that is built."""


DOCUMENTS = "usr/share/kiwi_containers"

_LIMIT = 600
"""The time limit of a boot in qemu, in seconds; on an idle machine it takes one minute."""


_UNITS = "usr/lib/systemd/system"
_WITH_STORE = {
    **{path: mode for path, mode in _MODES.items() if "side_1.0" not in path},
    f"{_UNITS}/kiwi_containers-podman-side_1.0.service": "lrwxrwxrwx",
    f"{_UNITS}/kiwi_containers-store.service": "-rw-r--r--",
    f"{_UNITS}/kiwi_containers.service.wants/kiwi_containers-store.service": "lrwxrwxrwx",
    "usr/lib/kiwi_containers": "drwxr-xr-x",
    "usr/lib/kiwi_containers/store.images": "-rw-r--r--",
    "usr/lib/kiwi_containers/store.squashfs": "-rw-r--r--",
    "usr/lib/kiwi_containers/store.squashfs.sha256": "-rw-r--r--",
    "usr/libexec/kiwi_containers/check-store": "-rwxr-xr-x",
}
"""The same if one of the containers is in a store."""


def test_build_with_the_inject_service(build: Build, our_debs: Path, tmp_path: Path) -> None:
    support = "Support: obs-service-kiwi-containers-inject\n"
    parameters = [("store", "*/side:*"), *(("sbom", format_) for format_ in FORMATS)]
    arguments = ("init", "--layout", "blobs")
    built = build(*arguments, kiwi="11.*", configuration=support, more=[our_debs], parameters=parameters)
    assert not list(built.package.directory.glob("*.ociarchive"))
    assert "removed <containers>" in built.log
    assert "kiwi_containers.obscpio" not in built.log
    expect_sboms(built, tmp_path)
    expect_what_readme_lists(built, tmp_path, _WITH_STORE)
    built.expect_two_boots(tmp_path, "/usr/lib/containers/storage: podman has its images: 1")
    expect_containers_run_in_their_own_kernel(built, tmp_path)


def expect_sboms(built: Built, directory: Path) -> None:
    """Check the SBOMs among the results, and the list in the image; each has the containers of the image, and no more.

    The profile `main` is built, so that the container for `unused` is in none of them, and nor is Docker's of `extra`.
    """
    expected = {f"{name} {image.digest.hex}" for name, image in built.package.images.items() if "/never:" not in name}
    names = {f"appliance.x86_64-1.0.0.containers.{suffix}.json": format_ for format_, suffix in FORMATS.items()}
    assert {name for name in built.others if "containers" in name} == set(names)
    for name, format_ in names.items():
        assert problems(built.others[name], format_) == []
        assert containers_of(built.others[name]) == expected
    with built.mounted(directory / "documents") as root:
        documents = [path.read_bytes() for path in sorted((root / DOCUMENTS).iterdir())]
        assert set().union(*map(containers_of, documents)) == expected
        for document in documents:
            assert problems(document, "cyclonedx") == []
            assert {each["type"] for each in json.loads(document)["components"]} == {"container"}


def containers_of(sbom: bytes) -> set[str]:
    """Return reference and digest, without its algorithm, of each container in an SBOM."""
    document = json.loads(sbom)
    if document.get("bomFormat"):
        components = document["components"]
        return {f"{each['name']}:{each['version']} {each['hashes'][0]['content']}" for each in components}
    packages = [each for each in document["packages"] if each["primaryPackagePurpose"] == "CONTAINER"]
    return {f"{each['name']}:{each['versionInfo']} {each['checksums'][0]['checksumValue']}" for each in packages}


@pytest.mark.matrix  # workers of OBS build one in tests/e2e/obs
def test_build_with_a_bundle_and_no_service(build: Build, tmp_path: Path) -> None:
    built = build("init", "--inject", "source", "--arch", "x86_64", kiwi="10.3.*")
    assert "kiwi_containers_inject" not in built.log
    expect_what_readme_lists(built, tmp_path, _MODES)
    built.expect_two_boots(tmp_path)


def expect_what_readme_lists(built: Built, directory: Path, listed: Mapping[str, str]) -> None:
    """Compare the image with the documented files, and check that the packager's own files are there."""
    with built.mounted(directory / "listed") as root:
        ours = {path: path.lstat() for path in root.rglob("*") if "kiwi_containers" in str(path.relative_to(root))}
        modes = {str(path.relative_to(root)): stat.filemode(status.st_mode) for path, status in ours.items()}
        assert {path: mode for path, mode in modes.items() if not BLOB.fullmatch(path)} == listed
        links: dict[str, list[int]] = {}
        for path in filter(lambda each: BLOB.fullmatch(str(each.relative_to(root))), ours):
            links.setdefault(path.name, []).append(path.stat().st_nlink)
        # app and side, both for every image, share the file of a layer; tools has its own, because it is for a profile.
        assert ([1, 2, 2] if listed is _MODES else [1, 1]) in map(sorted, links.values())
        expect_shared_layers_once(root)
        assert {(status.st_uid, status.st_gid) for status in ours.values()} == {(0, 0)}
        assert stat.filemode((root / "var/tmp").stat().st_mode) == "drwxrwxrwt"
        assert (root / OWN_FILE).read_text() == "own\n"
        assert not list(root.glob("usr/lib/obs")), "our service is in the build root, not in the image"


def expect_shared_layers_once(root: Path) -> None:
    """Compare what du counts for the layouts of one overlay directory with the sizes of the different blobs."""
    layouts = [path for path in (root / "var/lib/kiwi_containers/layouts").iterdir() if path.name != "tools_2.0"]
    command = ["du", "--summarize", "--total", "--apparent-size", "--block-size=1", *map(str, layouts)]
    counted = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2])
    blobs = [path for layout in layouts for path in layout.rglob("blobs/*/*")]
    unique = sum({path.name: path.stat().st_size for path in blobs}.values())
    print(f"{counted} bytes of layouts, {unique} of unique blobs")
    assert unique < counted < unique * 1.01 + 100_000


def expect_containers_run_in_their_own_kernel(built: Built, directory: Path) -> None:
    """Boot the image in qemu with its own kernel, and run a loaded container and one from the store."""
    with built.mounted(directory / "kernel") as root:
        for name in ("vmlinuz", "initrd.img"):
            (found,) = (root / "boot").glob(f"{name}-*")
            shutil.copy(found, directory / name)
    app, side = (
        next(name for name in built.package.images if name.endswith(part)) for part in ("/app:1.0", "/side:1.0")
    )
    run = "podman run --network=none --pull=never"
    script = f"systemctl start multi-user.target && {run} {app} /bin/hello && {run} {side} /bin/side"
    command: list[str | Path] = [HERE / "qemu", built.image, directory, f"/bin/sh -c '{script}'"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=_LIMIT
    )
    assert done.returncode == 0, done.stdout[-4000:]
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    for expected in ("it runs", "it runs from the store"):
        assert any(line.endswith(expected) for line in lines), done.stdout[-4000:]
