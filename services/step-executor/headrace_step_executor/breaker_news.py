"""What replicas tell each other about their breakers: transitions, as events of which the newest is kept by name.

A process decides by its own breakers. A peer's `opened` is a hint: for a minute less is enough here, and half the
places. Only a process that has just started, and knows nothing of its own, takes over what is still open. While the
broker is away nothing is told, and nothing waits for it.
"""

import asyncio
import logging
from collections import deque
from typing import Final, assert_never

from headrace.contracts import subjects
from headrace.contracts.codec import encode
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.errors import RetryableError, UnknownOutcomeError
from headrace.contracts.events import (
    Breaker,
    BreakerClosed,
    BreakerMessage,
    BreakerOpened,
    BreakerProbed,
    StoredMessage,
)
from headrace.contracts.ids import event_id
from headrace.contracts.instants import rfc3339
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import EventLog, Stored
from headrace.runtime.projection import Projection
from headrace_step_executor.breakers import Change
from headrace_step_executor.guards import Guards, Target

log = logging.getLogger("headrace.executor")

HINT_S: Final = 60.0
UNTOLD_MAX: Final = 256
"""Transitions kept while the broker is away; what is older interests nobody."""
_KINDS: Final[dict[str, type[BreakerMessage]]] = {
    "open": BreakerOpened,
    "half-open": BreakerProbed,
    "closed": BreakerClosed,
}


class BreakerNews:
    """Tells and hears. `tell` and `hear` are supervised children."""

    def __init__(self, eventlog: EventLog, guards: Guards, clock: Clock, *, instance: str, tenant: str) -> None:
        self._log, self._guards, self._clock = eventlog, guards, clock
        self._instance, self._tenant = instance, tenant
        self._untold: deque[tuple[str, BreakerMessage]] = deque(maxlen=UNTOLD_MAX)
        self._something = asyncio.Event()
        self._projection = Projection(
            eventlog,
            stream=subjects.SYSTEM,
            filters=(subjects.BREAKERS_ALL,),
            clock=clock,
            apply=self._heard,
            reset=lambda: None,
        )
        guards.told = self._changed

    @property
    def caught_up(self) -> bool:
        """What was open when this process started is known."""
        return self._projection.caught_up

    async def hear(self) -> None:
        """Fold what others say, for ever."""
        await self._projection.run()

    async def tell(self) -> None:
        """Say what has changed, for ever."""
        while True:
            await self._something.wait()
            self._something.clear()
            while self._untold:
                subject, message = self._untold[0]
                try:
                    await self._log.append(subject, encode(message), msg_id=message.id)
                except (RetryableError, UnknownOutcomeError) as error:
                    log.info("breaker.not_told", extra={"subject": subject, "why": str(error)})
                    await self._clock.sleep(1.0)
                    continue
                if self._untold and self._untold[0][1] is message:
                    self._untold.popleft()

    def _changed(self, target: Target, change: Change) -> None:
        now_ms, kind = self._clock.now_ms(), _KINDS[change.state]
        log.warning("breaker.changed", extra={"breaker": target.name, "state": change.state, "why": change.cause})
        data = Breaker(
            name=target.name,
            provider=target.provider,
            model=target.model,
            endpoint=target.endpoint,
            cause=change.cause,
            due_ms=now_ms + int(change.open_s * 1000) if change.open_s else 0,
            trips=change.trips,
            instance=self._instance,
        )
        tag = str(kind.__struct_config__.tag)
        message = kind(
            specversion=SPECVERSION,
            id=event_id(tag, self._tenant, target.name, self._instance, now_ms, change.trips),
            source=f"/step-executor/{self._instance}",
            time=rfc3339(now_ms),
            schemaver=1,
            tenant=self._tenant,
            data=data,
        )
        self._untold.append((subjects.breaker(target.name), message))
        self._something.set()

    def _heard(self, stored: Stored, message: StoredMessage) -> None:
        if not isinstance(message, BreakerMessage) or message.data.instance == self._instance:
            return
        data, now_ms = message.data, self._clock.now_ms()
        breaker = self._guards.breaker(Target(data.provider, data.endpoint, data.model))
        match message:
            case BreakerOpened():
                left_s = (data.due_ms - now_ms) / 1000
                if not self.caught_up and left_s > 0 and breaker.state == "closed":
                    breaker.restore(open_s=left_s, cause=data.cause, trips=data.trips)
                age_s = max(0.0, (now_ms - stored.time_ms) / 1000)
                if age_s < HINT_S:
                    breaker.hint(HINT_S - age_s)
            case BreakerClosed():
                breaker.hint(0.0)
            case BreakerProbed():
                pass  # whether it helped is said next
            case _:
                assert_never(message)
