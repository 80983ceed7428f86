"""Samples of `make scale` and `make soak`."""

import pytest

from tests.support import scale, soak


@pytest.mark.integration
def test_commands_grow_linearly() -> None:
    _, failures = scale.run((1, 100, 400))
    assert failures == []


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
