"""The table: medians of every case, ratios, and the targets with their marks."""

from collections.abc import Sequence

from bench.cases import Case
from bench.limits import Limit
from bench.samples import MIB, SKOPEO, Samples, Target

_HEADS = ("case", "", "wall s", "min", "CPU s", "peak MiB", "wire MB", "written MB", "dirtied MB", "others")
_WIDTHS = (17, 6, 7, 7, 7, 8, 8, 10, 10, 6)
NOISE = 0.3
"""Cores that others may keep busy before the figures of a case are doubtful."""


def heads() -> str:
    """Return the first line of the table."""
    return _row(_HEADS)


def rows(name: str, samples: Samples, limit: Limit | None) -> list[str]:
    """Return the lines of one case: a line per program, and the ratios; what could be had, if that is known."""
    lines: list[str] = []
    for program, costs in samples.costs.items():
        first = name if not lines else ""
        cells = [f"{samples.middle(program, 'wall'):.2f}", f"{min(cost.wall for cost in costs):.2f}"]
        cells.append(f"{samples.middle(program, 'cpu'):.2f}")
        cells.append(f"{max(cost.peak for cost in costs) / MIB:.0f}")
        cells += [f"{samples.middle(program, what) / 1e6:.2f}" for what in ("wire", "written", "dirtied")]
        others = samples.middle(program, "others")
        lines.append(_row((first, program, *cells, f"{others:.1f}{'!' if others > NOISE else ''}")))
    if SKOPEO in samples.costs:
        ratios = (f"{samples.ratio(what):.1f}×" for what in ("wall", "cpu", "peak", "wire", "written"))
        wall, *others_of_them = ratios
        lines.append(_row(("", "ratio", wall, "", *others_of_them, "", "")))
    if limit:
        lines.append(_row(("", "limit", f"{limit.wall:.2f}", "", f"{limit.cpu:.2f}", *[""] * 5)))
        best = (f"{samples.best_ratio(what, getattr(limit, what)):.1f}×" for what in ("wall", "cpu"))
        wall, cpu = best
        lines.append(_row(("", "ratio", wall, "", cpu, *[""] * 5)))
    return lines


def _row(cells: Sequence[str]) -> str:
    texts = [
        cell.ljust(width) if n < 2 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    ]
    return "  ".join(texts).rstrip()


def verdicts(case: Case, name: str, samples: Samples, limit: Limit | None) -> list[str]:
    """Return a line for each target of a case."""
    return [_verdict(name, target, samples, limit) for target in case.targets]


def _verdict(name: str, target: Target, samples: Samples, limit: Limit | None) -> str:
    value, best = target.value(samples), _best(target, samples, limit)
    mark = "pass" if target.allows(value) else "FAIL"
    bound = f"{'≥' if target.at_least else '≤'} {target.limit:g}{target.unit}"
    if best is not None:
        bound += f"; this machine allows {best:.3g}{target.unit}"
        if mark == "FAIL" and not target.allows(best):
            mark = "none"
    return f"{mark}  {name:<17} {target.what:<32} {value:>10.6g}{target.unit}  ({bound})"


def _best(target: Target, samples: Samples, limit: Limit | None) -> float | None:
    if limit and target.ratio_of:
        return samples.best_ratio(target.ratio_of, getattr(limit, target.ratio_of))
    return target.best(samples) if target.best else None


def is_noisy(samples: Samples) -> bool:
    """Tell whether others kept the machine busy in most runs."""
    return any(samples.middle(program, "others") > NOISE for program in samples.costs)
