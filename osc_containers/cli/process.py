"""What the command line and the services share: logging, exit status, and how they end.

Results go to standard output, everything else through logging to standard error. The exit status is 0 for success; 1
for an error with a message, or for what `check` and `outdated` look for; 2 for wrong usage; 130 for an interrupt
(SIGINT, SIGTERM, SIGHUP). The last line of a failed run is the message, because a build server shows only that line.
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


class _Printable(logging.Formatter):
    """Log messages of one line each, with escapes for everything that is not printable."""

    def format(self, record: logging.LogRecord) -> str:
        return terminal.printable(super().format(record))


class _Output(logging.StreamHandler[TextIO]):
    """The current `sys.stderr`: the progress display replaces it, to print messages above its bars."""

    def emit(self, record: logging.LogRecord) -> None:
        self.setStream(sys.stderr)
        super().emit(record)


def run(name: str, handler: Callable[[], int]) -> int:
    """Call `handler`, and turn every error that a user, a registry or a disk can cause into a message.

    `handler` may parse arguments: the exits of `argparse` become a status. An exception that is a bug is not caught.

    :return: the exit status; an interrupt ends the process at once.
    """
    _open_streams()
    output = _Output()
    output.setFormatter(_Printable(f"{name}: %(message)s"))
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
        for problem in error.problems:
            logger.error("%s", problem)
    except BrokenPipeError:
        pass  # The reader of a pipe has closed it, as head(1) does. That deserves no message.
    except OSError as error:
        logger.error("%s: %s", error.filename or "system", error.strerror or error)
    except ImportError as error:
        logger.error("%s; install what the README of osc-containers lists, for %s", error, sys.executable)
    except KeyboardInterrupt:
        logger.error("interrupted")
        exit_fast(130)
    except MemoryError:
        logger.error("out of memory; raise the limit (ulimit -v)")
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        logger.error("cannot start a thread; raise the limit on processes (ulimit -u) or memory (ulimit -v)")
        exit_fast(1)  # Threads that did start may wait for the missing one, and Python would wait for them.
    else:
        return status
    _discard_output()
    return 1


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
    raise KeyboardInterrupt
