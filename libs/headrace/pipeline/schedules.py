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
    due = next(CronSim(cron, start), None)
    return None if due is None else round(due.timestamp() * 1000)
