"""What the command line and the services share: logging, exit status, and how they end.

Results go to standard output, everything else through logging to standard error, where warnings and errors are marked
as such. The exit status is 0 for success, 1 for an error with a message, 2 for wrong usage, 128 and the number of the
signal after SIGINT, SIGTERM or SIGHUP. Commands that look for something end with 1 if they find it and with 3 if they
fail. The last line of a failed run is the message, because a build server shows only that line.
"""

import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TextIO

from osc_containers.cli import terminal
from osc_containers.errors import Error

logger = logging.getLogger(__name__)

_NO_THREAD = "can't start new thread"
"""Python's message for this; the class of the exception, `RuntimeError`, has other uses."""

_signals: list[int] = []
"""The signals that have arrived."""

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
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup(1) makes programs ignore SIGHUP
            signal.signal(number, _terminate)
    try:
        try:
            status = handler()
        except SystemExit as end:
            status = int(end.code or 0)
        _flush_output()
    except Error as error:
        report(error)
    except BrokenPipeError:
        pass  # The reader of a pipe has closed it, as head(1) does. That deserves no message.
    except OSError as error:
        logger.error("%s: %s", error.filename or "system", error.strerror or error)
    except ImportError as error:
        logger.error("%s; install what the README of osc-containers lists, for %s", error, sys.executable)
    except KeyboardInterrupt:
        logger.info("interrupted")
        exit_fast(128 + (_signals[0] if _signals else signal.SIGINT))
    except MemoryError:
        logger.error("out of memory; raise the limit (ulimit -v)")
    except Exception as error:
        if type(error) is RuntimeError and str(error) == _NO_THREAD:
            logger.error("cannot start a thread; raise the limit on processes (ulimit -u) or memory (ulimit -v)")
            exit_fast(failure)  # Threads that did start may wait for the missing one, and Python would wait for them.
        # Python's own status for this is 1, which is something else for commands with a status for failures.
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        return status
    _discard_output()
    return failure


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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_fast(status: int) -> NoReturn:
    """End the process without Python's cleanup, which takes 15 ms and waits for threads that wait for a server."""
    _discard_output()
    os._exit(status)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that temporary files are removed."""
    _signals.append(number)
    raise KeyboardInterrupt
