"""The broker in memory: one `MemoryServer`, any number of `MemoryBroker` connections to it.

Product code for tests and embedding, and the base of the simulator. Everything a connection asks of the server goes
through `to_server`, everything the server tells it through `to_client`; a subclass that delays, repeats, drops or holds
what passes there has a network, late commits, frozen and crashed processes. All timing is the event loop's
`call_later`, so virtual time works; nothing is iterated in an order that a hash decides.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from headrace.contracts import names
from headrace.contracts.errors import DataError, HeadraceError, UnavailableError, UnknownOutcomeError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import (
    Appended,
    BusHandler,
    ConsumerSpec,
    ConsumerState,
    Expected,
    Position,
    Stored,
    StreamSpec,
)
from headrace.runtime.memory_readers import MemoryConsumer, MemorySubscription, MemoryTail
from headrace.runtime.memory_server import PAYLOAD_BYTES_MAX, MemoryServer
from headrace.runtime.subject_filters import check_header, check_subject, filter_regex

__all__ = ["MemoryBroker", "MemoryServer"]

log = logging.getLogger(__name__)

IN_FLIGHT_MAX: Final = 4096
READ_CHUNK: Final = 512
_T = TypeVar("_T")


class MemoryBroker:
    """One connection. See eventlog.Broker for what the methods promise."""

    def __init__(
        self, server: MemoryServer, clock: Clock, *, publish_deadline_s: float = names.PUBLISH_DEADLINE_S
    ) -> None:
        self.server, self._clock = server, clock
        self._deadline_s = publish_deadline_s
        self._connected = True
        self._closed = False
        self._generation = 0
        self._count = 0
        self._connected_since_s = clock.monotonic_s()
        self._flying: dict[asyncio.Future[Appended], str] = {}
        self._asked: dict[asyncio.Future[Any], str] = {}
        self._name = server.next_connection()
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._readers: dict[int, MemoryTail | MemoryConsumer | MemorySubscription] = {}

    # --- the wire: what a simulator overrides -------------------------------------------------------------------------

    def to_server(self, what: str, arrive: Callable[[], None]) -> None:
        """Carry a request to the server: call `arrive` once, soon, in order."""
        asyncio.get_running_loop().call_soon(arrive)

    def to_client(self, what: str, arrive: Callable[[], None]) -> None:
        """Carry an answer or a delivery from the server: call `arrive` once, soon, in order."""
        asyncio.get_running_loop().call_soon(arrive)

    def disconnect(self) -> None:
        """The connection is lost. Whatever is under way in either direction has no effect on this side any more."""
        if not self._connected:
            return
        self._connected = False
        self._generation += 1
        for future, subject in tuple(self._flying.items()):
            if not future.done():
                future.set_exception(UnknownOutcomeError(f"append to {subject}"))
        for asked, what in tuple(self._asked.items()):
            if not asked.done():
                asked.set_exception(UnavailableError(f"{what}: the connection was lost"))
        self.server.drop(self, tuple(self._readers.values()))
        for reader in tuple(self._readers.values()):
            reader.link_down()

    def reconnect(self) -> None:
        """The connection is back; readers go on where they were."""
        if self._connected or self._closed:
            return
        self._connected, self._connected_since_s = True, self._clock.monotonic_s()
        for reader in tuple(self._readers.values()):
            reader.link_up()

    # --- used by the readers ------------------------------------------------------------------------------------------

    def tell(self, what: str, arrive: Callable[[], None]) -> None:
        """Ask the server for something that has no answer; lost when disconnected."""
        if self._connected:
            self.to_server(what, arrive)

    def told(self, what: str, arrive: Callable[[], None]) -> None:
        """The server tells this connection something; lost when that ended meanwhile."""
        generation = self._generation

        def land() -> None:
            if generation == self._generation:
                arrive()

        self.to_client(what, land)

    async def ask(self, what: str, request: Callable[[], _T], *, timeout_s: float = names.REQUEST_DEADLINE_S) -> _T:
        """What the server's `request` gives or raises.

        Raises: UnavailableError: not connected, or no answer in time.
        """
        self._check_connected()
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._asked[future] = what
        try:
            self.to_server(what, lambda: self._execute(what, request, future))
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError as error:
            msg = f"{what}: no answer within {timeout_s:g} s"
            raise UnavailableError(msg) from error
        finally:
            self._asked.pop(future, None)

    def next_number(self) -> int:
        """Names readers and requests of this connection."""
        self._count += 1
        return self._count

    def forget(self, number: int) -> None:
        """A reader has stopped."""
        self._readers.pop(number, None)

    # --- eventlog.Broker ----------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """See eventlog.Broker."""
        return self._connected

    @property
    def connected_since_s(self) -> float:
        """See eventlog.Broker."""
        return self._connected_since_s

    async def publish(
        self, subject: str, body: bytes, *, msg_id: str = "", expected: Expected | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> asyncio.Future[Appended]:  # fmt: skip
        """See EventLog.publish."""
        check_subject(subject)
        fields = _fields(subject, body, msg_id, expected, headers)
        await self._wait_for_room()
        if not self._connected:
            self._room.release()
            self._check_connected()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Appended] = loop.create_future()
        self._flying[future] = subject

        def request() -> Appended:
            return self.server.publish(subject, body, msg_id=msg_id, expected=expected, headers=fields)

        def give_up() -> None:
            if not future.done():
                future.set_exception(UnknownOutcomeError(f"append to {subject}"))

        def settled(_future: "asyncio.Future[Appended]") -> None:
            timer.cancel()
            self._flying.pop(future, None)
            self._room.release()

        timer = loop.call_later(self._deadline_s, give_up)
        future.add_done_callback(settled)
        self.to_server(f"publish {subject}", lambda: self._execute(f"published {subject}", request, future))
        return future

    async def append(
        self, subject: str, body: bytes, *, msg_id: str = "", expected: Expected | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Appended:  # fmt: skip
        """See EventLog.append."""
        return await (await self.publish(subject, body, msg_id=msg_id, expected=expected, headers=headers))

    async def last(self, stream: str, subject_filter: str) -> Stored | None:
        """See EventLog.last."""
        return await self.ask(f"last {stream}", lambda: self.server.last(stream, subject_filter))

    async def get(self, stream: str, seq: int) -> Stored | None:
        """See EventLog.get."""
        return await self.ask(f"get {stream}", lambda: self.server.get(stream, seq))

    async def position(self, stream: str) -> Position:
        """See EventLog.position."""
        return await self.ask(f"position {stream}", lambda: self.server.position(stream))

    async def read(self, stream: str, filters: Sequence[str], *, start_seq: int = 1) -> AsyncIterator[Stored]:
        """See EventLog.read."""
        pattern = filter_regex(filters)
        end_seq = (await self.position(stream)).last_seq
        looked_at = start_seq - 1
        while looked_at < end_seq:
            start = looked_at + 1
            found, looked_at = await self.ask(
                f"read {stream}",
                lambda start=start: self.server.scan(  # type: ignore[misc]  # bound now, called once
                    stream, pattern, start_seq=start, max_count=READ_CHUNK
                ),
            )
            for stored in found:
                if stored.seq > end_seq:
                    return
                yield stored

    async def tail(
        self, stream: str, filters: Sequence[str], *, start_seq: int, last_per_subject: bool = False
    ) -> MemoryTail:
        """See EventLog.tail."""
        first, end_seq, last_seq = await self.ask(
            f"tail {stream}",
            lambda: self.server.begin_tail(stream, filters, last_per_subject=last_per_subject),
        )
        if last_per_subject:
            start_seq = last_seq + 1
        number = self.next_number()
        tail = MemoryTail(self, number, stream, filters, start_seq=start_seq, first=first, end_seq=end_seq)
        self._readers[number] = tail
        tail.link_up()
        return tail

    async def consume(self, stream: str, durable: str, *, in_flight_max: int) -> MemoryConsumer:
        """See WorkQueues.consume."""
        await self.consumer_state(stream, durable)
        number = self.next_number()
        consumer = MemoryConsumer(self, number, stream, durable, in_flight_max=in_flight_max)
        self._readers[number] = consumer
        consumer.link_up()
        return consumer

    async def consumer_state(self, stream: str, durable: str) -> ConsumerState:
        """See WorkQueues.consumer_state."""
        return await self.ask(f"state {stream}", lambda: self.server.queue_state(stream, durable))

    async def redeliver(self, stream: str, durable: str) -> None:
        """See WorkQueues.redeliver."""
        await self.ask(f"redeliver {durable}", lambda: self.server.redeliver(stream, durable))

    async def send(self, subject: str, body: bytes) -> None:
        """See Bus.send."""
        check_subject(subject)

        def arrive() -> None:
            self.server.send(subject, body, "")

        self.tell(f"send {subject}", arrive)

    async def request(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        """See Bus.request."""
        check_subject(subject)
        number = self.next_number()
        inbox = f"_INBOX.{self._name}.{number}"
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def heard(_subject: str, found: bytes, _reply: str) -> None:
            self.told(f"answer {subject}", lambda: None if answer.done() else answer.set_result(found))

        def asked() -> int:
            self.server.subscribe(self, number, inbox, "", heard)
            return self.server.send(subject, body, inbox)

        try:
            async with asyncio.timeout(timeout_s):
                if not await self.ask(f"request {subject}", asked, timeout_s=timeout_s):
                    msg = f"{subject}: nobody answers"
                    raise UnavailableError(msg)
                self._asked[answer] = subject
                return await answer
        except TimeoutError as error:
            msg = f"{subject}: no answer within {timeout_s:g} s"
            raise UnavailableError(msg) from error
        finally:
            self._asked.pop(answer, None)
            self.tell("unsubscribe", lambda: self.server.unsubscribe(self, number))

    async def subscribe(self, subject: str, handler: BusHandler, *, queue: str = "") -> MemorySubscription:
        """See Bus.subscribe."""
        check_subject(subject)
        number = self.next_number()
        subscription = MemorySubscription(self, number, subject, queue, handler)
        self._readers[number] = subscription
        subscription.link_up()
        return subscription

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """See Admin.ensure_stream."""
        await self.ask(f"ensure {spec.name}", lambda: self.server.ensure_stream(spec))

    async def ensure_consumer(self, spec: ConsumerSpec) -> None:
        """See Admin.ensure_consumer."""
        await self.ask(f"ensure {spec.durable}", lambda: self.server.ensure_consumer(spec))

    async def delete_consumer(self, stream: str, durable: str) -> None:
        """See Admin.delete_consumer."""
        await self.ask(f"delete {durable}", lambda: self.server.delete_consumer(stream, durable))

    async def remove(self, stream: str, seq: int) -> None:
        """See Admin.remove."""
        await self.ask(f"remove {stream}", lambda: self.server.remove(stream, seq))

    async def close(self) -> None:
        """See eventlog.Broker."""
        if self._closed:
            return
        self._closed = True
        for reader in tuple(self._readers.values()):
            await reader.stop()
        self.disconnect()

    def _execute(self, what: str, request: Callable[[], _T], future: "asyncio.Future[_T]") -> None:
        """At the server: do it, and send the outcome back."""
        try:
            result = request()
        except HeadraceError as error:
            refusal = error
            self.told(what, lambda: None if future.done() else future.set_exception(refusal))
        else:
            self.told(what, lambda: None if future.done() else future.set_result(result))

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(self._deadline_s + 1.0):  # everything in flight is settled by the deadline
                await self._room.acquire()
        except TimeoutError as error:
            msg = f"{len(self._flying)} appends are unanswered and no more may be sent"
            raise UnavailableError(msg) from error

    def _check_connected(self) -> None:
        if not self._connected:
            msg = "not connected to the broker; nothing was sent"
            raise UnavailableError(msg)


def _fields(
    subject: str, body: bytes, msg_id: str, expected: Expected | None, headers: Mapping[str, str] | None
) -> dict[str, str]:
    """Headers as the real client sends them, and the real server keeps them."""
    fields = dict(headers or ())
    if msg_id:
        fields["Nats-Msg-Id"] = msg_id
    if expected is not None:
        fields["Nats-Expected-Last-Subject-Sequence"] = str(expected.seq)
        fields["Nats-Expected-Last-Subject-Sequence-Subject"] = expected.subject
    for name, value in fields.items():
        check_header(name, value)
    size = len(body) + sum(len(name) + len(value) + 4 for name, value in fields.items())
    if size > PAYLOAD_BYTES_MAX:
        msg = f"{subject}: {size} bytes with headers; the broker takes {PAYLOAD_BYTES_MAX}"
        raise DataError(msg)
    return fields
