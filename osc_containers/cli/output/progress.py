"""Progress bars on a terminal."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, cast

from osc_containers.sources.progress import NullProgress, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_WIDE = 72
"""The number of columns that bars, rates and times need; narrower terminals show amounts only."""
# The widest text in the DownloadColumn of Rich.
_AMOUNT = len(" 999.9/999.9 MB")
_NARROWEST = 4
_FREE = len("^C^C")
"""Columns that stay free at the right, because the terminal shows there what the user types."""
_INTERVAL = 0.1


@contextmanager
def on_terminal() -> Iterator[Progress]:
    """Show a bar for each running download and one for all, with rate and time left, on standard error.

    Messages to standard error appear above the bars, and the bars disappear at the end. Without Rich, which packages
    only recommend, nothing is shown.
    """
    try:
        from rich.console import Console  # slow to load, and not needed without a terminal
        from rich.constrain import Constrain
        from rich.file_proxy import FileProxy
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars
        from rich.table import Column
    except ImportError:
        yield NullProgress()
        return

    # Rich computes how many lines to go up and prints later. Another thread in between would print below the bars.
    lock = threading.RLock()

    # With Rich's own wrapping, a digest that spans two lines could not be copied as one word.
    console = Console(stderr=True, soft_wrap=True)

    class NarrowBars(Bars):
        def get_renderable(self) -> Constrain:
            return Constrain(super().get_renderable(), max(1, console.width - _FREE))

    class Messages(FileProxy):
        def write(self, text: str) -> int:
            with lock:
                return super().write(text)

        def flush(self) -> None:
            with lock:
                super().flush()

    columns = console.width - _FREE
    is_wide = columns >= _WIDE
    width = max(_NARROWEST, columns // 3 if is_wide else columns - _AMOUNT)
    description = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=width))
    others = (DownloadColumn, TransferSpeedColumn, TimeRemainingColumn) if is_wide else (DownloadColumn,)
    bars = NarrowBars(
        description,
        *([BarColumn(bar_width=None)] if is_wide else ()),
        *(each(table_column=Column(no_wrap=True)) for each in others),
        console=console,
        transient=True,
        # Rich itself would redraw in a thread that does not take our lock, and replace streams without it.
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with _redrawn(bars, cast(TextIO, Messages(console, sys.stderr)), lock):
        yield _Terminal(bars, lock)


@contextmanager
def _redrawn(bars: "Bars", messages: TextIO, lock: threading.RLock) -> Iterator[None]:
    """Show the bars during the block, and let messages go above them."""
    ended = threading.Event()

    def redraw() -> None:
        while not ended.wait(_INTERVAL):
            with lock:
                bars.refresh()

    # A daemon, so that a run that ends in another way does not wait for it.
    thread = threading.Thread(target=redraw, daemon=True)
    stderr = sys.stderr
    try:
        with lock:
            bars.start()
        sys.stderr = messages
        thread.start()
        yield
    finally:
        ended.set()
        with lock:
            sys.stderr = stderr
            bars.stop()


class _Terminal:
    def __init__(self, bars: "Bars", lock: threading.RLock) -> None:
        self._bars = bars
        self._lock = lock
        self._total = bars.add_task("total", total=0)

    def expect(self, size: int) -> None:
        self._bars.update(self._total, total=size)

    @contextmanager
    def blob(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        with self._lock:
            task = self._bars.add_task(name, total=size)

        def advance(count: int) -> None:
            self._bars.advance(task, count)
            self._bars.advance(self._total, count)

        try:
            yield advance
        finally:
            with self._lock:
                self._bars.remove_task(task)
