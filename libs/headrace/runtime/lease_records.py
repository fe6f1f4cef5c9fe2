"""Records of members that left long ago, removed: else every start of a process leaves one for ever.

A record is removed by its sequence. Should its member live after all, it has a newer record by then, and nothing is
removed; and whoever finds no record of a holder takes it for gone, as it would after a silence.
"""

import logging
from typing import Final

from headrace.contracts import subjects
from headrace.contracts.errors import RetryableError, UnknownOutcomeError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Admin

log = logging.getLogger("headrace.lease")

BURY_AFTER_S: Final = 60.0
"""By our own clock, since we saw it leave or took it for gone. Long enough for people who look at who was there."""
BURY_EVERY_S: Final = 10.0


class Departed:
    """Members that have left, as far as their records may still be there."""

    def __init__(self, admin: Admin, clock: Clock) -> None:
        self._admin, self._clock = admin, clock
        self._left: dict[str, tuple[int, float]] = {}
        """Name → (sequence of its last record, when it was seen to be gone)."""

    def left(self, name: str, seq: int) -> None:
        """It has said so, or was silent for too long."""
        self._left[name] = seq, self._clock.monotonic_s()

    def is_back(self, name: str) -> None:
        """It has renewed."""
        self._left.pop(name, None)

    def forget(self) -> None:
        """All of them: the records are about to be read again."""
        self._left.clear()

    async def bury(self) -> None:
        """Remove what is old enough. What cannot be removed now is tried again the next time."""
        now_s = self._clock.monotonic_s()
        for name, (seq, at_s) in list(self._left.items()):
            if now_s - at_s < BURY_AFTER_S:
                continue
            try:
                await self._admin.remove(subjects.LEASES, seq)
            except (RetryableError, UnknownOutcomeError) as error:
                log.warning("lease.record_left", extra={"member": name, "why": f"{type(error).__name__}: {error}"})
                return
            if self._left.get(name, (0, 0.0))[0] == seq:
                del self._left[name]
            log.info("lease.record_removed", extra={"member": name})
