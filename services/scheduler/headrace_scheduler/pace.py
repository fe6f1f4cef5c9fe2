"""How long one partition works before the others have their turn."""

from typing import Final

from headrace.runtime.clock import Clock

SLICE_US: Final = 5_000
"""With all 32 partitions busy, whoever waits for the broker, the lease first of all, then waits about 0.16 s
a round of the loop. When a partition worked off whatever it had, 8,000 runs at once cost a scheduler its lease."""
FOLD_US: Final = 20
FOLLOW_US: Final = 300
"""What folding a message and following a run take, roughly: measured with chains of 5 steps, rounded up."""


class Pace:
    """One partition's share of the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._worked_us = 0

    async def work(self, cost_us: int) -> None:
        """Call before each piece of work; now and then the others run first."""
        self._worked_us += cost_us
        if self._worked_us > SLICE_US:
            self._worked_us = cost_us
            await self._clock.sleep(0)
