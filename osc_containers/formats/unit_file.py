"""Reader for untrusted systemd units and quadlets, as the few assignments that matter.

Spec: systemd.syntax(7). Quoting and specifiers are left as they are.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

LIMIT = 1 << 20
"""Bytes of a unit, which is longer than any real one."""


class Assignment(NamedTuple):
    """`key=value` in a section, with the number of its first line."""

    section: str
    key: str
    value: str
    line: int


def assignments(text: str) -> Iterator[Assignment]:
    """Yield all assignments of a unit, in order. Lines that are none are skipped, as systemd does."""
    section = ""
    for number, line in _logical_lines(text):
        if match := re.fullmatch(r"\[([^\[\]]+)\]", line):
            section = match[1]
        elif "=" in line:
            key, _, value = line.partition("=")
            yield Assignment(section=section, key=key.strip(), value=value.strip(), line=number)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines without comments, and lines that end in a backslash together with those that continue them."""
    parts: list[str] = []
    first = 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        # A comment does not end a continued line.
        if line.startswith(("#", ";")) or (not line and not parts):
            continue
        first = first if parts else number
        parts.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            # The backslash and the end of the line together count as one space (systemd.syntax(7)).
            yield first, " ".join(parts).strip()
            parts = []
    # The file ends in a continued line.
    if parts:
        yield first, " ".join(parts).strip()
