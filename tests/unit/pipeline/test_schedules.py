"""Cron with time zones: what is refused, and when the next instant is."""

import datetime
import zoneinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipeline.schedules import ScheduleError, check_cron, check_timezone, newest_ms, next_ms


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("* * * *", "expected five fields of cron"),
        ("0 0 6 * * 1", "expected five fields of cron"),
        ("@daily", "expected five fields of cron"),
        ("60 * * * *", "is no schedule: bad minute"),
        ("0 24 * * *", "is no schedule: bad hour"),
        ("0 6 * * fun", "is no schedule: bad day-of-week"),
        ("0 6 30 2 *", "is no schedule"),
        ("*/0 * * * *", "is no schedule: bad minute"),
        (6, "expected five fields of cron, got 6"),
    ],
)
def test_what_is_no_schedule_is_refused(cron: object, message: str) -> None:
    """Also what could be written and never comes."""
    with pytest.raises(ScheduleError, match=message) as caught:
        check_cron(cron)
    assert "0 6 * * 1-5" in caught.value.hint


def test_time_zones_are_those_of_the_database() -> None:
    """A path is none."""
    check_timezone("Europe/Berlin")
    for other in ("Berlin", "../etc/passwd", "/etc/localtime", "CEST+1", "", 1, "Europe/Berlin\x00"):
        with pytest.raises(ScheduleError, match="time zone"):
            check_timezone(other)


def test_the_next_instant_is_after_and_goes_with_the_clock_of_its_zone() -> None:
    """In March 02:30 does not exist in Berlin, in October it exists twice: it comes once a day all the same."""
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    at = round(datetime.datetime(2026, 3, 27, 12, tzinfo=zone).timestamp() * 1000)
    days = []
    for _ in range(4):
        due = next_ms("30 2 * * *", "Europe/Berlin", at)
        assert due is not None
        assert due > at
        at = due
        days.append(datetime.datetime.fromtimestamp(due / 1000, zone).strftime("%d %H:%M"))
    assert days == ["28 02:30", "29 03:00", "30 02:30", "31 02:30"]
    assert next_ms("0 0 * * *", "UTC", 0) == 86_400_000


ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
CRONS = st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0 1,2,3 * * *", "0 */6 * * *", "15 * 25 10 *"])
CHANGES_MS = st.sampled_from([1_774_742_400_000, 1_792_886_400_000, 1_793_491_200_000, 1_775_318_400_000])
"""Midnights before clocks change in Berlin, New York or on Lord Howe in 2026."""


@settings(deadline=None)
@given(CRONS, ZONES, CHANGES_MS, st.integers(0, 36 * 3_600_000), st.integers(0, 36 * 3_600_000))
def test_the_next_instant_is_the_same_from_wherever_one_looks(
    cron: str, zone: str, day_ms: int, one_ms: int, other_ms: int
) -> None:
    """After the instant asked about, and nothing in between: also on days when clocks change."""
    early_ms, late_ms = sorted((day_ms + one_ms, day_ms + other_ms))
    due_ms = next_ms(cron, zone, early_ms)
    assert due_ms is not None and due_ms > early_ms
    if due_ms > late_ms:
        assert next_ms(cron, zone, late_ms) == due_ms
    else:
        assert next_ms(cron, zone, due_ms - 1) == due_ms


@settings(deadline=None)
@given(CRONS, ZONES, CHANGES_MS, st.integers(0, 4 * 3_600_000))
def test_the_newest_instant_is_the_last_that_going_forward_finds(
    cron: str, zone: str, day_ms: int, span_ms: int
) -> None:
    """Searching from the end gives what counting from the beginning gives."""
    last, at_ms = None, next_ms(cron, zone, day_ms)
    while at_ms is not None and at_ms <= day_ms + span_ms:
        last, at_ms = at_ms, next_ms(cron, zone, at_ms)
    assert newest_ms(cron, zone, day_ms, day_ms + span_ms) == last


def test_the_newest_instant_of_a_rare_schedule_is_found_in_a_long_span() -> None:
    """29 February, asked about a year later, and asked about half a century."""
    leap_ms = 1_709_164_800_000  # 2024-02-29
    assert newest_ms("0 0 29 2 *", "UTC", 0, leap_ms + 400 * 86_400_000) == leap_ms
    assert newest_ms("0 0 29 2 *", "UTC", leap_ms, leap_ms + 400 * 86_400_000) is None
