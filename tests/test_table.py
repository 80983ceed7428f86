"""Tables are aligned, and sizes read well."""

import pytest

from osc_containers import table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("a", "1 B", "x"), ("abcdef", "10 kB", ""), ("", "", "long cell")]
    assert table.render(("NAME", "SIZE", "LAST"), rows, right=("SIZE",)).splitlines() == [
        "NAME     SIZE  LAST",
        "a         1 B  x",
        "abcdef  10 kB",
        "               long cell",
    ]


def test_a_table_without_rows_has_heads() -> None:
    assert table.render(("NAME", "SIZE"), []) == "NAME  SIZE"


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
    assert table.size(count) == text
