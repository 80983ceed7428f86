"""What the last complete run left beside the code: figures as JSON, a plot of them, and tables in README.md."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import plot
from bench.cases import CASES
from bench.limits import Limit
from bench.samples import SKOPEO, Samples

_HERE = Path(__file__).resolve().parent
FIGURES = _HERE / "figures.json"
_PLOT = _HERE / "speed.svg"
_README = _HERE / "README.md"
_COSTS = ("wall", "cpu", "peak", "wire", "written", "dirtied", "others")


def figures_of(name: str, samples: Samples, limit: Limit | None) -> dict[str, Any]:
    """Return the figures of a case for JSON, in seconds and bytes: medians, and the ratios of skopeo's to ours."""
    figures: dict[str, Any] = {
        "title": CASES[name].title,
        "medians": {
            program: {what: round(samples.middle(program, what), 3) for what in _COSTS} for program in samples.costs
        },
        "seen": samples.seen,
    }
    if SKOPEO in samples.costs:
        figures["ratios"] = {what: round(samples.ratio(what), 2) for what in ("wall", "cpu")}
    if limit:
        figures["limits"] = {what: round(samples.best_ratio(what, getattr(limit, what)), 2) for what in ("wall", "cpu")}
    return figures


def update(figures: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Write the figures of a run, the plot of them, and what the run printed."""
    FIGURES.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    _PLOT.write_text(plot.draw(figures))
    show("speed", lines)


def show(name: str, lines: Sequence[str]) -> None:
    """Replace a block of README.md, which is between two comments with its name."""
    text = "".join(f"    {line}".rstrip() + "\n" for line in "\n".join(lines).splitlines())
    pattern = rf"(<!-- begin {name} -->\n).*(<!-- end {name} -->)"
    page, count = re.subn(
        pattern, lambda match: f"{match[1]}\n{text}\n{match[2]}", _README.read_text(), flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{_README}: got {count} blocks {name}, expected one")
    _README.write_text(page)
