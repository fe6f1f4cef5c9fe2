"""Signs of life of a service: one beat a second on core NATS. Executors send their own, richer and faster."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headrace.contracts import codec, subjects
from headrace.contracts.errors import RetryableError
from headrace.contracts.live import Beat
from headrace.runtime.clock import Clock
from headrace.runtime.entropy import Entropy
from headrace.runtime.eventlog import Bus

log = logging.getLogger("headrace.presence")

BEAT_S: Final = 1.0
"""Nobody takes work over from these services by their beats, so a third of an executor's pace is enough."""


SENT_REMEMBERED: Final = 100


@dataclass(frozen=True, slots=True)
class Condition:
    """What a beat says besides being alive."""

    ready: bool
    lag: int = 0
    partitions: tuple[int, ...] = ()


class Presence:
    """Beats for one service. `run()` is a supervised child."""

    def __init__(
        self,
        bus: Bus,
        *,
        clock: Clock,
        entropy: Entropy,
        service: str,
        instance: str,
        version: str = "",
        condition: Callable[[], Condition],
        interval_s: float = BEAT_S,
    ) -> None:
        self._bus, self._clock, self._condition = bus, clock, condition
        self._service, self.instance, self._version = service, instance, version
        self._boot = f"{entropy.bits(64):016x}"
        self._counter = 0
        self._interval_s = interval_s
        self.sent_s: dict[int, float] = {}
        """Counter of a recent beat → when it was sent. Whoever hears it come round has heard all that came before."""

    async def run(self) -> None:
        """Beat for ever. A beat that cannot be sent is dropped: presence is about now."""
        while True:
            await self._beat(leaving=False)
            await self._clock.sleep(self._interval_s)

    async def leave(self) -> None:
        """Say goodbye, so that nobody raises an alert about the silence that follows."""
        await self._beat(leaving=True)

    async def _beat(self, *, leaving: bool) -> None:
        self._counter += 1
        self.sent_s[self._counter] = self._clock.monotonic_s()
        self.sent_s.pop(self._counter - SENT_REMEMBERED, None)
        now = self._condition()
        beat = Beat(
            service=self._service,
            instance=self.instance,
            boot=self._boot,
            counter=self._counter,
            ready=now.ready and not leaving,
            version=self._version,
            lag=now.lag,
            partitions=now.partitions,
            leaving=leaving,
        )
        try:
            await self._bus.send(subjects.presence(self.instance), codec.encode(beat))
        except RetryableError as error:
            log.debug("presence.not_sent", extra={"why": str(error)})
