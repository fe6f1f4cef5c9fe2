"""The only clock. Everything else is given `now`.

`now_ms` is the broker's time: own monotonic clock plus an offset learnt from timestamps of acknowledged appends, so
that a service with a wrong wall clock decides nothing wrongly. `monotonic_s` is the running event loop's clock, which
the simulator replaces as a whole.
"""

import asyncio
import time
from typing import Protocol

from headrace.contracts.instants import rfc3339 as rfc3339


class Clock(Protocol):
    """What services may ask about time."""

    def now_ms(self) -> int:
        """Broker time in milliseconds since 1970; never decreases within a process."""
        ...

    def monotonic_s(self) -> float:
        """Seconds of this process's own clock, for silences and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` ≥ 0 of the own clock."""
        ...

    def learn(self, broker_ms: int) -> None:
        """The broker stamped something `broker_ms` just now."""
        ...


class SystemClock:
    """Monotonic clock plus offset. Until the broker's time is learnt the offset comes from the wall clock."""

    def __init__(self) -> None:
        self._offset_ms = time.time() * 1000 - time.monotonic() * 1000
        self._last_ms = 0
        self.wall_error_ms = 0
        """How far the wall clock was from the broker's when last learnt; `doctor` warns about it."""

    def now_ms(self) -> int:
        """See Clock."""
        self._last_ms = max(self._last_ms, int(time.monotonic() * 1000 + self._offset_ms))
        return self._last_ms

    def monotonic_s(self) -> float:
        """See Clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)

    def learn(self, broker_ms: int) -> None:
        """See Clock."""
        self._offset_ms = broker_ms - time.monotonic() * 1000
        self.wall_error_ms = int(time.time() * 1000) - broker_ms
