"""What a transfer reports while it runs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Displays the progress of downloads; every method may be called from several threads."""

    def expect(self, size: int) -> None:
        """Set the number of bytes of all downloads together."""

    def blob(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show one blob while the block runs; call the function that it yields with the number of new bytes."""


class NullProgress:
    """Displays nothing."""

    def expect(self, size: int) -> None:
        """Do nothing."""

    def blob(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """Do nothing."""
        return nullcontext(lambda count: None)
