"""Showing how far a transfer is, to whoever watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from osc_containers.sources.progress import NullProgress, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_WIDE = 72
"""Columns of a terminal from which on there is room for bars, rates and times."""
_AMOUNT = len(" 999.9/999.9 MB")
_NARROWEST = 4


@contextmanager
def on_terminal() -> Iterator[Progress]:
    """Show a line for each running blob and one for all of them, with rate and time left, on standard error.

    What is written to standard error meanwhile stands above them, and nothing of them is left in the end. Nothing is
    shown where the library that draws is not installed: packages only recommend it.
    """
    try:
        from rich.console import Console  # slow to load, and only wanted at a terminal
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars
        from rich.table import Column
    except ImportError:
        yield NullProgress()
        return

    # Wrapped like prose, a digest in a message could not be copied.
    console = Console(stderr=True, soft_wrap=True)
    is_wide = console.width >= _WIDE
    room = max(_NARROWEST, console.width // 3 if is_wide else console.width - _AMOUNT)
    description = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=room))
    others = (DownloadColumn, TransferSpeedColumn, TimeRemainingColumn) if is_wide else (DownloadColumn,)
    columns = [each(table_column=Column(no_wrap=True)) for each in others]
    with Bars(
        description, *([BarColumn(bar_width=None)] if is_wide else ()), *columns, console=console, transient=True
    ) as bars:
        yield _Terminal(bars)


class _Terminal:
    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._total = bars.add_task("total", total=0)

    def expect(self, size: int) -> None:
        self._bars.update(self._total, total=size)

    @contextmanager
    def blob(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        task = self._bars.add_task(name, total=size)

        def advance(count: int) -> None:
            self._bars.advance(task, count)
            self._bars.advance(self._total, count)

        try:
            yield advance
        finally:
            self._bars.remove_task(task)
