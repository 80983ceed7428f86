"""The exceptions that a caller may catch, split by who must act.

Everything that a user, a registry or a disk can cause is an `Error` (or an `OSError`, whose text names its file);
anything else is a bug and keeps its traceback. A message reads `where: what; got X, expected Y`, in lower case, and
ends with what to do where that is not plain.
"""


class Error(Exception):
    """Base of all said errors; `problems` has each of them as a line of text, and there is at least one."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DescriptionError(Error):
    """A description (or `_service` file) cannot be used: edit it."""


class LockError(Error):
    """The lock is broken or does not cover the description: prefetch again."""


class RegistryError(Error):
    """A registry (or another image source) did not give what was asked: log in, wait, or correct the name."""


class VerificationError(Error):
    """Bytes are not those that were pinned: do not use them."""
