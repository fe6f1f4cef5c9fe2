"""Signs of life: what this executor holds, every 0.3 s, and in full when an owner asks."""

import logging
from collections.abc import Callable
from typing import Final

from headrace.contracts import codec, names, subjects
from headrace.contracts.errors import RetryableError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Bus, BusMessage, Subscription
from headrace_step_executor import decide
from headrace_step_executor.state import Hands

log = logging.getLogger("headrace.executor")

SETTLE_S: Final = 0.01
"""Between an owner's question and the answer: what the connection delivered before the question is in a
reader's buffer by then, and a reader that wakes registers it before anything else."""
SETTLE_TURNS: Final = 5
"""Turns of the loop, each of which lets every reader that was woken run once."""


class Presence:
    """Beats of one executor. `run` is a supervised child."""

    def __init__(
        self,
        bus: Bus,
        me: decide.Self,
        hands: Hands,
        *,
        clock: Clock,
        ready: Callable[[], bool],
        providers: Callable[[], tuple[str, ...]],
        secrets: Callable[[], tuple[str, ...]],
    ) -> None:
        self._bus, self._me, self._hands, self._clock = bus, me, hands, clock
        self._ready, self._providers, self._secrets = ready, providers, secrets
        self._counter = 0
        self._leaving = False
        self._asked: Subscription | None = None

    async def run(self) -> None:
        """Beat for ever."""
        self._asked = await self._bus.subscribe(subjects.PRESENCE_PLEASE, self._please)
        try:
            while True:
                if not self._leaving:
                    await self._beat(full=self._counter % names.PRESENCE_FULL_EVERY == 0)
                await self._clock.sleep(names.PRESENCE_BEAT_S)
        finally:
            await self._asked.stop()

    async def leave(self) -> None:
        """Say goodbye: everything is reported or handed back. No beat follows."""
        self._leaving = True
        self._counter += 1
        await self._send(codec.encode(decide.farewell(self._me, counter=self._counter)))

    async def _please(self, _message: BusMessage) -> None:
        for _ in range(SETTLE_TURNS):
            await self._clock.sleep(0)
        await self._clock.sleep(SETTLE_S)
        if not self._leaving:
            await self._beat(full=True)

    async def _beat(self, *, full: bool) -> None:
        self._counter += 1
        beat = decide.beat(
            self._me,
            self._hands,
            counter=self._counter,
            full=full,
            ready=self._ready(),
            providers=self._providers(),
            secrets=self._secrets(),
        )
        self._hands.beat_sent()
        await self._send(codec.encode(beat))

    async def _send(self, body: bytes) -> None:
        """Send, or lose: presence is about now, and whoever missed a beat sees the gap in the counter."""
        try:
            await self._bus.send(subjects.presence(self._me.instance), body)
        except RetryableError as error:
            log.debug("presence.not_sent", extra={"why": str(error)})
