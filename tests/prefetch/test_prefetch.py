"""The network half against a source over a dict: what is fetched, what is kept, what is left when something fails."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from osc_containers.errors import Error, LockError, RegistryError, VerificationError
from osc_containers.obs.package import Package
from osc_containers.obs.selection import ImageRequest
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import DOCKER_MANIFEST, INDEX
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import APP, LAYOUTS, WEB, hashes, identities, run_prefetch, want


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    """Return the layout of the sources, for tests in which it makes no difference."""
    return str(request.param)


def image_files(directory: Path) -> list[Path]:
    """Return the files that hold images, in either layout."""
    return sorted(path for path in directory.iterdir() if path.suffix in (".ociarchive", ".blob"))


def test_the_first_run_writes_lock_and_archives(tmp_path: Path) -> None:
    source = FakeSource({APP: images.multi_platform("app"), WEB: images.small("web")})
    run_prefetch(source, tmp_path, *want(APP, architectures=("x86_64", "aarch64")), *want(WEB))
    assert sorted(hashes(tmp_path)) == [
        "containers.lock",
        "registry.example.com_team_app_1.0.aarch64.ociarchive",
        "registry.example.com_team_app_1.0.x86_64.ociarchive",
        "registry.example.com_team_web_1.0.x86_64.ociarchive",
    ]
    document = json.loads((tmp_path / "containers.lock").read_text())
    assert document["containers"][APP]["digest"] == str(source.tags[APP].digest)
    amd64 = document["containers"][APP]["architectures"]["x86_64"]
    assert amd64["manifest"]["digest"] == str(source.tags[APP].children[0].digest)
    assert amd64["created"] == "1970-01-01T00:00:00Z"
    assert sorted(amd64) == ["config", "created", "indexes", "layers", "manifest"]


def test_a_blob_that_archives_share_is_fetched_once(tmp_path: Path) -> None:
    source = FakeSource({APP: images.small("app"), WEB: images.small("web")})
    run_prefetch(source, tmp_path, *want(APP, WEB))
    shared = [Digest.of(blob) for blob in source.tags[APP].blobs if blob in source.tags[WEB].blobs]
    assert len(shared) == 1
    assert source.asked[str(shared[0])] == 1


def test_a_second_run_asks_one_question_a_reference_and_writes_nothing(tmp_path: Path, layout: str) -> None:
    source = FakeSource({APP: images.multi_platform("app"), WEB: images.small("web")})
    run_prefetch(source, tmp_path, *want(APP, WEB), layout=layout)
    before = identities(tmp_path)
    source.asked.clear()
    run_prefetch(source, tmp_path, *want(APP, WEB), layout=layout)
    assert source.asked == {"resolve": 2}
    assert identities(tmp_path) == before


def test_what_did_not_change_is_not_written_to_the_outdir(tmp_path: Path) -> None:
    source = FakeSource({APP: images.small("app"), WEB: images.small("web")})
    package, outdir = tmp_path / "package", tmp_path / "out"
    package.mkdir()
    outdir.mkdir()
    run_prefetch(source, package, *want(APP, WEB))
    source.tags[WEB] = images.small("web2")
    run_prefetch(source, package, *want(APP, WEB), outdir=outdir)
    assert sorted(hashes(outdir)) == ["containers.lock", "registry.example.com_team_web_1.0.x86_64.ociarchive"]


def test_results_of_an_earlier_run_are_linked_from_osc_s_old_directory(tmp_path: Path) -> None:
    source = FakeSource({APP: images.small("app")})
    old, outdir = tmp_path / "package" / ".old", tmp_path / "out"
    old.mkdir(parents=True)
    outdir.mkdir()
    run_prefetch(source, tmp_path / "package", *want(APP))
    for path in list((tmp_path / "package").iterdir()):
        if path != old:
            path.rename(old / f"_service:kiwi_containers:{path.name}")
    source.asked.clear()
    run_prefetch(source, tmp_path / "package", *want(APP), outdir=outdir)
    assert source.asked == {"resolve": 1}
    assert sorted(hashes(outdir)) == ["containers.lock", "registry.example.com_team_app_1.0.x86_64.ociarchive"]
    assert (outdir / "registry.example.com_team_app_1.0.x86_64.ociarchive").stat().st_nlink == 2


def test_a_moved_tag_brings_only_the_layers_that_are_new(tmp_path: Path, layout: str) -> None:
    base = images.random_layer("base", 50_000)
    source = FakeSource({APP: images.image(base, images.random_layer("one", 1000))})
    run_prefetch(source, tmp_path, *want(APP), layout=layout)
    source.tags[APP] = images.image(base, images.random_layer("two", 1000))
    source.asked.clear()
    run_prefetch(source, tmp_path, *want(APP), layout=layout)
    assert source.asked["blob"] == 2  # the configuration and the new layer


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("layers", lambda layers: layers[:1]),
        ("layers", lambda layers: [*layers, *layers]),
        ("layers", lambda layers: [layers[0] | {"mediaType": "text/plain"}, layers[1]]),
        ("manifest", lambda manifest: manifest | {"size": manifest["size"] - 100}),
        ("manifest", lambda manifest: manifest | {"mediaType": DOCKER_MANIFEST}),
        ("config", lambda config: config | {"digest": f"sha256:{1:064x}"}),
        ("created", lambda created: "2001-01-01T00:00:00Z"),
    ],
)
def test_a_lock_that_says_other_than_its_archive_is_mended(
    tmp_path: Path, layout: str, key: str, change: Callable[[Any], object]
) -> None:
    """As a merge of two locks may come out; the archive that it names may be there, or not."""
    source = FakeSource({APP: images.image(images.random_layer("one", 5000), images.random_layer("two", 5000))})
    run_prefetch(source, tmp_path, *want(APP), layout=layout)
    before = hashes(tmp_path)
    document = json.loads((tmp_path / "containers.lock").read_text())
    [image] = document["containers"][APP]["architectures"].values()
    image[key] = change(image[key])
    wrong = json.dumps(document)
    for is_missing in (False, True):
        (tmp_path / "containers.lock").write_text(wrong)
        for path in image_files(tmp_path) if is_missing else ():
            path.unlink()
        run_prefetch(source, tmp_path, *want(APP), layout=layout)
        assert hashes(tmp_path) == before
    (tmp_path / "containers.lock").write_text(wrong)
    locked = hashes(tmp_path)
    with pytest.raises((LockError, VerificationError, RegistryError)):
        run_prefetch(source, tmp_path, *want(APP), locked=True, layout=layout)
    assert hashes(tmp_path) == locked


def test_a_lock_of_two_images_with_the_archive_of_one_is_mended(tmp_path: Path, layout: str) -> None:
    """As a merge may leave it, together with the archive of the other side."""
    ours, theirs = (tmp_path / name for name in ("ours", "theirs"))
    for directory, name in ((ours, "one"), (theirs, "two")):
        directory.mkdir()
        run_prefetch(FakeSource({APP: images.small(name)}), directory, *want(APP), layout=layout)
    before = hashes(ours)
    documents = [json.loads((directory / "containers.lock").read_text()) for directory in (ours, theirs)]
    [image], [other] = (document["containers"][APP]["architectures"].values() for document in documents)
    image |= {name: other[name] for name in ("config", "layers")}
    (ours / "containers.lock").write_text(json.dumps(documents[0]))
    for path in image_files(theirs):
        shutil.copy(path, ours)
    source = FakeSource({APP: images.small("one")})
    with pytest.raises(LockError, match="run the prefetch without 'locked'"):
        run_prefetch(source, ours, *want(APP), locked=True, layout=layout)
    run_prefetch(source, ours, *want(APP), layout=layout)
    assert hashes(ours) == before


def test_a_lock_with_the_digest_of_another_image_than_it_has_is_mended(tmp_path: Path, layout: str) -> None:
    """As a merge may leave it, of which somebody took either side in each place."""
    source = FakeSource({APP: images.small("one")})
    run_prefetch(source, tmp_path, *want(APP), layout=layout)
    source.tags[APP] = images.small("two")
    document = json.loads((tmp_path / "containers.lock").read_text())
    document["containers"][APP]["digest"] = str(source.tags[APP].digest)
    (tmp_path / "containers.lock").write_text(json.dumps(document))
    run_prefetch(source, tmp_path, *want(APP), layout=layout)
    [image] = json.loads((tmp_path / "containers.lock").read_text())["containers"][APP]["architectures"].values()
    assert image["manifest"]["digest"] == str(source.tags[APP].digest)


@pytest.mark.parametrize("media_type", [INDEX, DOCKER_MANIFEST, "text/plain"])
def test_a_lock_with_another_media_type_than_its_image_has_is_mended(
    tmp_path: Path, layout: str, media_type: str
) -> None:
    source = FakeSource({APP: images.small("one")})
    run_prefetch(source, tmp_path, *want(APP), layout=layout)
    before = hashes(tmp_path)
    document = json.loads((tmp_path / "containers.lock").read_text())
    document["containers"][APP]["mediaType"] = media_type
    (tmp_path / "containers.lock").write_text(json.dumps(document))
    run_prefetch(source, tmp_path, *want(APP), layout=layout)
    assert hashes(tmp_path) == before


def test_an_archive_that_was_damaged_is_made_again_from_what_is_whole(tmp_path: Path) -> None:
    base = images.random_layer("base", 50_000)
    source = FakeSource({APP: images.image(base, images.random_layer("one", 50_000))})
    run_prefetch(source, tmp_path, *want(APP))
    before = hashes(tmp_path)
    archive = tmp_path / "registry.example.com_team_app_1.0.x86_64.ociarchive"
    damaged = bytearray(archive.read_bytes())
    damaged[60_000] ^= 1
    archive.write_bytes(damaged)
    source.asked.clear()
    run_prefetch(source, tmp_path, *want(APP))
    assert hashes(tmp_path) == before
    assert source.asked["blob"] == 1


def test_archives_that_nothing_asks_for_are_removed_and_nothing_else(tmp_path: Path) -> None:
    source = FakeSource({APP: images.small("app"), WEB: images.small("web")})
    (tmp_path / "mine.ociarchive").write_bytes(b"mine")
    run_prefetch(source, tmp_path, *want(APP, WEB))
    run_prefetch(source, tmp_path, *want(APP))
    assert sorted(hashes(tmp_path)) == [
        "containers.lock",
        "mine.ociarchive",
        "registry.example.com_team_app_1.0.x86_64.ociarchive",
    ]


BOTH = ("x86_64", "aarch64")


def test_a_part_of_what_is_asked_for_leaves_the_rest_as_it_is(tmp_path: Path) -> None:
    source = FakeSource({APP: images.multi_platform("app"), WEB: images.multi_platform("web")})
    everything = want(APP, WEB, architectures=BOTH)
    run_prefetch(source, tmp_path, *everything)
    before = hashes(tmp_path)
    source.tags[WEB] = images.small("moved")
    run_prefetch(source, tmp_path, *want(APP), asked=everything)
    assert hashes(tmp_path) == before
    run_prefetch(source, tmp_path, *want(APP), asked=want(APP, WEB))
    assert [name for name in before if name not in hashes(tmp_path)] == [
        "registry.example.com_team_app_1.0.aarch64.ociarchive",
        "registry.example.com_team_web_1.0.aarch64.ociarchive",
    ]


def test_a_tag_moves_for_every_architecture_that_is_asked_for(tmp_path: Path, layout: str) -> None:
    source = FakeSource({APP: images.multi_platform("app")})
    run_prefetch(source, tmp_path, *want(APP, architectures=BOTH), layout=layout)
    source.tags[APP] = images.multi_platform("moved")
    run_prefetch(source, tmp_path, *want(APP), asked=want(APP, architectures=BOTH), layout=layout)
    before = hashes(tmp_path)
    run_prefetch(source, tmp_path, *want(APP, architectures=BOTH), layout=layout)
    assert hashes(tmp_path) == before


def test_a_locked_part_fetches_no_more_than_that(tmp_path: Path) -> None:
    source = FakeSource({APP: images.multi_platform("app")})
    everything = want(APP, architectures=BOTH)
    run_prefetch(source, tmp_path, *everything)
    before = hashes(tmp_path)
    for path in tmp_path.glob("*.ociarchive"):
        path.unlink()
    run_prefetch(source, tmp_path, *want(APP), locked=True, asked=everything)
    gone = "registry.example.com_team_app_1.0.aarch64.ociarchive"
    assert hashes(tmp_path) == {name: content for name, content in before.items() if name != gone}


def test_a_locked_run_fetches_what_is_pinned_and_asks_for_no_tag(tmp_path: Path, layout: str) -> None:
    source = FakeSource({APP: images.small("app")})
    run_prefetch(source, tmp_path, *want(APP), layout=layout)
    before = hashes(tmp_path)
    for path in image_files(tmp_path):
        path.unlink()
    source.tags["registry.example.com/team/app:old"] = source.tags[APP]
    source.tags[APP] = images.small("newer")
    source.asked.clear()
    run_prefetch(source, tmp_path, *want(APP), locked=True, layout=layout)
    assert hashes(tmp_path) == before
    assert source.asked["resolve"] == 0


def test_a_locked_run_keeps_the_lock_byte_for_byte(tmp_path: Path, layout: str) -> None:
    source = FakeSource({APP: images.small("app")})
    run_prefetch(source, tmp_path, *want(APP), layout=layout)
    path = tmp_path / "containers.lock"
    path.write_text(path.read_text().replace('"version": 1', '"more": 7,\n  "version":1'))
    before = hashes(tmp_path)
    run_prefetch(source, tmp_path, *want(APP), locked=True, layout=layout)
    assert hashes(tmp_path) == before
    path.rename(tmp_path / "_service:kiwi_containers:containers.lock")
    run_prefetch(source, tmp_path, *want(APP), locked=True, layout=layout)
    assert hashes(tmp_path)["containers.lock"] == before["containers.lock"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (want(WEB), "a.kiwi:7: registry.example.com/team/web:1.0 for x86_64 is not in the lock"),
        (
            want(APP, architectures=("s390x",)),
            "a.kiwi:7: registry.example.com/team/app:1.0 for s390x is not in the lock",
        ),
    ],
)
def test_a_locked_run_fails_where_the_lock_does_not_cover(
    wanted: Sequence[ImageRequest], message: str, tmp_path: Path, layout: str
) -> None:
    run_prefetch(FakeSource({APP: images.small("app")}), tmp_path, *want(APP), layout=layout)
    before = hashes(tmp_path)
    with pytest.raises(LockError) as caught:
        run_prefetch(FakeSource({}), tmp_path, *wanted, locked=True, layout=layout)
    assert str(caught.value).startswith(message)
    assert hashes(tmp_path) == before


def test_a_locked_run_without_a_lock_says_so(tmp_path: Path) -> None:
    with pytest.raises(LockError, match=r"containers.lock: not there, but this run is locked"):
        run_prefetch(FakeSource({}), tmp_path, *want(APP), locked=True)


def test_an_image_is_had_for_every_architecture_or_it_is_said_which_there_are(tmp_path: Path) -> None:
    source = FakeSource({APP: images.multi_platform("app"), WEB: images.small("web")})
    with pytest.raises(RegistryError) as caught:
        run_prefetch(source, tmp_path, *want(APP, WEB, architectures=("s390x",)))
    assert str(caught.value).splitlines() == [
        f"a.kiwi:7: {APP}: no image for linux/s390x (in kiwi: s390x); available: linux/amd64, linux/arm64/v8; "
        "list the container's architectures in its 'arch' attribute",
        f"a.kiwi:7: {WEB}: no image for linux/s390x (s390x); it is for linux/amd64 only",
    ]
    assert hashes(tmp_path) == {}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (images.helm_chart(), "not an image but an artifact of type 'application/vnd.cncf.helm.config.v1+json'"),
        (images.artifact(), "not an image but an artifact of type 'application/vnd.example.thing'"),
    ],
)
def test_what_is_not_an_image_is_refused(image: images.Image, message: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=re.escape(message)):
        run_prefetch(FakeSource({APP: image}), tmp_path, *want(APP))
    assert hashes(tmp_path) == {}


def test_nested_indexes_are_followed(tmp_path: Path) -> None:
    run_prefetch(FakeSource({APP: images.index(images.index(images.small("app")))}), tmp_path, *want(APP))
    assert len(hashes(tmp_path)) == 2


@pytest.mark.parametrize("cut", [None, 50_000])
def test_a_wrong_byte_or_a_short_blob_leaves_nothing(cut: int | None, tmp_path: Path, layout: str) -> None:
    image = images.image(images.random_layer("one", 100_000))
    layer = image.blobs[1]
    served = layer[:cut] if cut else bytes([layer[0] ^ 1]) + layer[1:]
    with pytest.raises((VerificationError, RegistryError), match=f"blob {Digest.of(layer)}: got"):
        run_prefetch(FakeSource({APP: image}, damaged={Digest.of(layer): served}), tmp_path, *want(APP), layout=layout)
    assert hashes(tmp_path) == {}


def test_manifests_that_give_one_blob_two_sizes_are_refused(tmp_path: Path, layout: str) -> None:
    honest = images.image(images.random_layer("one", 10_000))
    size = len(honest.blobs[1])
    lying = replace(honest, raw=honest.raw.replace(f'"size": {size}'.encode(), f'"size": {size + 512}'.encode()))
    assert lying.raw != honest.raw
    with pytest.raises(VerificationError, match=rf"its manifest says {size + 512} bytes, that of .* says {size}"):
        run_prefetch(FakeSource({APP: honest, WEB: lying}), tmp_path, *want(APP, WEB), layout=layout)
    assert hashes(tmp_path) == {}


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_names_that_are_taken_are_said_before_anything_is_fetched(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    source = FakeSource({APP: images.small("app"), WEB: images.small("web")})
    (tmp_path / "outdir").mkdir()
    archive = "registry.example.com_team_app_1.0.x86_64.ociarchive"
    taken = [tmp_path / "outdir" / name for name in ("containers.lock", archive)]
    for path in taken:
        make(path)
    with pytest.raises(Error) as caught:
        run_prefetch(source, tmp_path, *want(APP, WEB), outdir=tmp_path / "outdir")
    expected = "got a directory or a special file, expected a file or nothing; remove it"
    assert caught.value.problems == tuple(f"{path}: {expected}" for path in taken)
    assert source.asked["blob"] == 2  # the configurations
    assert sorted((tmp_path / "outdir").iterdir()) == taken


def test_a_file_that_only_a_lock_names_is_not_removed(tmp_path: Path) -> None:
    run_prefetch(FakeSource({APP: images.small("app"), WEB: images.small("web")}), tmp_path, *want(APP, WEB))
    lock = tmp_path / "containers.lock"
    (web,) = (path for path in tmp_path.glob("*.ociarchive") if "web" in path.name)
    precious = web.rename(tmp_path / "precious.ociarchive")
    lock.write_text(lock.read_text().replace(web.name, precious.name))
    run_prefetch(FakeSource({APP: images.small("app")}), tmp_path, *want(APP))
    assert precious.exists()
    assert "web" not in lock.read_text()


def test_a_second_run_at_the_same_time_says_who_is_at_work(tmp_path: Path) -> None:
    with (
        Package(tmp_path).hold(),
        pytest.raises(Error, match=rf"in use by process {os.getpid()}; wait until it has ended"),
    ):
        run_prefetch(FakeSource({APP: images.small("app")}), tmp_path, *want(APP))


def test_output_depends_on_no_umask_locale_time_zone_or_hash_seed(tmp_path: Path) -> None:
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); os.umask(int(sys.argv[1], 8))\n"
        "from pathlib import Path; from tests.support import images, prefetch_run as t\n"
        "from tests.support.fake_source import FakeSource\n"
        "s = FakeSource({t.APP: images.multi_platform('app'), t.WEB: images.small('web', docker=True)})\n"
        "t.run_prefetch(s, Path('.'), *t.want(t.APP, t.WEB))\n"
    )
    found = []
    for number, (umask, zone, locale) in enumerate([("022", "UTC", "C"), ("077", "Asia/Tokyo", "tr_TR.UTF-8")]):
        directory = tmp_path / str(number)
        directory.mkdir()
        environment = {**os.environ, "TZ": zone, "LC_ALL": locale, "PYTHONHASHSEED": str(number)}
        command = [sys.executable, "-c", program, umask, str(Path(__file__).resolve().parents[2])]
        subprocess.run(command, cwd=directory, env=environment, check=True)
        found.append((hashes(directory), {path.name: path.stat().st_mode for path in directory.iterdir()}))
    assert found[0] == found[1]


def with_other_image(directory: Path, source: FakeSource) -> None:
    """Put another image, with its archive, in the place of APP; the lock keeps the true digest of the index."""
    evil = directory.parent / "evil"
    evil.mkdir()
    run_prefetch(FakeSource({APP: images.multi_platform("evil")}), evil, *want(APP))
    own, other = (json.loads((each / "containers.lock").read_text()) for each in (directory, evil))
    own["containers"][APP]["architectures"] = other["containers"][APP]["architectures"]
    (directory / "containers.lock").write_text(json.dumps(own, indent=2, sort_keys=True) + "\n")
    name = "registry.example.com_team_app_1.0.x86_64.ociarchive"
    (directory / name).write_bytes((evil / name).read_bytes())


def test_another_image_under_the_true_digest_is_replaced(tmp_path: Path) -> None:
    (package := tmp_path / "package").mkdir()
    source = FakeSource({APP: images.multi_platform("app")})
    run_prefetch(source, package, *want(APP))
    before = hashes(package)
    with_other_image(package, source)
    run_prefetch(source, package, *want(APP))
    assert hashes(package) == before


def test_another_image_under_the_true_digest_fails_if_locked(tmp_path: Path) -> None:
    (package := tmp_path / "package").mkdir()
    source = FakeSource({APP: images.multi_platform("app")})
    run_prefetch(source, package, *want(APP))
    with_other_image(package, source)
    before = hashes(package)
    with pytest.raises(
        LockError, match=r"its index is sha256:\S+ of .*, but the lock says that the reference resolved"
    ):
        run_prefetch(source, package, *want(APP), locked=True)
    assert hashes(package) == before


def test_a_locked_download_of_another_image_is_refused(tmp_path: Path, layout: str) -> None:
    """Without the archive, a locked run downloads what the lock names; the index shows that it is another image."""
    (package := tmp_path / "package").mkdir()
    app, evil = images.multi_platform("app"), images.multi_platform("evil")
    source = FakeSource({APP: app})
    run_prefetch(source, package, *want(APP), layout=layout)
    path = package / "containers.lock"
    lock = json.loads(path.read_text())
    entry = lock["containers"][APP]["architectures"]["x86_64"]
    run_prefetch(FakeSource({APP: evil}), package, *want(APP), layout=layout)
    forged = json.loads(path.read_text())["containers"][APP]["architectures"]["x86_64"]
    lock["containers"][APP]["architectures"]["x86_64"] = {**forged, "indexes": entry["indexes"]}
    path.write_text(json.dumps(lock, indent=2, sort_keys=True) + "\n")
    for path in image_files(package):
        path.unlink()
    before = hashes(package)
    both = FakeSource({APP: app, WEB: evil})
    with pytest.raises(LockError, match=r"index: for linux/amd64 it has sha256:\S+, but the lock says sha256:"):
        run_prefetch(both, package, *want(APP), locked=True, layout=layout)
    assert hashes(package) == before
