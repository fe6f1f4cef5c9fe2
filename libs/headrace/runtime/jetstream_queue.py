"""A share of a durable work queue: outstanding requests and unended deliveries together never exceed the bound."""

import asyncio
from collections import deque
from typing import Final

from headrace.contracts.errors import UnavailableError
from headrace.runtime import jetstream_wire as wire
from headrace.runtime.eventlog import Delivery, Stored
from headrace.runtime.jetstream_link import Link
from headrace.runtime.jetstream_pull import Puller

ASK_SHARE: Final = 4
"""Room is asked for when a quarter of the bound is free, or when nothing is outstanding: one request per message would
fill the server's list of waiting requests."""
LOOK_AGAIN_S: Final = 0.25


class JetStreamDelivery:
    """See eventlog.Delivery."""

    __slots__ = ("_consumer", "_reply", "deliveries", "stored")

    def __init__(self, consumer: "JetStreamConsumer", reply: str, stored: Stored, deliveries: int) -> None:
        self._consumer: JetStreamConsumer | None = consumer
        self._reply = reply
        self.stored = stored
        self.deliveries = deliveries

    async def ack(self) -> None:
        """See eventlog.Delivery."""
        self._end(b"+ACK")

    async def nak(self, *, delay_s: float = 0.0) -> None:
        """See eventlog.Delivery."""
        self._end(nak_body(delay_s))

    async def term(self, reason: str) -> None:
        """See eventlog.Delivery."""
        self._end(b"+TERM " + " ".join(reason.split()).encode())

    async def in_progress(self) -> None:
        """See eventlog.Delivery."""
        if self._consumer is not None:
            self._consumer.tell(self._reply, b"+WPI")

    def _end(self, body: bytes) -> None:
        assert self._consumer is not None, f"{self.stored.subject} {self.stored.seq} was ended before"
        consumer, self._consumer = self._consumer, None
        consumer.tell(self._reply, body)
        consumer.ended()


def nak_body(delay_s: float) -> bytes:
    """What hands a message back."""
    return b'-NAK {"delay": %d}' % int(delay_s * wire.NS_PER_S) if delay_s > 0 else b"-NAK"


class JetStreamConsumer:
    """See eventlog.Consumer. One task reads it, any task may end deliveries."""

    def __init__(self, link: Link, stream: str, durable: str, *, in_flight_max: int) -> None:
        assert in_flight_max >= 1, in_flight_max
        self._link, self._stream, self._durable = link, stream, durable
        self._max = in_flight_max
        self._loop = asyncio.get_running_loop()
        self._buffer: deque[JetStreamDelivery] = deque()
        self._unended = 0
        self._fetching = False
        self._doubt = False
        self._next_look_s = 0.0
        self._asking: asyncio.Handle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._puller = Puller(
            link,
            stream=stream,
            consumer=durable,
            on_message=self._on_message,
            on_idle=lambda _seq: None,
            on_refused=self._on_refused,
            on_room=self._ask_soon,
        )

    @property
    def in_flight(self) -> int:
        """Deliveries received and not ended."""
        return self._unended

    def begin(self) -> None:
        """Start to ask."""
        self._fetching = True
        self._puller.start()
        self._ask()

    async def batch(self, *, max_count: int, wait_s: float) -> list[Delivery]:
        """See eventlog.Consumer.

        Raises: ConsumerGoneError: the durable was removed.
        """
        assert self._waiter is None, "one task reads a consumer"
        deadline_s = self._loop.time() + wait_s
        while not self._buffer:
            now_s = self._loop.time()
            left_s = deadline_s - now_s
            if self._doubt and self._link.connected:
                if now_s >= self._next_look_s:
                    await self._look()
                left_s = min(left_s, LOOK_AGAIN_S)
            if deadline_s <= self._loop.time():
                return []
            await self._wait(left_s)
        return [self._buffer.popleft() for _ in range(min(max_count, len(self._buffer)))]

    async def stop_fetching(self) -> list[Delivery]:
        """See eventlog.Consumer. What the server has sent by now is among them; nothing more will come."""
        if self._fetching:
            self._fetching = False
            if self._asking is not None:
                self._asking.cancel()
            await self._puller.stop_after_last()
        kept: list[Delivery] = list(self._buffer)
        self._buffer.clear()
        return kept

    async def stop(self) -> None:
        """See eventlog.Consumer. What was not handed out goes back to the queue."""
        for delivery in await self.stop_fetching():
            await delivery.nak()
        self._wake()

    def tell(self, reply: str, body: bytes) -> None:
        """Send an acknowledgement of some kind; lost when disconnected, and then the message comes again."""
        try:
            self._link.send(reply, body)
        except UnavailableError:
            return

    def ended(self) -> None:
        """A delivery was ended: there is room for another."""
        self._unended -= 1
        self._ask_soon()

    def _ask_soon(self) -> None:
        """Many deliveries ended in one turn of the loop become one request."""
        if self._fetching and self._asking is None:
            self._asking = self._loop.call_soon(self._ask)

    def _ask(self) -> None:
        self._asking = None
        if not self._fetching or self._doubt:
            return
        room = self._max - self._unended - self._puller.outstanding
        if room >= max(1, self._max // ASK_SHARE) or (room > 0 and not self._puller.outstanding):
            self._puller.ask(room)

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        info = wire.delivery_info(reply)
        if self._unended >= self._max:
            self.tell(reply.decode(), b"-NAK")  # a request that was given up has been answered after all
            return
        fields = wire.RawHeaders(headers) if headers else wire.NO_HEADERS
        stored = Stored(self._stream, info.stream_seq, subject.decode(), data, info.time_ms, fields, len(headers))
        self._unended += 1
        self._buffer.append(JetStreamDelivery(self, reply.decode(), stored, info.deliveries))
        self._wake()

    def _on_refused(self, _code: int, _text: str) -> None:
        self._doubt = True
        self._wake()

    async def _look(self) -> None:
        """Is the durable there? Ask it again if so; not knowing is no reason to give up."""
        self._next_look_s = self._loop.time() + LOOK_AGAIN_S
        try:
            await self._link.api(f"CONSUMER.INFO.{self._stream}.{self._durable}")
        except UnavailableError:
            return
        self._doubt = False
        self._puller.renew()

    async def _wait(self, seconds: float) -> None:
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(max(seconds, 0.0), self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
