"""How long to wait for a server, which failures to try again, and what to say in the end.

Back-off is exponential with full jitter, so that clients that failed together do not come back together; a server's
`Retry-After` (RFC 9110, 10.2.3) is obeyed instead where it is within the deadline.
"""

import email.utils
import random
import threading
import time
from datetime import UTC
from typing import NamedTuple

from osc_containers.errors import RegistryError

_FINAL = frozenset({501, 505})

_PROGRESS = 1 << 20  # bytes that count as progress: a server that breaks off after each few is not worth the while


class Policy(NamedTuple):
    """Patience with one server; all times are in seconds."""

    connect_timeout: float = 30
    read_timeout: float = 60
    """Longest silence; also the time in which a trickle must amount to something (`connection.SLOWEST`)."""
    deadline: float = 300
    """Time from the first attempt, or the last progress, after which none is begun."""
    attempts: int = 6
    first_delay: float = 1
    longest_delay: float = 30
    connections: int = 8
    """Idle connections that are kept per host."""


def is_transient(status: int) -> bool:
    """Tell whether a reply may be another one the next time."""
    return status in (408, 429) or (500 <= status < 600 and status not in _FINAL)


class Attempts:
    """The attempts at one request; `what` begins the message of their failure, and `cancelled` ends their waiting."""

    def __init__(self, policy: Policy, what: str, cancelled: threading.Event) -> None:
        self._policy = policy
        self._what = what
        self._cancelled = cancelled
        self._problems: list[str] = []
        self._count = 0
        self._started = time.monotonic()
        self._progress = 0

    def failed(self, problem: str, *, wait: float | None = None, most: int | None = None) -> None:
        """Note a failure and sleep until the next attempt: `wait` seconds where the server said so.

        :raises RegistryError: there is no next attempt, by number (`most` or the policy's), by deadline, or because
            nobody waits for it any more.
        """
        self._count += 1
        self._problems = [*(known for known in self._problems if known != problem), problem]
        elapsed = time.monotonic() - self._started
        delay = wait or self._delay()  # "0", or a date that is past by our clock, leaves it to us
        if self._count >= min(most or self._policy.attempts, self._policy.attempts):
            raise RegistryError(self._message(elapsed, ""))
        if elapsed + delay > self._policy.deadline:
            asked = f", and it asks to wait {delay:.0f} s" if wait else ""
            raise RegistryError(self._message(elapsed, asked))
        if self._cancelled.wait(delay):
            raise RegistryError(f"{self._what}: given up")

    def received(self, count: int) -> None:
        """Note bytes that came; enough of them begin the count of attempts anew."""
        self._progress += count
        if self._progress >= _PROGRESS:
            self._progress = 0
            self._count = 0
            self._problems.clear()
            self._started = time.monotonic()

    def _delay(self) -> float:
        longest = min(self._policy.first_delay * 2 ** (self._count - 1), self._policy.longest_delay)
        return random.uniform(longest / 2, longest)  # noqa: S311 - jitter needs no secrecy

    def _message(self, elapsed: float, asked: str) -> str:
        tried = "once" if self._count == 1 else f"{self._count} times in {elapsed:.0f} s"
        problems = "; before: ".join(reversed(self._problems[-3:]))
        return f"{self._what}: {problems}; tried {tried}{asked}"


def parse_retry_after(text: str | None, now: float | None = None) -> float | None:
    """Read `Retry-After`, seconds or a date, into seconds from `now` (Unix time); None where it says nothing."""
    if text is None:
        return None
    text = text.strip()[:64]
    if text.isascii() and text.isdigit():
        return float(min(int(text), 1 << 31))
    try:
        date = email.utils.parsedate_to_datetime(text)
        then = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()  # asctime's form has no zone
    except (ValueError, OverflowError):
        return None
    return max(then - (time.time() if now is None else now), 0)
