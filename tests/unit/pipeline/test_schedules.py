"""Cron with time zones: what is refused, and when the next instant is."""

import datetime
import zoneinfo

import pytest

from headrace.pipeline.schedules import ScheduleError, check_cron, check_timezone, next_ms


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
