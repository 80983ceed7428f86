"""What the command line and the services have in common: how they set_verbosity, and how they end.

Results go to standard output, everything else through logging to standard error. Exit status: 0, 1 for a said error
(or what `check` and `outdated` are there to find), 2 for wrong usage, 130 for an interrupt (SIGINT, SIGTERM, SIGHUP).
The last line of a failed run is the message, since a build server shows that line alone.
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
"""What Python says of it, in an exception that is not only for that."""


class _Printable(logging.Formatter):
    """Messages of one line each, with escapes for what is not printable."""

    def format(self, record: logging.LogRecord) -> str:
        return terminal.printable(super().format(record))


class _Output(logging.StreamHandler[TextIO]):
    """Standard error as it is now: a display of progress puts itself there, to write messages above its bars."""

    def emit(self, record: logging.LogRecord) -> None:
        self.setStream(sys.stderr)
        super().emit(record)


def run(name: str, handler: Callable[[], int]) -> int:
    """Call a handler, and turn what a user, a registry or a disk can cause into a message and an exit status.

    What `argparse` ends with is a status, too: the handler may parse arguments.
    """
    _open_streams()
    output = _Output()
    output.setFormatter(_Printable(f"{name}: %(message)s"))
    logging.basicConfig(handlers=[output], level=logging.INFO, force=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup(1) has the second ignored
            signal.signal(number, _terminate)
    try:
        return _written(_status(handler))
    except Error as error:
        for problem in error.problems:
            logger.error("%s", problem)
    except BrokenPipeError:
        pass  # nobody reads on; nothing to say
    except OSError as error:
        logger.error("%s: %s", error.filename or "system", error.strerror or error)
    except ImportError as error:
        logger.error("%s; %s needs what the README of osc-containers lists", error, sys.executable)
    except KeyboardInterrupt:
        logger.error("interrupted")
        exit_fast(130)
    except MemoryError:
        logger.error("out of memory; raise what limits it (ulimit -v)")
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        logger.error("no thread can be started; raise what limits their number (ulimit -u) or memory (ulimit -v)")
        exit_fast(1)  # one that could may wait for it
    _drop_output()
    return 1


def _open_streams() -> None:
    """Have all three streams, and no text that cannot be written to them, whatever the locale."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next file that is opened would get its number, an archive even
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def set_verbosity(verbosity: int) -> None:
    """Say less than usual (-1) or more (1) from here on."""
    logging.getLogger().setLevel(logging.INFO - 10 * verbosity)


def _status(handler: Callable[[], int]) -> int:
    try:
        return handler()
    except SystemExit as end:
        return int(end.code or 0)


def _written(status: int) -> int:
    """Write results out now: that nobody reads them any more has to be noticed here, not when Python ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None
    return status


def _drop_output() -> None:
    """Forget results that cannot be written, lest Python tries once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_fast(status: int) -> NoReturn:
    """End without what Python does when it ends: 15 ms for nobody, and a wait for threads that wait for a server."""
    _drop_output()
    os._exit(status)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that what is half done is removed."""
    raise KeyboardInterrupt
