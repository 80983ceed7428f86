"""Where containers are in the image: each image at a path of its own, kiwi's where that can be."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from osc_containers import description, overlay
from osc_containers.sections import Container
from osc_containers.units import ARCHIVES


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
