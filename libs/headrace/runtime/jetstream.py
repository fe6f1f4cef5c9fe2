"""The broker over NATS JetStream.

`connect` gives a `JetStreamBroker`. The parts: `jetstream_link` (the connection), `jetstream_publish` (appends in
flight), `jetstream_pull` (pull requests that heal), `jetstream_tail` and `jetstream_queue` (readers), `jetstream_admin`
(streams and durables), `jetstream_wire` (what the server says). Only files named `jetstream*` import `nats`.
"""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from headrace.contracts import names
from headrace.contracts.errors import ConfigError, HeadraceError, RetryableError, TerminalError, UnavailableError
from headrace.runtime import jetstream_admin as admin
from headrace.runtime import jetstream_wire as wire
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
from headrace.runtime.jetstream_link import UNSENT_BYTES_MAX, Link, open_link
from headrace.runtime.jetstream_publish import Publisher
from headrace.runtime.jetstream_queue import JetStreamConsumer
from headrace.runtime.jetstream_tail import JetStreamTail, read_finite
from headrace.runtime.subject_filters import check_subject

log = logging.getLogger(__name__)

BUS_BACKLOG_MAX: Final = 65_536
"""Messages of one subscription that wait for its handler; more are dropped, and the library reports it."""
LOOK_PAUSE_S: Final = 0.2


class _BusMessage:
    """See eventlog.BusMessage."""

    __slots__ = ("_link", "_reply", "body", "subject")

    def __init__(self, link: Link, message: Msg) -> None:
        self._link, self._reply = link, message.reply
        self.subject, self.body = message.subject, message.data

    async def respond(self, body: bytes) -> None:
        """See eventlog.BusMessage."""
        if self._reply:
            try:
                self._link.send(self._reply, body)
            except UnavailableError as error:
                log.info("bus.answer_lost", extra={"subject": self.subject, "error": str(error)})


class _BusSubscription:
    """See eventlog.Subscription."""

    def __init__(self, link: Link, handler: BusHandler) -> None:
        self._link, self._handler = link, handler
        self._handling = 0
        self._inner: NatsSubscription | None = None

    async def begin(self, subject: str, queue: str) -> None:
        """Tell the server, and wait until it knows."""
        self._inner = await self._link.nats.subscribe(
            subject, queue=queue, cb=self._on_message, pending_msgs_limit=BUS_BACKLOG_MAX
        )
        if self._link.connected:
            await self._link.settle("subscribe")

    @property
    def backlog(self) -> int:
        """See eventlog.Subscription."""
        return self._handling + (self._inner.pending_msgs if self._inner is not None else 0)

    async def stop(self) -> None:
        """See eventlog.Subscription."""
        inner, self._inner = self._inner, None
        if inner is not None and not self._link.nats.is_closed:
            await inner.unsubscribe()

    async def _on_message(self, message: Msg) -> None:
        self._handling = 1
        try:
            await self._handler(_BusMessage(self._link, message))
        except Exception:
            log.exception("bus.handler_failed", extra={"subject": message.subject})
        finally:
            self._handling = 0


