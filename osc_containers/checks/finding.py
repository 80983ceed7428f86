"""What `check` finds: where something would go wrong, why, and the line to add or change."""

import re
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

_PLACE = re.compile(r"([^:\s][^:]*)(?::(\d+))?: (.*)", re.DOTALL)


class Severity(Enum):
    """How bad it is: it will not work; it may not; worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


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
