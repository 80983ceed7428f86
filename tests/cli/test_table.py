"""Tables are aligned, and sizes read well."""

import pytest

from osc_containers.cli import table
from osc_containers.formats import human


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("a", "1 B", "x"), ("abcdef", "10 kB", ""), ("", "", "long cell")]
    assert table.render(("NAME", "SIZE", "LAST"), rows, right=("SIZE",)) == [
        "NAME     SIZE  LAST",
        "a         1 B  x",
        "abcdef  10 kB",
        "               long cell",
    ]


def test_a_table_without_rows_has_heads() -> None:
    assert table.render(("NAME", "SIZE"), []) == ["NAME  SIZE"]


def test_a_wide_row_goes_on_in_further_lines_after_a_comma(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "WIDTH", 20)
    rows = [("abcdefgh", "3 kept, +1, -0", "z"), ("b", "3 kept, +1, -0", "z")]
    assert table.render(("NAME", "LAYERS", "LAST"), rows, wrapped=("LAYERS",)) == [
        "NAME      LAYERS   LAST",
        "abcdefgh  3 kept,  z\n          +1, -0",
        "b         3 kept,  z\n          +1, -0",
    ]


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
def test_a_size_has_the_unit_that_keeps_it_short(count: int, text: str) -> None:
    assert human.size(count) == text


def test_one_thing_is_one() -> None:
    assert [human.count(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
