"""Schedules: five fields of cron and whose clock they mean."""

import datetime
import zoneinfo
from typing import Any, Final

from cronsim import CronSim, CronSimError

from headrace.pipeline.problems import shown

FIELDS: Final = 5
UTC: Final = "UTC"
_BEGIN: Final = datetime.datetime(2024, 2, 28, tzinfo=datetime.UTC)
"""Before a leap day, so that a schedule of 29 February has a next instant near."""
_HOUR_MS: Final = 3_600_000
_PARTS_MS: Final = (_HOUR_MS, 24 * _HOUR_MS, 31 * 24 * _HOUR_MS, 8 * 366 * 24 * _HOUR_MS)
"""Of a long span, from its end: what comes in none of them, 29 February included, comes hardly ever."""


class ScheduleError(ValueError):
    """Text that is no schedule or no time zone. `hint` says what to write."""

    def __init__(self, text: str, hint: str) -> None:
        self.hint = hint
        super().__init__(text)


def check_cron(value: Any) -> None:
    """Refuse what never fires or is no schedule.

    Raises:
        ScheduleError: see there.
    """
    hint = "write minute, hour, day of month, month, day of week, such as `0 6 * * 1-5`"
    if not isinstance(value, str) or len(value.split()) != FIELDS:
        msg = f"expected five fields of cron, got {shown(value)}"
        raise ScheduleError(msg, hint)
    try:
        next(CronSim(value, _BEGIN))
    except CronSimError as error:
        msg = f"{shown(value)} is no schedule: {str(error).lower()}"
        raise ScheduleError(msg, hint) from error
    except StopIteration as error:
        msg = f"{shown(value)} never comes"
        raise ScheduleError(msg, hint) from error


def check_timezone(value: Any) -> None:
    """Refuse what is no time zone of the IANA database.

    Raises:
        ScheduleError: see there.
    """
    hint = "write a name of the IANA database, such as `Europe/Berlin`"
    if not isinstance(value, str):
        msg = f"expected a time zone, got {shown(value)}"
        raise ScheduleError(msg, hint)
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = f"{shown(value)} is no time zone"
        raise ScheduleError(msg, hint) from error


def next_ms(cron: str, timezone: str, after_ms: int) -> int | None:
    """The first instant after `after_ms` (Unix milliseconds) at which a checked schedule is due; None when none comes.

    Summer time as cron does it: what falls into the hour that is skipped comes right after it, what falls into the hour
    that comes twice comes once.
    """
    start = datetime.datetime.fromtimestamp(after_ms / 1000, zoneinfo.ZoneInfo(timezone))
    for due in CronSim(cron, start):
        due_ms = round(due.timestamp() * 1000)
        if due_ms > after_ms:  # in the second of two equal hours the library gives the first one's instants again
            return due_ms
    return None


def newest_ms(cron: str, timezone: str, after_ms: int, until_ms: int) -> int | None:
    """The last instant after `after_ms` and up to `until_ms` at which a checked schedule is due, or None.

    Costs about 60 steps of a schedule however long the span: it is searched from its end, in ever longer parts.
    """
    for back_ms in _PARTS_MS:
        begin_ms = max(after_ms, until_ms - back_ms)
        found, due_ms = None, next_ms(cron, timezone, begin_ms)
        while due_ms is not None and due_ms <= until_ms:
            found, due_ms = due_ms, next_ms(cron, timezone, due_ms)
        if found is not None or begin_ms == after_ms:
            return found
    first = next_ms(cron, timezone, after_ms)
    return first if first is not None and first <= until_ms else None
