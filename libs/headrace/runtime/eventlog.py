"""The broker as Headrace sees it, as protocols: a log, work queues on the log, and a bus that stores nothing.

**Order.** Messages of one stream have one order, their sequence. Every reader sees that order; nothing is ordered
across streams. A reader may see a message before its writer has the acknowledgement.

**Conflict.** `Expected(seq, subject)` says: the last message matching `subject` (wildcards allowed) has sequence `seq`,
0 for none. Where it has not, nothing is stored and `AppendConflictError` comes back. That error alone never means
"somebody else won": an own earlier publish with the same id may be the one that is stored, because one node checks the
sequence before it deduplicates, while three nodes answer `duplicate`. Read `last(scope)` and compare ids, then
conclude.

**Deduplication** is per stream and by `msg_id` alone, for two minutes, whatever the subject and the body. An id must
cover what makes the fact unique, and `duplicate=True` is verified by the caller before it counts.

**Unknown.** A publish without an answer raises `UnknownOutcomeError`: it may be stored now, seconds later, or never.
What is never done: buffering while disconnected. Then `UnavailableError` is raised at once and nothing was sent.

**Delivery.** A tail delivers each matching message once, in order, without gaps, over reconnects and restarts of the
broker. A work queue delivers each message at least once, in any order, possibly again after a confirmed acknowledgement
(the broker may die), possibly very late. Nothing may rest on delivery alone.

Three implementations are held to one suite (`tests/conformance`): JetStream, the in-memory broker, and the simulator's.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol


class Expected(NamedTuple):
    """The last message matching `subject` must have sequence `seq`; 0 means there is none."""

    seq: int
    subject: str


class Appended(NamedTuple):
    """The broker has stored it at `seq`, or (`duplicate`) had stored some message with this id at `seq` before."""

    seq: int
    duplicate: bool


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Stored(NamedTuple):
    """A stored message. `time_ms` is the broker's timestamp."""

    stream: str
    seq: int
    subject: str
    body: bytes
    time_ms: int
    headers: Mapping[str, str] = _NO_HEADERS
    header_bytes: int = 0
    """What the headers take, line ends included: known without parsing them."""


class Position(NamedTuple):
    """First and last sequence of a stream as its leader knows them; last is first - 1 when it is empty."""

    first_seq: int
    last_seq: int


class ConsumerState(NamedTuple):
    """A work queue: `delivered_seq` is the highest stream sequence ever delivered, `pending` messages were not yet."""

    delivered_seq: int
    ack_floor_seq: int
    pending: int
    ack_pending: int


@dataclass(slots=True, frozen=True)
class StreamSpec:
    """A stream as it must be. Compared with what the server has; a difference is a start-up error."""

    name: str
    subjects: tuple[str, ...]
    retention: str = "limits"
    """`limits` or `workqueue`."""
    max_age_s: float = 0.0
    max_bytes: int = -1
    max_msgs_per_subject: int = -1
    discard_new: bool = False
    discard_new_per_subject: bool = False
    deny_delete: bool = True
    compression: bool = False
    duplicate_window_s: float = 120.0
    replicas: int = 1


@dataclass(slots=True, frozen=True)
class ConsumerSpec:
    """A durable work queue as it must be."""

    stream: str
    durable: str
    filters: tuple[str, ...]
    ack_wait_s: float = 30.0
    max_ack_pending: int = 1000


class Tail(Protocol):
    """An ordered, gapless reader of a stream that goes on for ever."""

    @property
    def seq(self) -> int:
        """Sequence of the last message handed out by `batch`, or start - 1."""
        ...

    @property
    def caught_up(self) -> bool:
        """True once everything that was stored when the tail began has been handed out."""
        ...

    async def batch(self, *, max_count: int, wait_s: float) -> list[Stored]:
        """At least one message as soon as there is one, at most `max_count`; empty after `wait_s` without any."""
        ...

    async def stop(self) -> None:
        """Stop reading and remove the reader from the server. Idempotent."""
        ...


class Delivery(Protocol):
    """A message of a work queue. Exactly one of `ack`, `nak`, `term` ends it."""

    @property
    def stored(self) -> Stored:
        """The message."""
        ...

    @property
    def deliveries(self) -> int:
        """How often it was delivered, this time included; counts decide nothing by themselves."""
        ...

    async def ack(self) -> None:
        """It is done. Not confirmed: it may be delivered again."""
        ...

    async def nak(self, *, delay_s: float = 0.0) -> None:
        """Hand it back; another consumer gets it after `delay_s`."""
        ...

    async def term(self, reason: str) -> None:
        """It will never be done; do not deliver it again."""
        ...

    async def in_progress(self) -> None:
        """Start `ack_wait` afresh."""
        ...


class Consumer(Protocol):
    """A share of a work queue. At most `in_flight_max` deliveries are unended at any time."""

    async def batch(self, *, max_count: int, wait_s: float) -> list[Delivery]:
        """At least one delivery as soon as there is one, at most `max_count`; empty after `wait_s` without any."""
        ...

    async def stop_fetching(self) -> list[Delivery]:
        """Ask for nothing more; gives the deliveries that were fetched but not handed out, to be handed back."""
        ...

    async def stop(self) -> None:
        """Let go of the share. The durable itself stays."""
        ...


