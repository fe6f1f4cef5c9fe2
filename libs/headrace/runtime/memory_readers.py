"""What reads from the in-memory broker: tails, shares of work queues, subscriptions.

A tail asks for what follows a sequence and gets one answer when there is some. It asks again after silence, so that a
lost request or answer costs a pause and never a message.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from headrace.runtime.eventlog import BusHandler, Delivery, Stored
from headrace.runtime.memory_streams import Pull
from headrace.runtime.subject_filters import filter_regex

if TYPE_CHECKING:
    from headrace.runtime.memory import MemoryBroker

log = logging.getLogger(__name__)

WINDOW: Final = 1024
"""Messages that a tail holds before they are handed out."""
SILENT_S: Final = 2.0
"""As the real client: two missed heartbeats."""
PULL_EXPIRES_S: Final = 5.0
BACKLOG_MAX: Final = 65_536


class _Waiter:
    """Lets one task wait until something is there."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None

    async def wait(self, seconds: float) -> None:
        assert self._future is None, "one task reads"
        loop = asyncio.get_running_loop()
        self._future = loop.create_future()
        timer = loop.call_later(max(seconds, 0.0), self.wake)
        try:
            await self._future
        finally:
            timer.cancel()
            self._future = None

    def wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class MemoryTail:
    """See eventlog.Tail."""

    def __init__(
        self, broker: "MemoryBroker", number: int, stream: str, filters: Sequence[str], *, start_seq: int,
        first: Sequence[Stored], end_seq: int,
    ) -> None:  # fmt: skip
        self._broker, self._number, self._stream = broker, number, stream
        self._pattern = filter_regex(filters)
        self._seq = self._looked_at = max(start_seq, 1) - 1
        if first:
            self._seq = first[0].seq - 1
        self._end_seq = end_seq
        self._buffer: deque[Stored] = deque(first)
        self._waiter = _Waiter()
        self._asked = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def seq(self) -> int:
        """See eventlog.Tail."""
        return self._seq

    @property
    def caught_up(self) -> bool:
        """See eventlog.Tail."""
        if self._buffer:
            return self._buffer[0].seq > self._end_seq
        return self._looked_at >= self._end_seq

    async def batch(self, *, max_count: int, wait_s: float) -> list[Stored]:
        """See eventlog.Tail."""
        assert not self._stopped, "the tail was stopped"
        if not self._buffer and wait_s > 0:
            await self._waiter.wait(wait_s)
        messages = [self._buffer.popleft() for _ in range(min(max_count, len(self._buffer)))]
        if messages:
            self._seq = messages[-1].seq
            self._ask()
        return messages

    async def stop(self) -> None:
        """See eventlog.Tail."""
        self._stopped = True
        self._quiet()
        self._broker.forget(self._number)

    def link_down(self) -> None:
        """What was asked is not answered any more."""
        self._quiet()

    def link_up(self) -> None:
        """Ask."""
        self._ask()

    def _quiet(self) -> None:
        self._asked = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask(self) -> None:
        if self._stopped or self._asked or len(self._buffer) >= WINDOW or not self._broker.connected:
            return
        asked = self._asked = self._broker.next_number()
        start_seq, room = self._looked_at + 1, WINDOW - len(self._buffer)

        def answer(found: list[Stored], looked_at: int) -> None:
            self._broker.told(f"tail {self._stream}", lambda: self._answered(asked, found, looked_at))

        self._broker.tell(
            f"tail {self._stream}",
            lambda: self._broker.server.wait_for(
                self._broker,
                self._number,
                self._stream,
                self._pattern,
                start_seq=start_seq,
                max_count=room,
                answer=answer,
            ),
        )
        self._timer = asyncio.get_running_loop().call_later(SILENT_S, self._silent)

    def _silent(self) -> None:
        self._quiet()
        self._ask()

    def _answered(self, asked: int, found: list[Stored], looked_at: int) -> None:
        if asked != self._asked:
            return  # an answer to an earlier question; the newer one brings the same
        self._quiet()
        self._buffer.extend(found)
        self._looked_at = looked_at
        self._waiter.wake()
        self._ask()


