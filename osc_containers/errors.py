"""Exceptions that callers may catch, grouped by who has to act.

Everything that a user, a registry or a disk can cause is raised as an `Error`, or as an `OSError` whose text names the
file. Any other exception is a bug and keeps its traceback. A message reads `where: what; got X, expected Y` in lower
case, and ends with what to do now unless that is obvious.
"""


class Error(Exception):
    """Base class of user-facing errors; `problems` holds one or more one-line messages."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DescriptionError(Error):
    """An image description or `_service` file is unusable: edit it."""


class LockError(Error):
    """The lock file is broken or does not cover the description: run the prefetch again."""


class PolicyError(Error):
    """A signature policy or the configuration of signatures is broken: edit it."""


class RegistryError(Error):
    """A registry or another image source failed: log in, wait, or correct the name."""


class ArtifactError(RegistryError):
    """A registry or another image source has something else under this name: use the reference of an image."""


class MissingError(RegistryError):
    """A registry does not serve a manifest by its digest."""


class VerificationError(Error):
    """Content does not match its locked digest, or no accepted signature: do not use it."""
