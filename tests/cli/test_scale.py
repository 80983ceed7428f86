"""Samples of `make scale` and `make soak`."""

import subprocess
import sys

import pytest

from tests.support import scale, soak
from tests.support.e2e.debs import ROOT


@pytest.mark.integration
def test_commands_grow_linearly() -> None:
    # In a process of its own: Linux counts the memory of the process that starts a program into that program's peak.
    command = [sys.executable, "-m", "tests.support.scale", "1", "100", "400"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("seconds", "is_linear"),
    [((0.2, 1.2, 4.2), True), ((0.2, 0.21, 0.25), True), ((0.2, 1.2, 16.2), False), ((0.2, 0.2, 3.0), False)],
)
def test_growth_worse_than_linear_is_noticed(seconds: tuple[float, ...], is_linear: bool) -> None:
    costs = {count: scale.Cost(seconds=each, memory=0) for count, each in zip((1, 1000, 4000), seconds, strict=True)}
    assert (list(scale.problems(costs)) == []) is is_linear


@pytest.mark.parametrize(("memory", "is_enough"), [(115_000_000, True), (116_000_000, False)])
def test_too_much_memory_is_noticed(memory: int, is_enough: bool) -> None:
    costs = {count: scale.Cost(seconds=1, memory=memory) for count in (1, 1000, 4000)}
    assert (list(scale.problems(costs)) == []) is is_enough


@pytest.mark.integration
def test_packages_survive_kills_outages_and_moving_tags() -> None:
    result = soak.run(15, seed=1)
    assert result.problems == []
    assert result.counts["prefetch: succeeded"] + result.counts["prefetch: ended by a signal"] > 0
