"""Reader for untrusted systemd units and quadlets, as the few assignments that matter.

Spec: systemd.syntax(7); where that says nothing, this reads as `config_parse` of systemd (src/shared/conf-parser.c).
Quoting and specifiers are left as they are.
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


_LINE_END = re.compile(r"\r\n|[\n\r\0]")
_BLANKS = " \t\r\n"


def assignments(text: str) -> Iterator[Assignment]:
    """Yield all assignments of a unit, in order. Lines that are none are skipped, as systemd does."""
    section = ""
    for number, line in _logical_lines(text):
        if match := re.fullmatch(r"\[([^\[\]]+)\]", line):
            section = match[1]
        elif "=" in line:
            key, _, value = line.partition("=")
            yield Assignment(section=section, key=key.strip(_BLANKS), value=value.strip(_BLANKS), line=number)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines without comments, and lines that end in a backslash together with those that continue them."""
    parts: list[str] = []
    first = 0
    # Not `splitlines`, which also breaks at characters that systemd has in the middle of a line, such as form feeds.
    for number, line in enumerate(_LINE_END.split(text), start=1):
        # A comment does not end a continued line.
        if line.lstrip(_BLANKS).startswith(("#", ";")):
            continue
        first = first if parts else number
        # A backslash that another one escapes, or that blanks follow, does not continue the line.
        is_continued = (len(line) - len(line.rstrip("\\"))) % 2 == 1
        parts.append(line[:-1] if is_continued else line)
        if not is_continued:
            # The backslash and the end of the line together count as one space (systemd.syntax(7)).
            yield first, " ".join(parts).strip(_BLANKS)
            parts = []
    # The file ends in a continued line.
    if parts:
        yield first, " ".join(parts).strip(_BLANKS)
