"""Hearing of runs that end: what ends a run ends its attempts here, and orders of it that come later."""

import logging
from collections.abc import Callable
from typing import Final

from headrace.contracts import subjects
from headrace.contracts.errors import RetryableError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import EventLog, Stored

log = logging.getLogger("headrace.executor")

BATCH_MAX: Final = 1_000
WAIT_S: Final = 5.0
RETRY_S: Final = 0.2


class EndsTail:
    """Reads decisions that end runs, of one run stream, from now on. `run` is a supervised child."""

    def __init__(self, eventlog: EventLog, stream: str, *, clock: Clock, on_end: Callable[[Stored], None]) -> None:
        self._log, self._stream, self._clock, self._on_end = eventlog, stream, clock, on_end
        self._next_seq = 0
        self.from_seq = 0
        """What was stored before it may have ended unheard."""
        self.listening = False

    async def run(self) -> None:
        """Listen for ever. Started again it goes on where it was."""
        start_seq = self._next_seq or await self._now()
        while True:
            try:
                tail = await self._log.tail(self._stream, subjects.end_filters(), start_seq=start_seq)
                break
            except RetryableError as error:
                log.warning("ends.waits", extra={"stream": self._stream, "why": str(error)})
                await self._clock.sleep(RETRY_S)
        self.from_seq, self._next_seq = self.from_seq or start_seq, start_seq
        self.listening = True
        try:
            while True:
                for stored in await tail.batch(max_count=BATCH_MAX, wait_s=WAIT_S):
                    self._on_end(stored)
                    self._next_seq = stored.seq + 1
        finally:
            self.listening = False
            await tail.stop()

    async def _now(self) -> int:
        while True:
            try:
                return (await self._log.position(self._stream)).last_seq + 1
            except RetryableError as error:
                log.warning("ends.waits", extra={"stream": self._stream, "why": str(error)})
                await self._clock.sleep(RETRY_S)
