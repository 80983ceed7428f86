"""Paths in the image: each image has its own, which is kiwi's own path where possible."""

import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.inject import inventory, overlay
from osc_containers.inject.units import ARCHIVES
from osc_containers.kiwi import description
from osc_containers.kiwi.containers import Container
from tests.support import locks


def containers(*endpoints: tuple[str, str, str, str]) -> tuple[Container, ...]:
    """Return containers of these sources, paths, names and tags."""
    sections = "".join(
        f'<containers source="{source}" backend="podman">'
        f'<container path="{path}" name="{name}" tag="{tag}"/></containers>'
        for source, path, name, tag in endpoints
    )
    return description.parse(f"<image>{sections}</image>".encode(), Path("a.kiwi"), lambda name: b"").containers


def names(*endpoints: tuple[str, str, str, str]) -> list[str]:
    parsed = containers(*endpoints)
    paths = overlay.assign_paths(parsed)
    return [paths[container].removeprefix(f"{ARCHIVES}/") for container in parsed]


def test_images_with_the_same_kiwi_path_get_other_paths() -> None:
    assert names(("r.io", "t", "app", "1"), ("q.io", "t", "app", "1"), ("r.io", "t", "web", "1")) == [
        "r.io_t_app_1",
        "q.io_t_app_1",
        "web_1",
    ]


def test_other_paths_do_not_collide() -> None:
    """The second would be renamed to the kiwi path of the first, then to the new name of the fourth."""
    assert names(
        ("r.io", "z", "r.io_t_app", "1"),
        ("r.io", "t", "app", "1"),
        ("q.io", "t", "app", "1"),
        ("r.io", "t", "app", "1_"),
        ("q.io", "t", "app", "1_"),
    ) == ["r.io_t_app_1", "r.io_t_app_1__", "q.io_t_app_1", "r.io_t_app_1_", "q.io_t_app_1_"]


@pytest.mark.parametrize(
    ("name", "tag", "kiwi_name", "path", "reason"),
    [
        ("app", "1", "app_1", "r.io_t_app_1", "writes several images to {}"),
        ("a/b", "1", "a/b_1", "r.io_t_a_b_1", "cannot write {}: it does not create the directory"),
        (
            "a" * 200,
            "b" * 60,
            f"{'a' * 200}_{'b' * 60}",
            f"r.io_t_{'a' * 153}-9a8a8037",
            "cannot write {}: the file name is longer than 255 bytes",
        ),
    ],
)
def test_relocation_gives_its_reason(name: str, tag: str, kiwi_name: str, path: str, reason: str) -> None:
    parsed = containers(("r.io", "t", name, tag), ("q.io", "t", "app", "1"))
    paths = overlay.assign_paths(parsed)
    assert paths[parsed[0]] == f"{ARCHIVES}/{path}"
    expected = f"plain kiwi {reason.format(f'{ARCHIVES}/{kiwi_name}')}"
    assert next(overlay.list_relocations(paths)) == (parsed[0], expected)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["r.io", "q.io"]),
            st.sampled_from(["t", "z"]),
            st.sampled_from(["app", "r.io_t_app"]),
            st.sampled_from(["1", "1_"]),
        ),
        max_size=16,
        unique=True,
    )
)
def test_no_two_images_share_a_path(endpoints: list[tuple[str, str, str, str]]) -> None:
    parsed = containers(*endpoints)
    paths = overlay.assign_paths(parsed)
    owners: dict[str, set[object]] = {}
    for container, path in paths.items():
        owners.setdefault(path, set()).add(container.reference)
    assert all(len(references) == 1 for references in owners.values())
    assert overlay.assign_paths(parsed[::-1]) == paths


@pytest.mark.parametrize(
    ("profiles", "names"),
    [
        (["Base"], ["-Base"]),
        (["A-B", "A,B"], ["-A+B", "-A-B"]),
        (["A+B", "A,B"], ["-+bec890f3", "-A+B"]),
        (["A", "A,B", ""], ["", "-A", "-A+B"]),
    ],
)
def test_lists_of_different_profiles_have_different_names(profiles: list[str], names: list[str]) -> None:
    """All directories may end up in one image, and no list may replace another."""
    sections = "".join(
        f'<containers source="r.io" backend="podman" {attribute}><container name="app{number}" tag="1"/></containers>'
        for number, attribute in enumerate(f'profiles="{each}"' if each else "" for each in profiles)
    )
    parsed = description.parse(f"<image>{sections}</image>".encode(), Path("a.kiwi"), lambda name: b"").containers
    lock = locks.make_lock({str(each.reference): 4096 for each in parsed})
    placements = overlay.place(parsed, overlay.assign_paths(parsed), "x86_64", lock)
    documents = {
        (file.path, file.text)
        for members in overlay.group_by_directory(placements).values()
        for file in inventory.list_documents(members)
    }
    expected = [f"{inventory.DOCUMENTS}/containers{each}.cdx.json" for each in names]
    assert sorted(path for path, _ in documents) == sorted(expected)


@pytest.mark.integration
def test_tmpfiles_aging_keeps_the_archives(tmp_path: Path) -> None:
    rules = tmp_path / overlay.TMPFILES[1:]
    rules.parent.mkdir(parents=True)
    rules.write_text(overlay.tmpfiles().text)
    (tmp_path / "usr/lib/tmpfiles.d/tmp.conf").write_text("q /var/tmp 1777 root root 1s\n")
    for name in ("other", "kiwi_containers/app_1.0", "kiwi_containers/deep/app_1.0"):
        (tmp_path / "var/tmp" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "var/tmp" / name).touch()
    time.sleep(1.1)
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--clean"], check=True)
    archives = {str(path.relative_to(tmp_path / "var/tmp")) for path in (tmp_path / "var/tmp").rglob("*_1.0")}
    assert archives == {"kiwi_containers/app_1.0", "kiwi_containers/deep/app_1.0"}
    assert not (tmp_path / "var/tmp/other").exists()
