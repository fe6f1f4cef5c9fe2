"""The broker's time, learnt from the stamps of what it delivers: no wall clock of this machine is asked.

A message arrives after it was stamped, so each stamp is a lower bound, and the highest of the last minutes
is within milliseconds where work flows. Where only old messages came the estimate is early: then an order
may be asked about that could have been dropped, and nothing is dropped that should be run.
"""

from typing import Final

from headrace.runtime.clock import Clock

WINDOW_S: Final = 60.0
"""Stamps older than two of these no longer count: the broker's clock may have been set back."""


class BrokerTime:
    """`now_ms` of the broker, in terms of this process's monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._current_ms: float | None = None
        self._before_ms: float | None = None

    def seen(self, stamp_ms: int) -> None:
        """Something stamped so was just delivered."""
        now_s = self._clock.monotonic_s()
        offset_ms = stamp_ms - now_s * 1000
        if now_s - self._began_s >= WINDOW_S:
            self._before_ms, self._current_ms, self._began_s = self._current_ms, None, now_s
        if self._current_ms is None or offset_ms > self._current_ms:
            self._current_ms = offset_ms

    def now_ms(self) -> int:
        """Broker time, or a little earlier; the clock's own until anything was seen."""
        offset_ms, before_ms = self._current_ms, self._before_ms
        if offset_ms is None or (before_ms is not None and before_ms > offset_ms):
            offset_ms = before_ms
        return self._clock.now_ms() if offset_ms is None else int(self._clock.monotonic_s() * 1000 + offset_ms)
