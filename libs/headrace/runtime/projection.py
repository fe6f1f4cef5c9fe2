"""A fold fed by a tail: what everybody who only reads does. Never decides, never writes, may be thrown away.

What cannot be decoded is counted, logged and skipped: a projection must not stop because of one message,
and it is the scheduler that stalls a run. Whatever raises in `apply` is our own bug and ends `run`, loudly.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from headrace.contracts import codec
from headrace.contracts.errors import (
    MalformedMessageError,
    NewerSchemaError,
    RetryableError,
    UnavailableError,
)
from headrace.contracts.events import StoredMessage
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import EventLog, Stored, Tail

log = logging.getLogger("headrace.projection")

BATCH_MAX: Final = 500
"""Messages folded before the loop may do something else: about 5 ms of decoding."""
WAIT_S: Final = 0.5
RETRY_S: Final = 0.2


class Projection:
    """Reads a stream from its beginning and calls `apply` for each message, in order.

    `run()` is a supervised child; started again it calls `reset` and begins from the first message.
    """

    def __init__(
        self,
        eventlog: EventLog,
        *,
        stream: str,
        filters: Sequence[str],
        clock: Clock,
        apply: Callable[[Stored, StoredMessage], None],
        reset: Callable[[], None],
    ) -> None:
        self._log, self._clock = eventlog, clock
        self.stream, self._filters = stream, tuple(filters)
        self._apply, self._reset = apply, reset
        self._moved = asyncio.Event()
        self.seq = 0
        """Sequence of the last message folded."""
        self.caught_up = False
        self.malformed = 0
        self.newer = 0

    async def run(self) -> None:
        """Fold for ever."""
        self.seq, self.caught_up, self.malformed, self.newer = 0, False, 0, 0
        self._reset()
        tail = await self._open()
        try:
            while True:
                self.caught_up = self.caught_up or tail.caught_up
                self._moved.set()
                await self._clock.sleep(0)  # a long replay lets requests and beats through
                for stored in await tail.batch(max_count=BATCH_MAX, wait_s=WAIT_S):
                    self._fold(stored)
        finally:
            await tail.stop()

    async def reach(self, seq: int, *, within_s: float) -> None:
        """Return when everything up to `seq` is folded.

        Raises:
            UnavailableError: it is not, after `within_s`.
        """
        try:
            async with asyncio.timeout(within_s):
                while self.seq < seq:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            msg = f"{self.stream}: read up to {self.seq}, not yet {seq} after {within_s} s"
            raise UnavailableError(msg) from None

    async def wait_caught_up(self, *, within_s: float) -> None:
        """Return when everything that was stored when the fold began is folded.

        Raises:
            UnavailableError: it is not, after `within_s`.
        """
        try:
            async with asyncio.timeout(within_s):
                while not self.caught_up:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            msg = f"{self.stream}: still reading, at {self.seq} after {within_s} s"
            raise UnavailableError(msg) from None

    async def _open(self) -> Tail:
        """Waits as long as the broker or the stream is away; until then it is not caught up, and so not
        ready."""
        while True:
            try:
                return await self._log.tail(self.stream, self._filters, start_seq=1)
            except RetryableError as error:
                log.warning("projection.waits", extra={"stream": self.stream, "why": str(error)})
                await self._clock.sleep(RETRY_S)

    def _fold(self, stored: Stored) -> None:
        try:
            message = codec.decode(stored.body)
        except NewerSchemaError as error:
            self.newer += 1
            log.warning("projection.newer_schema", extra={"seq": stored.seq, "why": str(error)})
        except MalformedMessageError as error:
            self.malformed += 1
            log.error(
                "projection.malformed",
                extra={"stream": self.stream, "seq": stored.seq, "subject": stored.subject, "why": str(error)},
            )
        else:
            self._apply(stored, message)
        self.seq = stored.seq
