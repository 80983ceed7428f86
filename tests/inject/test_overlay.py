"""Where containers are in the image: each image at a path of its own, kiwi's where that can be."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.inject import overlay
from osc_containers.inject.units import ARCHIVES
from osc_containers.kiwi import description
from osc_containers.kiwi.containers import Container


def containers(*endpoints: tuple[str, str, str, str]) -> tuple[Container, ...]:
    """Return containers of these sources, paths, names and tags."""
    sections = "".join(
        f'<containers source="{source}" backend="podman">'
        f'<container path="{path}" name="{name}" tag="{tag}"/></containers>'
        for source, path, name, tag in endpoints
    )
    return description.parse(f"<image>{sections}</image>".encode(), Path("a.kiwi"), lambda name: b"").containers


def names(*endpoints: tuple[str, str, str, str]) -> list[str]:
    found = containers(*endpoints)
    places = overlay.paths(found)
    return [places[container].removeprefix(f"{ARCHIVES}/") for container in found]


def test_where_kiwis_path_stands_for_two_each_has_another() -> None:
    assert names(("r.io", "t", "app", "1"), ("q.io", "t", "app", "1"), ("r.io", "t", "web", "1")) == [
        "r.io_t_app_1",
        "q.io_t_app_1",
        "web_1",
    ]


def test_another_path_is_nobodys() -> None:
    """The first is at kiwi's path, which is the second's other path; its next one is that of the fourth."""
    assert names(
        ("r.io", "z", "r.io_t_app", "1"),
        ("r.io", "t", "app", "1"),
        ("q.io", "t", "app", "1"),
        ("r.io", "t", "app", "1_"),
        ("q.io", "t", "app", "1_"),
    ) == ["r.io_t_app_1", "r.io_t_app_1__", "q.io_t_app_1", "r.io_t_app_1_", "q.io_t_app_1_"]


@pytest.mark.parametrize(
    ("name", "tag", "own", "path", "why"),
    [
        ("app", "1", "app_1", "r.io_t_app_1", "writes several images to {}"),
        ("a/b", "1", "a/b_1", "r.io_t_a_b_1", "fails to write {}: its directory is not made"),
        (
            "a" * 200,
            "b" * 60,
            f"{'a' * 200}_{'b' * 60}",
            f"r.io_t_{'a' * 153}-9a8a8037",
            "fails to write {}: its name is longer than 255 bytes",
        ),
    ],
)
def test_why_a_container_is_not_at_kiwis_path_is_said(name: str, tag: str, own: str, path: str, why: str) -> None:
    places = overlay.paths(containers(("r.io", "t", name, tag), ("q.io", "t", "app", "1")))
    assert overlay.notices(places)[0] == (
        f"a.kiwi:1: r.io/t/{name}:{tag}: at {ARCHIVES}/{path}, since plain kiwi {why.format(f'{ARCHIVES}/{own}')}"
    )


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
def test_no_two_images_have_one_path(endpoints: list[tuple[str, str, str, str]]) -> None:
    found = containers(*endpoints)
    places = overlay.paths(found)
    owners: dict[str, set[object]] = {}
    for container, path in places.items():
        owners.setdefault(path, set()).add(container.reference)
    assert all(len(references) == 1 for references in owners.values())
    assert overlay.paths(found[::-1]) == places
