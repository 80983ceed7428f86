"""The layout of tables."""

import pytest

from osc_containers.cli.output import table


def test_columns_fit_their_widest_cell() -> None:
    rows = [("a", "1 B", "x"), ("abcdef", "10 kB", ""), ("", "", "long cell")]
    assert table.render(("NAME", "SIZE", "LAST"), rows, right=("SIZE",)) == [
        "NAME     SIZE  LAST",
        "a         1 B  x",
        "abcdef  10 kB",
        "               long cell",
    ]


def test_table_without_rows_has_a_heading() -> None:
    assert table.render(("NAME", "SIZE"), []) == ["NAME  SIZE"]


def test_wide_row_wraps_after_a_comma(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "WIDTH", 23)
    rows = [("abcdefgh", "3 kept, +1, -0", "z"), ("b", "3 kept, +1, -0", "z")]
    assert table.render(("NAME", "LAYERS", "LAST"), rows, wrapped=("LAYERS",)) == [
        "NAME      LAYERS   LAST",
        "abcdefgh  3 kept,  z\n          +1, -0",
        "b         3 kept,  z\n          +1, -0",
    ]


def test_narrow_terminal_gets_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "WIDTH", 30)
    rows = [("  x86_64", "0123456789ab", "2026-01-01", "12 kB"), ("  aarch64", "-", "-", "-")]
    assert table.render(("  ARCH", "OLD", "CREATED", "SIZE"), rows, right=("SIZE",)) == [
        "",
        "  x86_64\n    OLD      0123456789ab\n    CREATED  2026-01-01\n    SIZE     12 kB",
        "  aarch64\n    OLD      -\n    CREATED  -\n    SIZE     -",
    ]
