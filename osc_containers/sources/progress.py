"""What a transfer reports while it runs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Someone who is told of blobs on their way; every method may be called from several threads."""

    def expect(self, size: int) -> None:
        """Take note that `size` bytes will come, in all."""

    def blob(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show one blob while the block runs; the function that it gives is called with each number of new bytes."""


class NullProgress:
    """Nobody watches."""

    def expect(self, size: int) -> None:
        """Ignore it."""

    def blob(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """Ignore it."""
        return nullcontext(lambda count: None)
