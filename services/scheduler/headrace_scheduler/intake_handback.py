"""Commands and triggers that a scheduler had in hand when it died, delivered again within seconds.

Nobody knows which they were: what is delivered and not acknowledged is in somebody's hands. But a command takes
milliseconds, so when the members have changed and a queue's floor of acknowledgements then stands still, whoever holds
the message above it is dead, or very slow. Delivering it again is harmless either way: a command handled twice is
handled once. `ack_wait` would do the same after 30 s.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headrace.contracts import subjects
from headrace.contracts.errors import RetryableError, UnknownOutcomeError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import WorkQueues

log = logging.getLogger("headrace.scheduler")

LOOK_EVERY_S: Final = 0.25
STANDS_S: Final = 1.0
"""A floor that stands this long is held. Doubles each time, so that schedulers with too much to do are not given all
of it again and again."""
LOOK_FOR_S: Final = 40.0
"""After a change of members: a frozen process is sent commands until its requests have expired (30 s)."""


@dataclass(slots=True)
class _Queue:
    stream: str
    durable: str
    floor: int | None = None
    """The last acknowledged message before one that is in somebody's hands; None when nothing is."""
    since_s: float = 0.0
    stands_s: float = STANDS_S


class IntakeHandBack:
    """`run` is a supervised child.

    Args:
        members: The schedulers that are alive, as seen from here.
        may_act: True in one scheduler of all, more or less: acting twice costs a redelivery.
    """

    def __init__(
        self,
        queues: WorkQueues,
        *,
        clock: Clock,
        members: Callable[[], tuple[str, ...]],
        may_act: Callable[[], bool],
    ) -> None:
        self._broker, self._clock, self._members, self._may_act = queues, clock, members, may_act
        self.redelivered = 0

    async def run(self) -> None:
        """Look for ever."""
        known: tuple[str, ...] = ()
        queues: list[_Queue] = []
        until_s = float("-inf")
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            now_s, present = self._clock.monotonic_s(), self._members() if self._may_act() else ()
            if present != known:
                known, until_s = present, now_s + LOOK_FOR_S
                queues = [
                    _Queue(subjects.COMMANDS, subjects.INTAKE_CONSUMER),
                    _Queue(subjects.TRIGGERS, subjects.TRIGGER_CONSUMER),
                ]
            if not present or now_s > until_s:
                continue
            for queue in queues:
                try:
                    await self._look(queue)
                except (RetryableError, UnknownOutcomeError) as error:
                    log.warning("intake.not_looked_at", extra={"durable": queue.durable, "why": str(error)})

    async def _look(self, queue: _Queue) -> None:
        state = await self._broker.consumer_state(queue.stream, queue.durable)
        floor = state.ack_floor_seq if state.ack_pending else None
        now_s = self._clock.monotonic_s()
        if floor is None or floor != queue.floor:
            queue.floor, queue.since_s = floor, now_s
        elif now_s - queue.since_s >= queue.stands_s:
            log.warning("intake.delivered_again", extra={"durable": queue.durable, "unended": state.ack_pending})
            await self._broker.redeliver(queue.stream, queue.durable)
            self.redelivered += 1
            queue.floor, queue.stands_s = None, 2 * queue.stands_s