class JetStreamBroker:
    """See eventlog.Broker. Made by `connect`."""

    def __init__(self, link: Link, *, publish_deadline_s: float = names.PUBLISH_DEADLINE_S) -> None:
        self._link = link
        self._publisher = Publisher(link, deadline_s=publish_deadline_s)

    @property
    def connected(self) -> bool:
        """See eventlog.Broker."""
        return self._link.connected

    @property
    def connected_since_s(self) -> float:
        """See eventlog.Broker."""
        return self._link.connected_since_s

    @property
    def in_flight(self) -> int:
        """Appends whose outcome is open."""
        return self._publisher.in_flight

    async def publish(
        self, subject: str, body: bytes, *, msg_id: str = "", expected: Expected | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> asyncio.Future[Appended]:  # fmt: skip
        """See EventLog.publish."""
        return await self._publisher.publish(subject, body, msg_id=msg_id, expected=expected, headers=headers)

    async def append(
        self, subject: str, body: bytes, *, msg_id: str = "", expected: Expected | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Appended:  # fmt: skip
        """See EventLog.append."""
        return await (await self._publisher.publish(subject, body, msg_id=msg_id, expected=expected, headers=headers))

    async def last(self, stream: str, subject_filter: str) -> Stored | None:
        """See EventLog.last."""
        return await self._message(stream, {"last_by_subj": subject_filter})

    async def get(self, stream: str, seq: int) -> Stored | None:
        """See EventLog.get."""
        return await self._message(stream, {"seq": seq}) if seq > 0 else None

    async def position(self, stream: str) -> Position:
        """See EventLog.position."""
        state = (await self._link.api(f"STREAM.INFO.{stream}"))["state"]
        last_seq = int(state["last_seq"])
        return Position(int(state["first_seq"]) if state["messages"] else last_seq + 1, last_seq)

    def read(self, stream: str, filters: Sequence[str], *, start_seq: int = 1) -> AsyncIterator[Stored]:
        """See EventLog.read."""
        return read_finite(self._link, stream, filters, start_seq=start_seq)

    async def tail(
        self, stream: str, filters: Sequence[str], *, start_seq: int, last_per_subject: bool = False
    ) -> JetStreamTail:
        """See EventLog.tail."""
        tail = JetStreamTail(self._link, stream, filters, start_seq=start_seq, last_per_subject=last_per_subject)
        await tail.begin()
        return tail

    async def consume(self, stream: str, durable: str, *, in_flight_max: int) -> JetStreamConsumer:
        """See WorkQueues.consume."""
        await self.consumer_state(stream, durable)
        consumer = JetStreamConsumer(self._link, stream, durable, in_flight_max=in_flight_max)
        consumer.begin()
        return consumer

    async def consumer_state(self, stream: str, durable: str) -> ConsumerState:
        """See WorkQueues.consumer_state."""
        info = await self._link.api(f"CONSUMER.INFO.{stream}.{durable}")
        return ConsumerState(
            delivered_seq=int(info["delivered"]["stream_seq"]),
            ack_floor_seq=int(info["ack_floor"]["stream_seq"]),
            pending=int(info["num_pending"]),
            ack_pending=int(info["num_ack_pending"]),
        )

    async def redeliver(self, stream: str, durable: str) -> None:
        """See WorkQueues.redeliver."""
        await self.consumer_state(stream, durable)  # nobody answers the next question where the durable is not there
        await self._link.api(f"CONSUMER.RESET.{stream}.{durable}")  # to its floor of acknowledgements

    async def send(self, subject: str, body: bytes) -> None:
        """See Bus.send."""
        check_subject(subject)
        if not self._link.connected or self._link.unsent_bytes > UNSENT_BYTES_MAX:
            return  # at most once: whoever needs to know uses `request`
        self._link.send(subject, body)

    async def request(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        """See Bus.request."""
        check_subject(subject)
        return (await self._link.request(subject, body, timeout_s=timeout_s)).body

    async def subscribe(self, subject: str, handler: BusHandler, *, queue: str = "") -> _BusSubscription:
        """See Bus.subscribe."""
        check_subject(subject)
        subscription = _BusSubscription(self._link, handler)
        await subscription.begin(subject, queue)
        return subscription

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """See Admin.ensure_stream."""
        await admin.ensure_stream(self._link, spec)

    async def ensure_consumer(self, spec: ConsumerSpec) -> None:
        """See Admin.ensure_consumer."""
        await admin.ensure_consumer(self._link, spec)

    async def delete_consumer(self, stream: str, durable: str) -> None:
        """See Admin.delete_consumer."""
        await admin.delete_consumer(self._link, stream, durable)

    async def remove(self, stream: str, seq: int) -> None:
        """See Admin.remove."""
        try:
            await self._link.api(f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True})
        except HeadraceError:  # the server's codes for "not there" are also those of other failures
            async with asyncio.timeout(2 * names.REQUEST_DEADLINE_S):  # it has its own, half as long
                there = await self.get(stream, seq)
            if there is not None:
                raise

    async def difference(self, spec: StreamSpec | ConsumerSpec) -> str:
        """How the server differs from a specification; empty when it does not. For `doctor`; changes nothing."""
        return await admin.difference(self._link, spec)

    async def server_time_ms(self, stream: str) -> int:
        """The wall clock of the server that leads a stream."""
        return wire.time_ms((await self._link.api(f"STREAM.INFO.{stream}"))["ts"])

    async def close(self) -> None:
        """See eventlog.Broker. Appends that are still unanswered become unknown."""
        await self._link.close()
        self._publisher.close()

    async def _message(self, stream: str, request: dict[str, Any]) -> Stored | None:
        answer = await self._link.request(
            f"$JS.API.STREAM.MSG.GET.{stream}", wire.encode(request), timeout_s=names.REQUEST_DEADLINE_S
        )
        reply = wire.decode_message(answer.body, what=f"STREAM.MSG.GET.{stream}")
        if reply is None:
            return None
        raw = base64.b64decode(reply.hdrs)
        headers = wire.RawHeaders(raw) if raw else wire.NO_HEADERS
        body = base64.b64decode(reply.data)
        return Stored(stream, reply.seq, reply.subject, body, wire.time_ms(reply.time), headers, len(raw))


async def connect(
    url: str,
    *,
    name: str,
    creds: str | None = None,
    clock: Clock,
    deadline_s: float = names.CONNECT_DEADLINE_S,
) -> JetStreamBroker:
    """A connection that reconnects for ever. Give each process and role its own `name`.

    Args:
        url: One or several `nats://host:port`, separated by commas; may hold user and password or a token.
        creds: The text or the path of a credentials file, or an nkey seed.

    Raises: UnavailableError: nothing within `deadline_s`; the text lists the attempts. DeniedError: wrong credentials.
        ConfigError: JetStream is disabled, or the credentials cannot be read.
    """
    link = await open_link(url, name=name, creds=creds, clock=clock, deadline_s=deadline_s)
    try:
        await _check_jetstream(link, clock, deadline_s)
    except BaseException:
        await link.close()
        raise
    return JetStreamBroker(link)


async def _check_jetstream(link: Link, clock: Clock, deadline_s: float) -> None:
    """Ask once that JetStream answers us; a cluster that is just electing gets until the deadline."""
    began_s = clock.monotonic_s()
    while True:
        try:
            await link.api("INFO")
        except RetryableError as error:
            if not link.jetstream_offered:
                text = "JetStream is disabled on this server; start it with `jetstream { store_dir: … }` or `-js`"
                raise ConfigError(text) from error
            if clock.monotonic_s() - began_s + LOOK_PAUSE_S > deadline_s:
                text = f"JetStream does not answer within {deadline_s:g} s: {error}"
                raise UnavailableError(text) from error
        except TerminalError:
            raise
        else:
            return
        await clock.sleep(LOOK_PAUSE_S)
