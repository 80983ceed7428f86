"""Findings of `check`: what would go wrong, where, and how to fix it."""

import re
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

# A file that services made is called `_service:NAME:FILE`, with a NAME for each of them. `_service` is a file, too, and
# a problem may be about several of its lines.
_PROBLEM = re.compile(
    r"((?:_service:(?![0-9]+[: ])(?:[^:/\s]+:)+?)?[^:\s][^:]*)(?::([0-9]{1,9})(?: and [0-9]+)*)?: (.*)", re.DOTALL
)


class Severity(Enum):
    """Whether the package will fail, may fail, or only has something worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Finding(NamedTuple):
    """One finding.

    `check` is a stable ID of its kind, for programs. `line` is 0 if the finding is about the file as a whole. `fix` is
    the line to add or change, or a command to run; it is empty if there is nothing simple to do.
    """

    severity: Severity
    check: str
    file: str
    why: str
    line: int = 0
    fix: str = ""

    @property
    def location(self) -> str:
        """The file, and the line if there is one, as `file:line`."""
        return f"{self.file}:{self.line}" if self.line else self.file


def from_problem(problem: str, check: str) -> Finding:
    """Return an error for a problem of an exception, which reads `file:line: what` or `file: what`.

    Of several lines, the finding has the first.
    """
    match = _PROBLEM.fullmatch(problem)
    file, line, why = match.groups() if match else (".", None, problem)
    return Finding(severity=Severity.ERROR, check=check, file=file, line=int(line or 0), why=why)


def sort(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings without duplicates, sorted by severity (errors first), file and line."""
    order = list(Severity)
    return tuple(sorted(dict.fromkeys(findings), key=lambda each: (order.index(each.severity), each.file, each.line)))


def as_objects(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """Return the findings as objects for JSON; `line` and `fix` are null if there is none."""
    return [
        {
            "severity": each.severity.value,
            "check": each.check,
            "file": each.file,
            "line": each.line or None,
            "why": each.why,
            "fix": each.fix or None,
        }
        for each in findings
    ]