class BusMessage(Protocol):
    """A message that nobody stores."""

    @property
    def subject(self) -> str:
        """Where it was sent."""
        ...

    @property
    def body(self) -> bytes:
        """What was sent."""
        ...

    async def respond(self, body: bytes) -> None:
        """Answer it; nothing happens when nobody asked for an answer."""
        ...


BusHandler = Callable[[BusMessage], Awaitable[None]]


class Subscription(Protocol):
    """Interest in a subject of the bus."""

    @property
    def backlog(self) -> int:
        """Messages received and not yet handled."""
        ...

    async def stop(self) -> None:
        """Idempotent."""
        ...


class EventLog(Protocol):
    """Streams. See the module's text for order, conflict, deduplication and unknown outcomes."""

    async def publish(
        self, subject: str, body: bytes, *, msg_id: str = "", expected: Expected | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "asyncio.Future[Appended]":  # fmt: skip
        """Send an append; the future has its outcome within PUBLISH_DEADLINE_S. Calls keep their order.

        Raises (here): UnavailableError: not connected, nothing was sent.
        Raises (in the future): AppendConflictError, StorageFullError, UnavailableError (no stream takes the subject,
            or no leader: nothing is stored), UnknownOutcomeError.
        """
        ...

    async def append(
        self, subject: str, body: bytes, *, msg_id: str = "", expected: Expected | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Appended:  # fmt: skip
        """`publish`, and wait for the outcome."""
        ...

    async def last(self, stream: str, subject_filter: str) -> Stored | None:
        """The newest message matching the filter, read from the stream's leader."""
        ...

    async def get(self, stream: str, seq: int) -> Stored | None:
        """The message at a sequence, read from the leader; None where there is none."""
        ...

    async def position(self, stream: str) -> Position:
        """First and last sequence, from the leader."""
        ...

    def read(self, stream: str, filters: Sequence[str], *, start_seq: int = 1) -> AsyncIterator[Stored]:
        """What matches now, in order, then the end. Later messages are not included."""
        ...

    async def tail(
        self, stream: str, filters: Sequence[str], *, start_seq: int, last_per_subject: bool = False
    ) -> Tail:
        """Read for ever from `start_seq` on; with `last_per_subject` begin with the newest of each subject."""
        ...


class WorkQueues(Protocol):
    """Durable work queues on streams."""

    async def consume(self, stream: str, durable: str, *, in_flight_max: int) -> Consumer:
        """Take part in a work queue.

        Raises: ConsumerGoneError: the durable does not exist.
        """
        ...

    async def consumer_state(self, stream: str, durable: str) -> ConsumerState:
        """Where a work queue stands.

        Raises: ConsumerGoneError: the durable does not exist.
        """
        ...

    async def redeliver(self, stream: str, durable: str) -> None:
        """Deliver again, at once, what was delivered and has not been ended, as if for the first time.

        Whoever still has such a message in hand may end it all the same. Of a stream that keeps its messages, ended
        ones that came after the first unended one are delivered again too. Requests that wait go on waiting.

        Raises: ConsumerGoneError: the durable does not exist. UnavailableError.
        """
        ...


class Bus(Protocol):
    """Messages that nobody stores: at most once, best effort."""

    async def send(self, subject: str, body: bytes) -> None:
        """Send and forget. Lost when disconnected."""
        ...

    async def request(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        """Ask and get one answer.

        Raises: UnavailableError: nobody listens, or no answer within `timeout_s`.
        """
        ...

    async def subscribe(self, subject: str, handler: BusHandler, *, queue: str = "") -> Subscription:
        """Hear a subject; with `queue` only one member hears each message. Handlers run one after the other.

        What is sent after this has returned is heard, by whomever it is sent; while disconnected, after the reconnect.
        """
        ...


class Admin(Protocol):
    """Making what must exist. Called by `admin migrate`, local mode, and a scheduler whose work queue lost messages."""

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Create the stream, or check that it is as specified.

        Raises: ConfigError: it exists with another configuration; the text has the difference.
        """
        ...

    async def ensure_consumer(self, spec: ConsumerSpec) -> None:
        """Create the durable, or check it. Raises as `ensure_stream`."""
        ...

    async def delete_consumer(self, stream: str, durable: str) -> None:
        """Remove a durable; nothing happens when it is not there."""
        ...

    async def remove(self, stream: str, seq: int) -> None:
        """Remove one message of a stream that allows it; nothing happens when it is not there.

        Raises: UnavailableError: it is still there; the stream may not allow it.
        """
        ...


class Broker(EventLog, WorkQueues, Bus, Admin, Protocol):
    """One connection to the broker."""

    @property
    def connected(self) -> bool:
        """False from the moment the connection is lost until it is back."""
        ...

    @property
    def connected_since_s(self) -> float:
        """Monotonic time of the last (re)connect: suspicion of others starts from zero then."""
        ...

    async def close(self) -> None:
        """Flush and disconnect. Idempotent."""
        ...
