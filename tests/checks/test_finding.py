"""A finding has the place that the problem of an exception names."""

import pytest

from osc_containers.checks.finding import from_problem


@pytest.mark.parametrize(
    ("problem", "place"),
    [
        ("a.kiwi:3: bad", ("a.kiwi", 3, "bad")),
        ("a.kiwi: bad: x:1: y", ("a.kiwi", 0, "bad: x:1: y")),
        ("sub/a b.xml:3: two\nlines", ("sub/a b.xml", 3, "two\nlines")),
        ("_service:3: bad", ("_service", 3, "bad")),
        ("_service: 3: bad", ("_service", 0, "3: bad")),
        ("_service:3 and 14 and 15: bad", ("_service", 3, "bad")),
        ("_service:obs_scm:a.kiwi:3: bad", ("_service:obs_scm:a.kiwi", 3, "bad")),
        ("_service:tar:obs_scm:a b.kiwi: bad: x", ("_service:tar:obs_scm:a b.kiwi", 0, "bad: x")),
        ("bad", (".", 0, "bad")),
        (": bad", (".", 0, ": bad")),
        (f"a.kiwi:{'9' * 5000}: bad", (".", 0, f"a.kiwi:{'9' * 5000}: bad")),
        ("_service:" + "a:" * 5000, (".", 0, "_service:" + "a:" * 5000)),
    ],
)
def test_place_of_a_problem(problem: str, place: tuple[str, int, str]) -> None:
    finding = from_problem(problem, "x")
    assert (finding.file, finding.line, finding.why) == place
