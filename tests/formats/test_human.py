"""Numbers and sizes are easy to read."""

import pytest

from osc_containers.formats import human


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1949, "1.9 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (477_000_000, "477 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.0 GB"),
        (12_345_678_901, "12.3 GB"),
        (1_000_000_000_000, "1000 GB"),
    ],
)
def test_a_size_has_the_shortest_unit(count: int, text: str) -> None:
    assert human.size(count) == text


def test_one_thing_is_singular() -> None:
    assert [human.count(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
