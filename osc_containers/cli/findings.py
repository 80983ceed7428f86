"""Findings of `check` as text for people."""

import textwrap
from collections.abc import Iterator, Sequence

from osc_containers.checks.finding import Finding, Severity
from osc_containers.cli import table, terminal

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


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
