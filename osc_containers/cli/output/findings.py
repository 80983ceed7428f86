"""Findings of `check` as text for people."""

import textwrap
from collections.abc import Sequence

from osc_containers.checks.finding import Finding, Severity
from osc_containers.cli.output import table, terminal

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def as_text(findings: Sequence[Finding]) -> str:
    """Return the findings, each as a wrapped paragraph with its fix on a line of its own, which is never wrapped."""
    lines = []
    for each in findings:
        severity = f"{each.severity.value}:"
        paragraph = textwrap.wrap(
            terminal.printable(f"{each.location}: {severity} {each.why}"),
            table.line_width(),
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        # Colours come after wrapping, because their codes have no width.
        lines.append("\n".join(paragraph).replace(severity, terminal.paint(severity, _STYLES[each.severity]), 1))
        if each.fix:
            lines.append(f"    > {terminal.printable(each.fix)}")
    return "\n".join(lines)
