"""What the runs of a case came to, and what they should."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from bench.measure import Cost

MIB = 1 << 20
OURS, SKOPEO = "ours", "skopeo"
EMPTY = "empty"
"""Ours, for an image of next to no bytes."""
LEAST = "least"
"""Python, importing requests and lxml and asking for each reference once."""


@dataclass(slots=True, kw_only=True)
class Samples:
    """The costs of all runs of a case, by program, and what else was seen."""

    costs: dict[str, list[Cost]] = field(default_factory=dict)
    archive_bytes: int = 0
    """Of our archives."""
    seen: dict[str, float] = field(default_factory=dict)

    def add(self, program: str, cost: Cost) -> None:
        """Note one run."""
        self.costs.setdefault(program, []).append(cost)

    def middle(self, program: str, what: str) -> float:
        """Return the median of a figure of `Cost`."""
        return median(float(getattr(cost, what)) for cost in self.costs[program])

    def best_ratio(self, what: str, least: float) -> float:
        """Return how many times skopeo would take of a program that takes `least`."""
        return self.middle(SKOPEO, what) / least

    def ratio(self, what: str) -> float:
        """Return how many times of ours skopeo takes: the median over the pairs, which see the same weather."""
        pairs = zip(self.costs[SKOPEO], self.costs[OURS], strict=True)
        return median(float(getattr(theirs, what) / getattr(ours, what)) for theirs, ours in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure and its bound: at most, or with `at_least` at least, `limit`."""

    what: str
    value: Callable[[Samples], float]
    limit: float
    at_least: bool = False
    unit: str = ""
    ratio_of: str = ""
    """The figure of `Cost` that it compares with skopeo's, if it does."""
    best: Callable[[Samples], float] | None = None
    """The best that any program could have reached, if the samples say it."""

    def allows(self, value: float) -> bool:
        """Tell whether a value keeps to the bound."""
        return value >= self.limit if self.at_least else value <= self.limit
