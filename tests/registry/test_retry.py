"""Delays between attempts, and the end of attempts."""

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
def test_retry_after_is_parsed(text: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_retry_after(text, NOW) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(("status", "expected"), [(200, False), (404, False), (408, True), (429, True), (501, False)])
def test_transient_statuses(status: int, expected: bool) -> None:
    assert is_transient(status) is expected
    assert all(is_transient(code) for code in (500, 502, 503, 504, 507, 520, 524, 599))


@given(st.text())
def test_any_retry_after_header_is_parsed_without_an_error(text: str) -> None:
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or seconds >= 0


def test_the_message_has_the_last_problems_and_the_attempts() -> None:
    attempts = Attempts(QUICK, "image", threading.Event())
    attempts.back_off("first")
    attempts.back_off("second")
    with pytest.raises(RegistryError, match=r"^image: first; before: second; tried 3 times in 0 s$"):
        attempts.back_off("first")


def test_a_problem_can_limit_the_attempts() -> None:
    attempts = Attempts(QUICK, "image", threading.Event())
    with pytest.raises(RegistryError, match=r"^image: no; tried once$"):
        attempts.back_off("no", max_attempts=1)


def test_a_wait_beyond_the_deadline_ends_the_attempts() -> None:
    with pytest.raises(RegistryError, match=r"^image: busy; tried once, and it asks to wait 11 s$"):
        Attempts(QUICK, "image", threading.Event()).back_off("busy", wait=11)


class Recorder(threading.Event):
    """Records how long it would wait."""

    waited = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.waited = timeout or 0
        return False


@pytest.mark.parametrize(("wait", "least", "most"), [(None, 0.5, 1), (0, 0.5, 1), (3, 3, 3)])
def test_a_wait_of_zero_still_backs_off(wait: float | None, least: float, most: float) -> None:
    recorder = Recorder()
    Attempts(Policy(), "image", recorder).back_off("busy", wait=wait)
    assert least <= recorder.waited <= most


def test_only_real_progress_resets_the_count() -> None:
    attempts = Attempts(QUICK, "image", threading.Event())
    for _ in range(5):
        attempts.back_off("broken off")
        attempts.received(1 << 20)
    for _ in range(2):
        attempts.back_off("broken off")
        attempts.received(1000)
    with pytest.raises(RegistryError):
        attempts.back_off("broken off")
