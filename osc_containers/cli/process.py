"""What the command line and the services share: logging, exit status, and how they end.

Results go to standard output, everything else through logging to standard error, where warnings and errors are marked
as such. The exit status is 0 for success, 1 for an error with a message, 2 for wrong usage, 128 and the number of the
signal after SIGINT, SIGTERM or SIGHUP. Commands that look for something end with 1 if they find it and with 3 if they
fail. The last line of a failed run is the message, because a build server shows only that line.
"""

import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TextIO

from osc_containers.cli.output import terminal
from osc_containers.errors import Error

logger = logging.getLogger(__name__)

_NO_THREAD = "can't start new thread"
"""Python's message for this; the class of the exception, `RuntimeError`, has other uses."""

_signals: list[int] = []
"""The signals that have arrived."""
_lost: list[bool] = []
"""Not empty if the exception for a signal was lost."""
_handlers: dict[signal.Signals, Any] = {}
_hooks: list[Callable[[Any], object]] = []
"""The handlers of signals, and the hook for lost exceptions, that were there before ours."""
_PATIENCE = 20.0
"""Seconds after a signal in which a run must end: it may have to move large files."""
# Seconds until a lost exception is raised again, when the finalizer or callback that lost it should have ended.
_SOON = 0.01

_MARKS = {logging.WARNING: ("warning:", "yellow"), logging.ERROR: ("error:", "red")}


class _Printable(logging.Formatter):
    """Log messages of one line each, with escapes for everything that is not printable; problems are marked."""

    def __init__(self, name: str) -> None:
        super().__init__("%(message)s")
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        text = terminal.printable(super().format(record))
        if record.levelno not in _MARKS:
            return f"{self._name}: {text}"
        word, style = _MARKS[record.levelno]
        return f"{self._name}: {terminal.paint(word, style, sys.stderr)} {text}"


class _Output(logging.StreamHandler[TextIO]):
    """The current `sys.stderr`: the progress display replaces it, to print messages above its bars."""

    def emit(self, record: logging.LogRecord) -> None:
        self.setStream(sys.stderr)
        super().emit(record)


def run(name: str, handler: Callable[[], int], *, failure: int = 1) -> int:
    """Call `handler`, and turn every error that a user, a registry or a disk can cause into a message.

    `handler` may parse arguments: the exits of `argparse` become a status. An exception that is a bug is printed with
    its traceback.

    :return: the exit status, which is `failure` after an error; an interrupt ends the process at once.
    """
    _open_streams()
    output = _Output()
    output.setFormatter(_Printable(name))
    logging.basicConfig(handlers=[output], level=logging.INFO, force=True)
    _signals.clear()
    _prepare_signals()
    try:
        try:
            status = handler()
        except SystemExit as end:
            status = int(end.code or 0)
        _flush_output()
        _leave_signals()
    except BaseException as error:
        _leave_signals()
        # After a signal, any exception can be a consequence of it.
        if isinstance(error, KeyboardInterrupt) or _signals:
            _end_interrupted(str(error) if isinstance(error, KeyboardInterrupt) else "")
        _report_exception(error, failure)
    else:
        return status
    _discard_output()
    return failure


def _report_exception(error: BaseException, failure: int) -> None:
    match error:
        case Error():
            report(error)
        case BrokenPipeError():
            pass  # The reader of a pipe has closed it, as head(1) does. That deserves no message.
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            logger.error("too many open files; raise the limit (ulimit -n, ulimit -Hn)")
        case OSError():
            logger.error("%s: %s", _location(error.filename) or "system", error.strerror or error)
        case ImportError():
            logger.error("%s; install what the README of osc-containers lists, for %s", error, sys.executable)
        case MemoryError():
            logger.error("out of memory; raise the limit (ulimit -v)")
        case RuntimeError() if str(error) == _NO_THREAD:
            logger.error("cannot start a thread; raise the limit on processes (ulimit -u) or memory (ulimit -v)")
            exit_fast(failure)  # Threads that did start may wait for the missing one, and Python would wait for them.
        case _:
            # Python's own status for this is 1, which is something else for commands with a status for failures.
            sys.excepthook(type(error), error, error.__traceback__)


def _location(name: object) -> str:
    """Return the name of a file for a message: "." alone would say little."""
    text = str(name or "")
    return os.path.abspath(text) if text == os.curdir else text


def report(error: Error) -> None:
    """Log each problem of an error."""
    for problem in error.problems:
        logger.error("%s", problem)


def _open_streams() -> None:
    """Make sure that all three streams are open and accept any text, whatever the locale."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # If one is closed, the next file to be opened gets its number, and messages would end up in an archive.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def set_verbosity(verbosity: int) -> None:
    """Set how much is logged from now on: -1 for warnings and errors, 0 for the default, 1 for more."""
    logging.getLogger().setLevel(logging.INFO - 10 * verbosity)


def _flush_output() -> None:
    """Write results now, so that a closed pipe or a full disk is noticed here and not when Python ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def _discard_output() -> None:
    """Discard results that cannot be written; otherwise Python would try again, and fail, when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        # The buffer of sys.stdout cannot be emptied, but what it is written to can be replaced.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_fast(status: int) -> NoReturn:
    """End the process without Python's cleanup, which takes 15 ms and waits for threads that wait for a server."""
    _discard_output()
    os._exit(status)


def _prepare_signals() -> None:
    """Let SIGINT end the process at once, without a traceback; the programs that start us may have blocked it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _handlers[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def handle_signals() -> None:
    """From now on, end by an exception after a signal, so that temporary files are removed.

    Until everything is imported, signals end the process as they end any program: there is nothing to remove yet.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup(1) makes programs ignore SIGHUP, and a shell makes its background jobs ignore SIGINT.
        if signal.getsignal(number) == signal.SIG_DFL:
            _handlers.setdefault(number, signal.signal(number, _interrupt))
    _handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, _interrupt_again)
    # If this is called twice, our own hook must not become the one that is restored.
    if sys.unraisablehook is not _unraisable:
        _hooks[:] = [sys.unraisablehook]
        sys.unraisablehook = _unraisable


def _leave_signals() -> None:
    """Handle signals as before: everything is written or removed, and only messages remain to be printed."""
    # Otherwise the alarm of an earlier signal could end the run while it prints its last message.
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in list(_handlers):
        signal.signal(number, _handlers.pop(number))
    if _hooks:
        sys.unraisablehook = _hooks.pop()


def _end_interrupted(note: str = "") -> NoReturn:
    # The level CRITICAL has no mark before its messages: an interrupt is no error.
    logger.critical("interrupted%s", f"; {note}" if note else "")
    exit_fast(128 + (_signals[0] if _signals else signal.SIGINT))


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _signals.append(number)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    raise KeyboardInterrupt


def _interrupt_again(number: int, frame: FrameType | None) -> NoReturn:
    """Raise an exception that was lost once more, or end a process that has not ended in time."""
    if _lost:
        _lost.clear()
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        raise KeyboardInterrupt
    _end_interrupted()


def _unraisable(error: "sys.UnraisableHookArgs") -> None:
    """Notice an interrupt that Python has dropped, because it was raised in a finalizer or in a callback of C code."""
    if issubclass(error.exc_type, KeyboardInterrupt):
        _lost.append(True)
        signal.setitimer(signal.ITIMER_REAL, _SOON)
    else:
        _hooks[0](error)
