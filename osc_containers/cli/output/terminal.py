"""Text for terminals: colours for our own text, escapes for control characters in the text of others."""

import os
import sys
from typing import TextIO

_CODES = {"bold": 1, "red": 31, "yellow": 33, "cyan": 36}


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """Return a text in a style if a stream is a terminal and neither `NO_COLOR` nor `TERM` forbids colours.

    The stream is standard output by default. Spec: no-color.org.
    """
    if not (stream or sys.stdout).isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def paint_head(text: str) -> str:
    """Return a table whose first line is bold; without it if it is empty."""
    head, newline, rest = text.partition("\n")
    return paint(head, "bold") + newline + rest if head else rest


def printable(text: str) -> str:
    """Return a text as one line, with escapes for newlines and everything else that is not printable.

    A name in a package may contain a newline, and what follows must not look like a message of its own.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
