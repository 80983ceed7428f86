"""The files of an image that has stores, and the check of a storage.conf of the packager."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from osc_containers.errors import DescriptionError
from osc_containers.fs.ranges import FileSlice
from osc_containers.inject.image_file import Symlink, TextFile
from osc_containers.inject.store import image_files, stores
from osc_containers.inject.store.image_files import STORAGE_CONF, Store
from osc_containers.inject.store.stores import StoredContainer
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference
from tests.support import images, store

ROOT, SERVER = Store.of_directory("root"), Store.of_directory("Server")
IMAGES = {"registry.example.com/app:1.0": "a" * 64, "registry.example.com/other:1.0": "b" * 64}


def texts(files: "tuple[TextFile | Symlink, ...]") -> dict[str, str]:
    return {file.path: file.text if isinstance(file, TextFile) else file.target for file in files}


def test_files_of_a_store() -> None:
    files = texts(image_files.render(SERVER, IMAGES, "c" * 64, ["kiwi_containers-podman-app_1.0.service"]))
    units = "/usr/lib/systemd/system"
    mount, check = "usr-lib-containers-storage_Server.mount", "kiwi_containers-store_Server.service"
    assert files == {
        "/usr/lib/kiwi_containers/store_Server.images": f"{'a' * 64} registry.example.com/app:1.0\n"
        f"{'b' * 64} registry.example.com/other:1.0\n",
        "/usr/lib/kiwi_containers/store_Server.squashfs.sha256": f"{'c' * 64}  "
        "/usr/lib/kiwi_containers/store_Server.squashfs\n",
        f"{units}/{mount}": "[Unit]\n"
        "Description=Containers of this image (read-only store)\n"
        "RequiresMountsFor=/usr/lib/kiwi_containers\n"
        "\n"
        "[Mount]\n"
        "What=/usr/lib/kiwi_containers/store_Server.squashfs\n"
        "Where=/usr/lib/containers/storage_Server\n"
        "Type=squashfs\n"
        "Options=loop,ro,nodev,nosuid\n",
        f"{units}/local-fs.target.wants/{mount}": f"../{mount}",
        f"{units}/{check}": "[Unit]\n"
        "Description=podman has the 2 images of the read-only store\n"
        f"After={mount}\n"
        "RequiresMountsFor=/var/lib/containers\n"
        "Before=kiwi_containers.service\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        "RemainAfterExit=yes\n"
        "SyslogIdentifier=kiwi_containers\n"
        'ExecStart=/usr/libexec/kiwi_containers/check-store "/usr/lib/containers/storage_Server" '
        '"/usr/lib/kiwi_containers/store_Server.squashfs" "/usr/lib/kiwi_containers/store_Server.images" '
        '"kiwi_containers-store_Server.service"\n',
        f"{units}/kiwi_containers.service.wants/{check}": f"../{check}",
        f"{units}/kiwi_containers-podman-app_1.0.service": check,
    }


def test_every_directory_has_all_mount_points() -> None:
    files = texts(image_files.render_common([ROOT, SERVER], has_own_configuration=False))
    for mount_point in ("/usr/lib/containers/storage", "/usr/lib/containers/storage_Server"):
        assert files[f"{mount_point}/overlay-images/images.json"] == "[]\n"
        assert files[f"{mount_point}/overlay-layers/layers.lock"] == ""
    assert files[STORAGE_CONF].splitlines()[2:] == [
        "[storage]",
        'driver = "overlay"',
        'runroot = "/run/containers/storage"',
        'graphroot = "/var/lib/containers/storage"',
        "",
        "[storage.options]",
        'additionalimagestores = ["/usr/lib/containers/storage", "/usr/lib/containers/storage_Server"]',
    ]
    assert image_files.check_configuration(files[STORAGE_CONF].encode(), [ROOT, SERVER]) == ""
    assert STORAGE_CONF not in texts(image_files.render_common([ROOT], has_own_configuration=True))


@pytest.mark.parametrize(
    "profile", ["Server-1", "a b", "ä", "\udcff", "x" * 300, "a_0123456789ab", 'a"\\', "%n", "a.b"]
)
def test_names_need_no_escapes(profile: str) -> None:
    place = Store.of_directory(profile)
    assert place.suffix.removeprefix("_").replace("_", "").isalnum()
    assert place.suffix.isascii()
    assert len(place.mount_unit) < 150


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    one, other = store.described(images.small("one")), store.described(images.small("other"))
    references = [Reference.parse(f"registry.example.com/app:1.0@sha256:{digit * 64}") for digit in "ab"]
    containers = [StoredContainer(*each, "") for each in zip(references, (one, other), strict=True)]
    with pytest.raises(DescriptionError, match=r"registry.example.com/app:1\.0: got two different images of this name"):
        stores.build_all({"root": containers}, _no_blob, tmp_path, (), os.environ)


def _no_blob(_: Descriptor) -> FileSlice:
    raise AssertionError


def test_names_are_distinct() -> None:
    names = ["root", "a-b", "a b", "a_b", Store.of_directory("a-b").suffix[1:]]
    assert len({Store.of_directory(name) for name in names}) == len(names)


@pytest.mark.integration
def test_systemd_derives_the_same_name_of_the_unit() -> None:
    for place in (ROOT, SERVER, Store.of_directory("x y")):
        command = ["systemd-escape", "--path", "--suffix=mount", place.mount_point]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == place.mount_unit


GOOD = '[storage]\ndriver = "overlay"\nrunroot = "/r"\ngraphroot = "/g"\n[storage.options]\n'
LINE = 'additionalimagestores = ["/usr/lib/containers/storage"]\n'
BAD = {
    "no line": (GOOD, f"does not list the stores of this image; add to [storage.options]: {LINE.strip()}"),
    "another store": (GOOD + 'additionalimagestores = ["/other"]', "does not list the stores of this image"),
    "line in the wrong table": (LINE + GOOD, "does not list the stores of this image"),
    "another driver": (
        GOOD.replace("overlay", "btrfs") + LINE,
        "got driver 'btrfs', but stores need: driver = \"overlay\"",
    ),
    "no driver": (GOOD.replace("driver", "x") + LINE, "got driver 'None'"),
    "no graphroot": (
        GOOD.replace("graphroot", "x") + LINE,
        "has no graphroot in [storage], without which podman",
    ),
    "no TOML": ("[storage", "not valid TOML: "),
    "other types": ("storage = 3", "does not list the stores"),
    "not UTF-8": (None, "not valid TOML: "),
}


@pytest.mark.parametrize(("text", "problem"), BAD.values(), ids=BAD)
def test_a_storage_conf_that_does_not_work_is_named(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / f"root{STORAGE_CONF}"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff" if text is None else text.encode())
    with pytest.raises(DescriptionError) as caught:
        stores.find_configured(tmp_path, ["root"], ["root"])
    assert str(caught.value).startswith(f"root{STORAGE_CONF}: {problem}")


@pytest.mark.parametrize("path", ["etc/containers/storage.conf", "usr/share/containers/storage.conf"])
def test_a_storage_conf_that_works_is_kept(tmp_path: Path, path: str) -> None:
    for directory, lists in (("root", [ROOT, SERVER]), ("Server", [ROOT, SERVER])):
        file = tmp_path / directory / path
        file.parent.mkdir(parents=True)
        file.write_text(GOOD + image_files.setting(lists))
    names = ["root", "Server", "Other"]
    assert stores.find_configured(tmp_path, names, ["root", "Server"]) == set(names)
    shutil.rmtree(tmp_path / "root")
    assert stores.find_configured(tmp_path, names, ["root", "Server"]) == {"Server"}


def test_all_stores_must_be_listed(tmp_path: Path) -> None:
    for directory in ("root", "Server"):
        file = tmp_path / directory / STORAGE_CONF[1:]
        file.parent.mkdir(parents=True)
        file.write_text(GOOD + LINE)
    with pytest.raises(DescriptionError) as caught:
        stores.find_configured(tmp_path, ["root", "Server"], ["root", "Server"])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        f"Server{STORAGE_CONF}",
        f"root{STORAGE_CONF}",
    ]
