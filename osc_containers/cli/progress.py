"""Progress bars on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from osc_containers.sources.progress import NullProgress, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_WIDE = 72
"""The number of columns that bars, rates and times need; narrower terminals show amounts only."""
_AMOUNT = len(" 999.9/999.9 MB")
_NARROWEST = 4


@contextmanager
def on_terminal() -> Iterator[Progress]:
    """Show a bar for each running download and one for all, with rate and time left, on standard error.

    Messages to standard error appear above the bars, and the bars disappear at the end. Without Rich, which packages
    only recommend, nothing is shown.
    """
    try:
        from rich.console import Console  # slow to load, and not needed without a terminal
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars
        from rich.table import Column
    except ImportError:
        yield NullProgress()
        return

    # With Rich's own wrapping, a digest that spans two lines could not be copied as one word.
    console = Console(stderr=True, soft_wrap=True)
    is_wide = console.width >= _WIDE
    width = max(_NARROWEST, console.width // 3 if is_wide else console.width - _AMOUNT)
    description = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=width))
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
