"""Assertions about error messages."""

import re

from osc_containers.errors import Error

_LIMIT = 4000
"""Characters of one problem; the input that it repeats is truncated far below that."""


def exactly(message: str) -> str:
    """Return the pattern for `pytest.raises(match=…)` that matches exactly this message."""
    return rf"\A{re.escape(message)}\Z"


def assert_bounded(error: ValueError | Error) -> None:
    """Check that each problem is a printable line of limited length, however hostile the input was."""
    problems = error.problems if isinstance(error, Error) else (str(error),)
    assert problems
    assert len(problems) < 100
    for problem in problems:
        assert len(problem) <= _LIMIT
        assert problem.isprintable(), repr(problem)
