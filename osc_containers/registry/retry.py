"""Timeouts and retry limits per host.

The delay between attempts grows exponentially, with jitter, so that clients that failed together do not come back
together. A server's `Retry-After` (RFC 9110, 10.2.3) takes precedence if it is within the deadline.
"""

import email.utils
import logging
import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC
from typing import NamedTuple

from osc_containers.errors import RegistryError
from osc_containers.registry.errors import Failure

logger = logging.getLogger(__name__)

_OUTAGE_DELAY = 4.0
"""Longest delay while a server restarts, in seconds; its first answer should not be missed by much."""
# Statuses that last: Not Implemented, HTTP Version Not Supported, Network Authentication Required.
_FINAL = frozenset({501, 505, 511})
_PROGRESS = 1 << 20
"""Bytes that count as progress. A server that interrupts every transfer after fewer is not worth new attempts."""


class Policy(NamedTuple):
    """Timeouts and limits for one host; all times are in seconds."""

    connect_timeout: float = 30
    read_timeout: float = 60
    """Longest silence; also the time in which at least `connection.MINIMUM` bytes must arrive."""
    deadline: float = 300
    """No attempt starts later than this after the first attempt or the last progress."""
    attempts: int = 6
    first_delay: float = 1
    longest_delay: float = 30
    outage: float = 75
    """Time in which a server that has answered before may be unreachable, for instance because it restarts."""
    connections: int = 8
    """Idle connections to keep for each host."""


def is_transient(status: int) -> bool:
    """Tell whether another attempt may get another status."""
    return status in (408, 429) or (500 <= status < 600 and status not in _FINAL)


class Attempts:
    """The attempts at one request. Messages begin with `where`; `cancelled` ends all waiting."""

    def __init__(self, policy: Policy, where: str, cancelled: threading.Event) -> None:
        self._policy = policy
        self._where = where
        self._cancelled = cancelled
        self._problems: list[str] = []
        self._count = 0
        self._started = time.monotonic()
        self._progress = 0
        self._outage_count = 0
        self._outage_started = 0.0

    def record(self, failure: Failure, problem: str = "") -> None:
        """Record a failure and sleep until the next attempt; `problem` describes it better than its own message.

        :raises RegistryError: as `back_off`.
        """
        if failure.is_outage:
            self._wait_for_server(problem or str(failure))
        else:
            self.back_off(problem or str(failure), wait=failure.wait, max_attempts=failure.max_attempts)

    def back_off(self, problem: str, *, wait: float | None = None, max_attempts: int | None = None) -> None:
        """Record a failure and sleep until the next attempt, for `wait` seconds if the server asked for that.

        :raises RegistryError: there is no next attempt, because of their number (`max_attempts` or the policy's),
            because of the deadline, or because the run was cancelled.
        """
        # A failure of another kind ends an outage, so a later one may take its whole time again.
        self._outage_count = 0
        self._count += 1
        # A problem that comes again is listed once, as the latest.
        self._problems = [*(each for each in self._problems if each != problem), problem]
        elapsed = time.monotonic() - self._started
        # "0", and a date that our clock has passed, leave the delay to us.
        delay = wait or self._delay()
        # The policy of a mirror allows fewer attempts than many failures do.
        if self._count >= min(max_attempts or self._policy.attempts, self._policy.attempts):
            raise RegistryError(self._message(elapsed, self._problems, self._count))
        if elapsed + delay > self._policy.deadline:
            message = self._message(elapsed, self._problems, self._count)
            raise RegistryError(message + (f", and it asks to wait {delay:.0f} s" if wait else ""))
        logger.debug("%s: %s; next attempt in %.1f s", self._where, problem, delay)
        if self._cancelled.wait(delay):
            raise RegistryError(f"{self._where}: cancelled")

    def _wait_for_server(self, problem: str) -> None:
        """Sleep until the next attempt; the outage is limited in time, because no attempt reaches the server."""
        now = time.monotonic()
        if not self._outage_count:
            self._outage_started = now
        self._outage_count += 1
        elapsed, delay = now - self._outage_started, min(self._delay(), _OUTAGE_DELAY)
        if elapsed + delay > min(self._policy.outage, self._policy.deadline):
            problems = (*self._problems[-2:], problem)
            raise RegistryError(self._message(elapsed, problems, self._count + self._outage_count))
        logger.debug("%s: %s; next attempt in %.1f s", self._where, problem, delay)
        if self._cancelled.wait(delay):
            raise RegistryError(f"{self._where}: cancelled")

    def received(self, count: int) -> None:
        """Record `count` bytes received; enough of them start the count of attempts from the beginning."""
        self._progress += count
        if self._progress >= _PROGRESS:
            self._progress = 0
            self._count = self._outage_count = 0
            self._problems.clear()
            self._started = time.monotonic()

    def _delay(self) -> float:
        count = self._outage_count or self._count
        longest = min(self._policy.first_delay * 2 ** (count - 1), self._policy.longest_delay)
        return random.uniform(longest / 2, longest)  # noqa: S311 - jitter needs no secrecy

    def _message(self, elapsed: float, problems: Sequence[str], count: int) -> str:
        number = "once" if count == 1 else f"{count} times in {elapsed:.0f} s"
        return f"{self._where}: {'; before: '.join(reversed(problems[-3:]))}; tried {number}"


def parse_retry_after(text: str | None, now: float | None = None) -> float | None:
    """Parse `Retry-After`, which is a number of seconds or a date, into seconds from `now` (Unix time).

    None if there is no such header, or it is malformed.
    """
    if text is None:
        return None
    text = text.strip()[:64]
    if text.isascii() and text.isdigit():
        return float(min(int(text), 1 << 31))
    try:
        date = email.utils.parsedate_to_datetime(text)
        # The format of asctime, which is allowed, has no time zone.
        then = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(then - (time.time() if now is None else now), 0)
