"""Commands and events that a work queue forgot: seen in the stream, and brought back by making the durable afresh.

Consumers have been seen to skip messages and to vanish. A work-queue stream holds a message until it is acknowledged,
so a first message at or below what the durable believes acknowledged is lost to it for ever. The durable is then
removed and made again, and delivers everything that the stream holds; a command handled twice is handled once.
"""

import logging
from collections.abc import Callable
from typing import Final

from headrace.contracts import names
from headrace.contracts.errors import ConsumerGoneError, RetryableError, UnknownOutcomeError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Broker
from headrace.runtime.streams import consumer_specs

log = logging.getLogger("headrace.scheduler")

LOOK_EVERY_S: Final = names.SWEEP_S / 2
"""A message must be lost at two looks in a row: the acknowledgement of one may be under way at the first."""


class IntakeSweep:
    """`run` is a supervised child.

    Args:
        durable: Of the work queue to look at.
        may_act: True in one scheduler of all, more or less: acting twice costs a redelivery.
    """

    def __init__(self, broker: Broker, durable: str, *, clock: Clock, may_act: Callable[[], bool]) -> None:
        self._broker, self._clock, self._may_act = broker, clock, may_act
        self._spec = next(spec for spec in consumer_specs({}) if spec.durable == durable)
        self.made_afresh = 0

    async def run(self) -> None:
        """Look for ever."""
        lost_seq = 0
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            if not self._may_act():
                continue
            try:
                found = await self._lost()
                if found and found == lost_seq:
                    await self._make_afresh(found)
                lost_seq = found
            except (RetryableError, UnknownOutcomeError) as error:
                log.warning("intake.not_swept", extra={"why": f"{type(error).__name__}: {error}"})

    async def _lost(self) -> int:
        """The first message that will not be delivered any more, 0 when there is none; the first of all when the
        durable is gone."""
        position = await self._broker.position(self._spec.stream)
        if position.first_seq > position.last_seq:
            return 0
        try:
            state = await self._broker.consumer_state(self._spec.stream, self._spec.durable)
        except ConsumerGoneError:
            return position.first_seq
        return position.first_seq if position.first_seq <= state.ack_floor_seq else 0

    async def _make_afresh(self, lost_seq: int) -> None:
        log.error("intake.made_afresh", extra={"durable": self._spec.durable, "seq": lost_seq})
        self.made_afresh += 1
        await self._broker.delete_consumer(self._spec.stream, self._spec.durable)
        await self._broker.ensure_consumer(self._spec)