class MemoryDelivery:
    """See eventlog.Delivery."""

    __slots__ = ("_consumer", "_ended", "deliveries", "stored")

    def __init__(self, consumer: "MemoryConsumer", stored: Stored, deliveries: int) -> None:
        self._consumer, self._ended = consumer, False
        self.stored, self.deliveries = stored, deliveries

    async def ack(self) -> None:
        """See eventlog.Delivery."""
        self._end("ack")

    async def nak(self, *, delay_s: float = 0.0) -> None:
        """See eventlog.Delivery."""
        self._end("nak", delay_s)

    async def term(self, reason: str) -> None:
        """See eventlog.Delivery."""
        self._end("term")

    async def in_progress(self) -> None:
        """See eventlog.Delivery."""
        if not self._ended:
            self._consumer.settle(self.stored.seq, "busy", 0.0)

    def _end(self, verb: str, delay_s: float = 0.0) -> None:
        assert not self._ended, f"{self.stored.subject} {self.stored.seq} was ended before"
        self._ended = True
        self._consumer.settle(self.stored.seq, verb, delay_s)
        self._consumer.ended()


class MemoryConsumer:
    """See eventlog.Consumer."""

    def __init__(self, broker: "MemoryBroker", number: int, stream: str, durable: str, *, in_flight_max: int) -> None:
        assert in_flight_max >= 1, in_flight_max
        self._broker, self._number, self._stream, self._durable = broker, number, stream, durable
        self._max = in_flight_max
        self._buffer: deque[MemoryDelivery] = deque()
        self._unended = 0
        self._pulls: dict[int, int] = {}
        self._fetching = True
        self._doubt = False
        self._asking: asyncio.Handle | None = None
        self._waiter = _Waiter()

    @property
    def in_flight(self) -> int:
        """Deliveries received and not ended."""
        return self._unended

    async def batch(self, *, max_count: int, wait_s: float) -> list[Delivery]:
        """See eventlog.Consumer.

        Raises: ConsumerGoneError: the durable was removed.
        """
        if not self._buffer and self._doubt and self._broker.connected:
            await self._broker.consumer_state(self._stream, self._durable)
            self._doubt = False
            self._ask()
        if not self._buffer and wait_s > 0:
            await self._waiter.wait(wait_s)
            if self._doubt and not self._buffer and self._broker.connected:
                await self._broker.consumer_state(self._stream, self._durable)
        return [self._buffer.popleft() for _ in range(min(max_count, len(self._buffer)))]

    async def stop_fetching(self) -> list[Delivery]:
        """See eventlog.Consumer."""
        if self._fetching:
            self._fetching = False
            if self._broker.connected:
                await self._broker.ask(
                    f"unpull {self._durable}",
                    lambda: self._broker.server.unpull(self._stream, self._durable, self),
                )
        kept: list[Delivery] = list(self._buffer)
        self._buffer.clear()
        return kept

    async def stop(self) -> None:
        """See eventlog.Consumer."""
        for delivery in await self.stop_fetching():
            await delivery.nak()
        self._broker.forget(self._number)

    def link_down(self) -> None:
        """Requests have no reader any more."""
        self._pulls.clear()

    def link_up(self) -> None:
        """Ask."""
        self._ask()

    def settle(self, seq: int, verb: str, delay_s: float) -> None:
        """Tell the server; lost when disconnected, and then the message comes again."""
        self._broker.tell(
            f"{verb} {self._durable}",
            lambda: self._broker.server.settle(self._stream, self._durable, seq, verb, delay_s),
        )

    def ended(self) -> None:
        """There is room for another."""
        self._unended -= 1
        if self._fetching and self._asking is None:
            self._asking = asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        self._asking = None
        room = self._max - self._unended - sum(self._pulls.values())
        if not self._fetching or room <= 0 or not self._broker.connected:
            return
        number = self._broker.next_number()
        self._pulls[number] = room
        loop = asyncio.get_running_loop()
        expires_s = loop.time() + PULL_EXPIRES_S
        loop.call_later(PULL_EXPIRES_S, self._expired, number)

        def deliver(number: int, stored: Stored, deliveries: int) -> None:
            self._broker.told(f"deliver {self._durable}", lambda: self._delivered(number, stored, deliveries))

        def refuse() -> None:
            self._broker.told(f"gone {self._durable}", self._gone)

        def pull() -> None:
            if (self._stream, self._durable) not in self._broker.server.queues:
                refuse()
                return
            request = Pull(self, number, room, expires_s, deliver, refuse)
            self._broker.server.pull(self._stream, self._durable, request)

        self._broker.tell(f"pull {self._durable}", pull)

    def _expired(self, number: int) -> None:
        if self._pulls.pop(number, None) is not None:
            self._ask()

    def _gone(self) -> None:
        self._pulls.clear()
        self._doubt = True
        self._waiter.wake()

    def _delivered(self, number: int, stored: Stored, deliveries: int) -> None:
        left = self._pulls.get(number, 0) - 1
        if left > 0:
            self._pulls[number] = left
        else:
            self._pulls.pop(number, None)
        if self._unended >= self._max or not self._fetching:
            self.settle(stored.seq, "nak", 0.0)  # a request that was given up has been answered after all
            return
        self._unended += 1
        self._buffer.append(MemoryDelivery(self, stored, deliveries))
        self._waiter.wake()


