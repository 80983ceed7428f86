#!/usr/bin/env python3
"""Draw the figures of a run: how many times as fast as skopeo we are, and how many times any program could be.

python -m bench.plot [FIGURES] >PLOT.svg    default: bench/figures.json
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_WIDTH = 900
_LEFT, _RIGHT = 170, 610
"""Where 1× and the largest value on the axis are."""
_TOP = 92
_GROUP, _BAR = 48, 15
_TICKS = (1, 2, 5, 10, 20, 50, 100)
_KINDS = {"wall": "elapsed time", "cpu": "processor time"}
_STYLE = """\
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 13px; fill: #1f2328 }
.head { font-size: 16px; font-weight: bold }
.case { text-anchor: end }
.small { font-size: 12px; fill: #57606a }
.tick { font-size: 12px; fill: #57606a; text-anchor: middle }
.page { fill: #ffffff; stroke: #8b949e }
.line { stroke: #d0d7de }
.skopeo { stroke: #57606a; stroke-width: 2 }
.wall { fill: #0969da }
.cpu { fill: #bf8700 }
.limit { fill: #f6f8fa; stroke: #8b949e }"""


def draw(figures: Mapping[str, Any]) -> str:
    """Return the plot as SVG; it has a background of its own, so that it is readable on light and dark pages."""
    cases = {name: case for name, case in figures["cases"].items() if "ratios" in case and "limits" in case}
    largest = max(value for case in cases.values() for part in ("ratios", "limits") for value in case[part].values())
    end = next((tick for tick in _TICKS if tick >= largest), _TICKS[-1])
    height = _TOP + _GROUP * len(cases) + 28

    def x(value: float) -> float:
        share = math.log(max(value, 1)) / math.log(end)
        return round(_LEFT + min(share, 1) * (_RIGHT - _LEFT), 1)

    def lines() -> Iterator[str]:
        bottom = height - 28
        size = f'viewBox="0 0 {_WIDTH} {height}"'
        yield f'<svg {size} xmlns="http://www.w3.org/2000/svg" role="img">'
        yield f"<title>{escape(_describe(cases))}</title>"
        yield f"<style>\n{_STYLE}\n</style>"
        yield f'<rect class="page" x="1" y="1" width="{_WIDTH - 2}" height="{height - 2}" rx="10"/>'
        yield '<text class="head" x="24" y="30">How many times as fast as skopeo</text>'
        yield from _legend()
        for tick in (each for each in _TICKS if each <= end):
            kind = "skopeo" if tick == 1 else "line"
            yield f'<line class="{kind}" x1="{x(tick)}" y1="{_TOP - 8}" x2="{x(tick)}" y2="{bottom}"/>'
            yield f'<text class="tick" x="{x(tick)}" y="{bottom + 18}">{tick}×</text>'
        for number, (name, case) in enumerate(cases.items()):
            top = _TOP + _GROUP * number
            yield f'<text class="case" x="{_LEFT - 14}" y="{top + _BAR + 5}">{escape(name)}</text>'
            for place, kind in enumerate(_KINDS):
                yield from _bar(case, kind, top + place * (_BAR + 2), x)
        yield "</svg>"

    return "\n".join(lines()) + "\n"


def _bar(case: Mapping[str, Any], kind: str, top: int, x: Callable[[float], float]) -> Iterator[str]:
    """Yield the bar of our ratio in the frame of what any program could reach."""
    ratio, limit = case["ratios"][kind], case["limits"][kind]
    ours, theirs = (case["medians"][program][kind] for program in ("ours", "skopeo"))
    for name, value in (("limit", limit), (kind, ratio)):
        yield f'<rect class="{name}" x="{_LEFT}" y="{top}" width="{max(x(value) - _LEFT, 1):.1f}" height="{_BAR}"/>'
    text = f"{ratio:.1f}×, limit {limit:.1f}×; {ours:.2f} s, skopeo {theirs:.2f} s"
    yield f'<text class="small" x="{max(x(ratio), x(limit)) + 8:.1f}" y="{top + 12}">{text}</text>'


def _legend() -> Iterator[str]:
    entries = {kind: f"ours, {name}" for kind, name in _KINDS.items()} | {"limit": "limit of this machine"}
    for number, (kind, name) in enumerate(entries.items()):
        left = 24 + 180 * number
        yield f'<rect class="{kind}" x="{left}" y="48" width="24" height="{_BAR}"/>'
        yield f'<text x="{left + 32}" y="60">{name}</text>'
    left = 24 + 180 * len(entries)
    yield f'<line class="skopeo" x1="{left}" y1="48" x2="{left}" y2="{48 + _BAR}"/>'
    yield f'<text x="{left + 10}" y="60">skopeo, 1×</text>'


def _describe(cases: Mapping[str, Any]) -> str:
    each = (f"{name} {case['ratios']['wall']:.1f} of {case['limits']['wall']:.1f}" for name, case in cases.items())
    return f"Elapsed time compared with skopeo, and the limit of the machine: {', '.join(each)}"


if __name__ == "__main__":
    source = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("figures.json")
    print(draw(json.loads(source.read_text())), end="")
