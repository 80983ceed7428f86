"""Tables for people: aligned columns of text."""

import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest

WIDTH = 100
"""The maximum length of a line, in characters."""

_GAP = "  "
_NARROWEST = 12
_WORD = re.compile("[^/:,@]*[/:,@]|[^/:,@]+")
"""The parts of a name between which a cell may be wrapped."""


def line_width() -> int:
    """Return the maximum length of a line on standard output: the width of the terminal, but at most `WIDTH`."""
    columns = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0
    return min(columns or WIDTH, WIDTH)


def render(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = (), wrapped: Collection[str] = ()
) -> list[str]:
    """Return the lines of a table with the heading `heads`, in which each column is as wide as its widest cell.

    Columns in `right` are right-aligned. If the table is wider than `line_width()`, cells in the columns `wrapped` are
    wrapped, starting with the last of these columns. If that is not enough, the cells of a row are listed one below the
    other, each with its heading, and the heading of the table is empty.

    :return: one string for the heading and one for each row, which contains newlines if cells are wrapped.
    """
    table = [list(heads), *map(list, rows)]
    widths = _widths(table, [column for column, head in enumerate(heads) if head in wrapped])
    if sum(widths) + len(_GAP) * (len(widths) - 1) > line_width() and len(table) > 1:
        return ["", *(_list(heads, row) for row in table[1:])]
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
    """Return the widths of the columns; flexible ones shrink to their longest word first, then below it."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    limit = line_width()

    def shrink(column: int, minimum: int) -> None:
        excess = sum(widths) + len(_GAP) * (len(widths) - 1) - limit
        widths[column] = max(min(widths[column], minimum), widths[column] - max(0, excess))

    # Break between words first. If the table is still too wide, break words as well, down to a readable width.
    for column in reversed(flexible):
        shrink(column, max(len(word) for row in table for word in _WORD.findall(row[column])))
    for column in flexible:
        shrink(column, _NARROWEST)
    return widths


def _list(heads: Sequence[str], row: Sequence[str]) -> str:
    """Return a row as lines: its first cell, then the others, indented, after their headings."""
    # A first cell may be indented itself, below a line that is its title.
    indent = len(row[0]) - len(row[0].lstrip()) + len(_GAP)
    margin = indent + max(len(head.strip()) for head in heads[1:]) + len(_GAP)
    lines = wrap(row[0], line_width())
    for head, cell in zip(heads[1:], row[1:], strict=True):
        first, *others = wrap(cell, max(_NARROWEST, line_width() - margin))
        lines.append(f"{' ' * indent}{head.strip()}".ljust(margin) + first)
        lines += [" " * margin + other for other in others]
    return "\n".join(lines)


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def wrap(text: str, width: int) -> list[str]:
    """Wrap a name into lines of at most `width` characters, preferably after a slash, colon, comma or at sign."""
    lines = [""]
    for word in _WORD.findall(text):
        if lines[-1] and len(lines[-1] + word) > width:
            lines.append("")
        # A continued line does not begin with the blank at which it was broken.
        lines[-1] += word.lstrip() if len(lines) > 1 and not lines[-1] else word
        # A single word can be longer than the line.
        while len(lines[-1]) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return lines