class _MemoryMessage:
    """See eventlog.BusMessage."""

    __slots__ = ("_broker", "_reply", "body", "subject")

    def __init__(self, broker: "MemoryBroker", subject: str, body: bytes, reply: str) -> None:
        self._broker, self._reply = broker, reply
        self.subject, self.body = subject, body

    async def respond(self, body: bytes) -> None:
        """See eventlog.BusMessage."""
        if self._reply:
            reply = self._reply

            def arrive() -> None:
                self._broker.server.send(reply, body, "")

            self._broker.tell(f"respond {self.subject}", arrive)


class MemorySubscription:
    """See eventlog.Subscription."""

    def __init__(self, broker: "MemoryBroker", number: int, subject: str, queue: str, handler: BusHandler) -> None:
        self._broker, self._number, self._subject, self._queue = broker, number, subject, queue
        self._handler = handler
        self._inbox: asyncio.Queue[_MemoryMessage] = asyncio.Queue(BACKLOG_MAX)
        self._handling = 0
        loop = asyncio.get_running_loop()
        self._worker = loop.create_task(self._work(), name=f"bus {subject}")

    @property
    def backlog(self) -> int:
        """See eventlog.Subscription."""
        return self._inbox.qsize() + self._handling

    async def stop(self) -> None:
        """See eventlog.Subscription."""
        self._worker.cancel()
        self._broker.forget(self._number)
        self._broker.tell(
            f"unsubscribe {self._subject}",
            lambda: self._broker.server.unsubscribe(self._broker, self._number),
        )

    def link_down(self) -> None:
        """The server forgets it."""

    def link_up(self) -> None:
        """Subscribe."""

        def hear(subject: str, body: bytes, reply: str) -> None:
            message = _MemoryMessage(self._broker, subject, body, reply)
            self._broker.told(f"hear {subject}", lambda: self._heard(message))

        self._broker.tell(
            f"subscribe {self._subject}",
            lambda: self._broker.server.subscribe(self._broker, self._number, self._subject, self._queue, hear),
        )

    def _heard(self, message: _MemoryMessage) -> None:
        if self._inbox.full():
            log.warning("bus.dropped", extra={"subject": message.subject, "backlog": self.backlog})
        else:
            self._inbox.put_nowait(message)

    async def _work(self) -> None:
        """One message after the other, as the protocol says; ends when it is cancelled by `stop`."""
        while True:
            message = await self._inbox.get()
            self._handling = 1
            try:
                await self._handler(message)
            except Exception:
                log.exception("bus.handler_failed", extra={"subject": message.subject})
            finally:
                self._handling = 0
