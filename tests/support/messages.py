"""What the tests expect of error messages."""

import re

from osc_containers.errors import Error

_LIMIT = 4000
"""Characters of one problem; what it repeats of hostile input is cut long before."""


def exactly(message: str) -> str:
    """Return the pattern for `pytest.raises(match=…)` that is this whole message and no other."""
    return rf"\A{re.escape(message)}\Z"


def assert_bounded(error: ValueError | Error) -> None:
    """Check that each problem is one line that every terminal and file takes, however hostile the input was."""
    problems = error.problems if isinstance(error, Error) else (str(error),)
    assert problems
    assert len(problems) < 100
    for problem in problems:
        assert len(problem) <= _LIMIT
        assert problem.isprintable(), repr(problem)
