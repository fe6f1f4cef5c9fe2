"""Getting a report into the log: the same bytes under the same id until it is known to be stored."""

import logging
from typing import Final

from headrace.contracts import names
from headrace.contracts.errors import StorageFullError, UnavailableError, UnknownOutcomeError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import EventLog
from headrace_step_executor.decide import Outgoing

log = logging.getLogger("headrace.executor")

PAUSE_MIN_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0


async def store(
    eventlog: EventLog, report: Outgoing, *, clock: Clock, within_s: float = names.UNKNOWN_RESOLVE_S
) -> None:
    """Return when the report is stored. An answer `duplicate` is as good: its id covers all of its content.

    Raises:
        UnavailableError, UnknownOutcomeError, StorageFullError: not known to be stored after `within_s`.
        The order must not be acknowledged.
    """
    until_s = clock.monotonic_s() + within_s
    pause_s = PAUSE_MIN_S
    while True:
        try:
            await eventlog.append(report.subject, report.body, msg_id=report.id)
            return
        except (UnavailableError, UnknownOutcomeError, StorageFullError) as error:
            if clock.monotonic_s() + pause_s > until_s:
                raise
            log.warning("report.not_stored", extra={"subject": report.subject, "why": str(error)})
        await clock.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_MAX_S)
