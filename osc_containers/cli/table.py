"""Tables for people: aligned columns of text."""

import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest

WIDTH = 100
"""Letters of a line at most."""

_GAP = "  "
_NARROWEST = 12
_WORD = re.compile("[^/:,@]*[/:,@]|[^/:,@]+")
"""What stays on one line of a wrapped cell."""


def line_width() -> int:
    """Return how many letters a line of standard output may have."""
    columns = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0
    return min(columns or WIDTH, WIDTH)


def render(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = (), wrapped: Collection[str] = ()
) -> list[str]:
    """Return rows of columns as wide as their widest cell, below `heads`; those in `right` are right-aligned.

    Where that is wider than `line_width()`, cells of the columns in `wrapped` go on in further lines of the row: the
    last of these first.
    """
    table = [list(heads), *map(list, rows)]
    widths = _widths(table, [column for column, head in enumerate(heads) if head in wrapped])
    texts = []
    for row in table:
        cells = [wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
        lines = [
            _GAP.join(map(_pad, line, widths, (head in right for head in heads))).rstrip()
            for line in zip_longest(*cells, fillvalue="")
        ]
        texts.append("\n".join(lines))
    return texts


def _widths(table: Sequence[Sequence[str]], flexible: Sequence[int]) -> list[int]:
    """Return the widths of the columns; each flexible one gives what it can without breaking a word, the last first."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    most = line_width()

    def shrink(column: int, least: int) -> None:
        excess = sum(widths) + len(_GAP) * (len(widths) - 1) - most
        widths[column] = max(min(widths[column], least), widths[column] - max(0, excess))

    for column in reversed(flexible):
        shrink(column, max(len(word) for row in table for word in _WORD.findall(row[column])))
    for column in flexible:
        shrink(column, _NARROWEST)
    return widths


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def wrap(text: str, width: int) -> list[str]:
    """Break a name into lines, after a slash, colon, comma or at-sign where one is near."""
    lines = [""]
    for word in _WORD.findall(text):
        if lines[-1] and len(lines[-1] + word) > width:
            lines.append("")
        lines[-1] += word.lstrip() if len(lines) > 1 and not lines[-1] else word
        while len(lines[-1]) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return lines
