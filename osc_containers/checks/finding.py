"""What `check` finds: where something would go wrong, why, and the line to add or change."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from osc_containers.cli import table, terminal

_PLACE = re.compile(r"([^:\s][^:]*)(?::(\d+))?: (.*)", re.DOTALL)


class Severity(Enum):
    """How bad it is: it will not work; it may not; worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


class Finding(NamedTuple):
    """One finding; `check` names its kind for programs, `fix` is the line to add or change, or a command.

    `line` is 0 where it is about the file as a whole.
    """

    severity: Severity
    check: str
    file: str
    why: str
    line: int = 0
    fix: str = ""

    @property
    def place(self) -> str:
        """The file, and the line if there is one."""
        return f"{self.file}:{self.line}" if self.line else self.file


def of_problem(problem: str, check: str) -> Finding:
    """Make an error of a problem that says its place itself: `file:line: what`, or `file: what`."""
    match = _PLACE.fullmatch(problem)
    file, line, why = match.groups() if match else (".", None, problem)
    return Finding(severity=Severity.ERROR, check=check, file=file, line=int(line or 0), why=why)


def sort(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return each finding once, the worst first, then by place."""
    order = list(Severity)
    return tuple(sorted(dict.fromkeys(found), key=lambda each: (order.index(each.severity), each.file, each.line)))


def as_text(found: Sequence[Finding]) -> str:
    """Return the findings for people, a paragraph each."""
    return "\n".join(line for each in found for line in _lines(each))


def _lines(finding: Finding) -> Iterator[str]:
    severity = f"{finding.severity.value}:"
    lines = textwrap.wrap(
        terminal.printable(f"{finding.place}: {severity} {finding.why}").replace("\n", " "),
        table.line_width(),
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    yield "\n".join(lines).replace(severity, terminal.paint(severity, _STYLES[finding.severity]), 1)
    if finding.fix:
        yield f"    > {terminal.printable(finding.fix)}"


def as_objects(found: Iterable[Finding]) -> list[dict[str, object]]:
    """Return the findings for JSON; `line` is null where there is none."""
    return [
        {
            "severity": each.severity.value,
            "check": each.check,
            "file": each.file,
            "line": each.line or None,
            "why": each.why,
            "fix": each.fix or None,
        }
        for each in found
    ]
