"""How long to wait, and when to stop."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.errors import RegistryError
from osc_containers.registry.retry import Attempts, Policy, is_transient, parse_retry_after

NOW = 1_700_000_000.0
QUICK = Policy(first_delay=0, attempts=3, deadline=10)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 120 ", 120),
        ("9" * 60, 1 << 31),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Tue Nov 14 22:13:50 2023", 30),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("Tue, 99 Nov 2023 22:13:50 GMT", None),
        ("٣", None),
    ],
)
def test_reads_retry_after(text: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_retry_after(text, NOW) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(("status", "expected"), [(200, False), (404, False), (408, True), (429, True), (501, False)])
def test_some_replies_may_be_others_the_next_time(status: int, expected: bool) -> None:
    assert is_transient(status) is expected
    assert all(is_transient(code) for code in (500, 502, 503, 504, 507, 520, 524, 599))


@given(st.text())
def test_retry_after_may_be_anything(text: str) -> None:
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or seconds >= 0


def test_the_message_names_the_last_problems_and_the_attempts() -> None:
    attempts = Attempts(QUICK, "image", threading.Event())
    attempts.failed("first")
    attempts.failed("second")
    with pytest.raises(RegistryError, match=r"^image: first; before: second; tried 3 times in 0 s$"):
        attempts.failed("first")


def test_some_problems_are_worth_fewer_attempts() -> None:
    attempts = Attempts(QUICK, "image", threading.Event())
    with pytest.raises(RegistryError, match=r"^image: no; tried once$"):
        attempts.failed("no", most=1)


def test_a_server_that_asks_for_more_than_the_deadline_is_not_waited_for() -> None:
    with pytest.raises(RegistryError, match=r"^image: busy; tried once, and it asks to wait 11 s$"):
        Attempts(QUICK, "image", threading.Event()).failed("busy", wait=11)


class Recorder(threading.Event):
    """Notes for how long it is waited for, and does not wait."""

    waited = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.waited = timeout or 0
        return False


@pytest.mark.parametrize(("wait", "least", "most"), [(None, 0.5, 1), (0, 0.5, 1), (3, 3, 3)])
def test_a_server_that_asks_for_no_time_is_not_pressed(wait: float | None, least: float, most: float) -> None:
    recorder = Recorder()
    Attempts(Policy(), "image", recorder).failed("busy", wait=wait)
    assert least <= recorder.waited <= most


def test_only_real_progress_begins_the_count_anew() -> None:
    attempts = Attempts(QUICK, "image", threading.Event())
    for _ in range(5):
        attempts.failed("broken off")
        attempts.received(1 << 20)
    for _ in range(2):
        attempts.failed("broken off")
        attempts.received(1000)
    with pytest.raises(RegistryError):
        attempts.failed("broken off")
