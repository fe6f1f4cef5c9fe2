"""The state that in-memory connections share: streams, work queues, and subscriptions of the bus.

Every method is one request as the server executes it: synchronous, complete, and either done or refused with the error
that a client would get. What the server says later (deliveries) goes through callables that the connection gave.
"""

import asyncio
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.contracts.errors import (
    ConfigError,
    ConsumerGoneError,
    NotFoundError,
    TerminalError,
    UnavailableError,
)
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import (
    Appended,
    ConsumerSpec,
    ConsumerState,
    Expected,
    Position,
    Stored,
    StreamSpec,
)
from headrace.runtime.memory_streams import MemoryQueue, MemoryStream, Pull, Timer
from headrace.runtime.subject_filters import filter_regex, overlap

PAYLOAD_BYTES_MAX: Final = 1024 * 1024

Hear = Callable[[str, bytes, str], None]
"""Gets subject, body and reply subject of a message of the bus."""


@dataclass(slots=True)
class _Interest:
    owner: object
    number: int
    pattern: re.Pattern[str]
    queue: str
    hear: Hear


@dataclass(slots=True)
class _Reader:
    stream: MemoryStream
    pattern: re.Pattern[str]
    start_seq: int
    max_count: int
    answer: Callable[[list[Stored], int], None]


class MemoryServer:
    """A broker of one node, without disk. Connections are `memory.MemoryBroker`.

    Args:
        clock: Stamps messages and ages them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._connections = 0
        self.streams: dict[str, MemoryStream] = {}
        self.queues: dict[tuple[str, str], MemoryQueue] = {}
        self._interests: list[_Interest] = []
        self._turns: dict[tuple[str, str], int] = {}
        self._readers: dict[tuple[object, int], _Reader] = {}

    def next_connection(self) -> int:
        """Counts connections from 1."""
        self._connections += 1
        return self._connections

    def call_later(self, seconds: float, fire: Callable[[], None]) -> Timer:
        """A timer of the server's own."""
        return asyncio.get_running_loop().call_later(seconds, fire)

    # --- streams ------------------------------------------------------------------------------------------------------

    def publish(
        self, subject: str, body: bytes, *, msg_id: str, expected: Expected | None, headers: Mapping[str, str]
    ) -> Appended:
        """Store a message in the stream that takes its subject, and hand it to whoever waits."""
        for stream in self.streams.values():
            if stream.takes(subject):
                appended = stream.append(
                    subject,
                    body,
                    msg_id=msg_id,
                    expected=expected,
                    headers=headers,
                    now_ms=self._clock.now_ms(),
                )
                if not appended.duplicate:
                    self._stored(stream)
                return appended
        msg = f"{subject}: no stream or no leader takes it (status 503)"
        raise UnavailableError(msg)

    def last(self, stream: str, subject_filter: str) -> Stored | None:
        """See EventLog.last."""
        found = self._stream(stream)
        return found.messages.get(found.index.newest(subject_filter))

    def get(self, stream: str, seq: int) -> Stored | None:
        """See EventLog.get."""
        return self._stream(stream).messages.get(seq)

    def position(self, stream: str) -> Position:
        """See EventLog.position."""
        return self._stream(stream).position()

    def scan(
        self, stream: str, pattern: re.Pattern[str], *, start_seq: int, max_count: int
    ) -> tuple[list[Stored], int]:
        """Matches from `start_seq` on, and the last sequence that was looked at."""
        return self._stream(stream).scan(start_seq, pattern, max_count=max_count)

    def begin_tail(
        self, stream: str, filters: Sequence[str], *, last_per_subject: bool
    ) -> tuple[list[Stored], int, int]:
        """What a tail starts with, the newest sequence that matches now, and the stream's last one."""
        found = self._stream(stream)
        _refuse_overlap(filters)
        if found.spec.retention == "workqueue":
            msg = f"{stream}: a work queue needs explicit acknowledgements; it has no tail (error 10084)"
            raise TerminalError(msg)
        newest = max(found.index.newest(one) for one in filters or (">",))
        seqs = found.index.newest_of_each(filters) if last_per_subject else []
        return [found.messages[seq] for seq in seqs], newest, found.last_seq

    def wait_for(
        self, owner: object, number: int, stream: str, pattern: re.Pattern[str], *, start_seq: int, max_count: int,
        answer: Callable[[list[Stored], int], None],
    ) -> None:  # fmt: skip
        """Answer once, as soon as something from `start_seq` on matches. A newer request of the reader replaces it."""
        reader = _Reader(self._stream(stream), pattern, start_seq, max_count, answer)
        self._readers[owner, number] = reader
        self._serve((owner, number), reader)

    # --- work queues --------------------------------------------------------------------------------------------------

    def queue_state(self, stream: str, durable: str) -> ConsumerState:
        """See WorkQueues.consumer_state."""
        return self._queue(stream, durable).state()

    def redeliver(self, stream: str, durable: str) -> None:
        """See WorkQueues.redeliver."""
        queue = self._queue(stream, durable)
        queue.amnesia(queue.state().ack_floor_seq + 1)

    def pull(self, stream: str, durable: str, pull: Pull) -> None:
        """Deliver as much as the request asks for, now or when it comes."""
        queue = self._queue(stream, durable)
        queue.pulls.append(pull)
        queue.pump()

    def unpull(self, stream: str, durable: str, owner: object) -> None:
        """Forget the requests of one share."""
        queue = self.queues.get((stream, durable))
        if queue is not None:
            queue.forget(owner)

    def settle(self, stream: str, durable: str, seq: int, verb: str, delay_s: float) -> None:
        """`ack`, `term`, `nak` or `busy`; nothing happens for a message that is not out."""
        queue = self.queues.get((stream, durable))
        if queue is None:
            return
        match verb:
            case "nak":
                queue.back(seq, delay_s)
            case "busy":
                queue.busy(seq)
            case _:
                queue.done(seq)

    # --- administration -----------------------------------------------------------------------------------------------

    def ensure_stream(self, spec: StreamSpec) -> None:
        """See Admin.ensure_stream."""
        found = self.streams.get(spec.name)
        if found is not None:
            _compare(f"stream {spec.name}", spec, found.spec)
            return
        if 0 < spec.max_age_s < spec.duplicate_window_s:
            msg = f"{spec.name}: duplicates window can not be larger then max age (error 10052)"
            raise ConfigError(msg)
        for other in self.streams.values():
            if any(overlap(mine, theirs) for mine in spec.subjects for theirs in other.spec.subjects):
                msg = f"{spec.name}: subjects overlap with an existing stream (error 10065)"
                raise TerminalError(msg)
        self.streams[spec.name] = MemoryStream(spec)

    def ensure_consumer(self, spec: ConsumerSpec) -> None:
        """See Admin.ensure_consumer."""
        stream = self._stream(spec.stream)
        found = self.queues.get((spec.stream, spec.durable))
        if found is not None:
            _compare(f"consumer {spec.durable} of {spec.stream}", spec, found.spec)
            return
        _refuse_overlap(spec.filters)
        if stream.spec.retention == "workqueue":
            others = [queue.spec for key, queue in self.queues.items() if key[0] == spec.stream]
            mine = spec.filters or (">",)
            if any(overlap(a, b) for other in others for a in mine for b in other.filters or (">",)):
                msg = f"{spec.durable}: filtered consumer not unique on workqueue stream (error 10100)"
                raise TerminalError(msg)
        now_s = asyncio.get_running_loop().time
        self.queues[spec.stream, spec.durable] = MemoryQueue(spec, stream, self.call_later, now_s)

    def delete_consumer(self, stream: str, durable: str) -> None:
        """See Admin.delete_consumer."""
        queue = self.queues.pop((stream, durable), None)
        if queue is not None:
            queue.close()

    def remove(self, stream: str, seq: int) -> None:
        """See Admin.remove."""
        found = self._stream(stream)
        if found.spec.deny_delete:
            msg = f"{stream}: message delete not permitted (error 10057)"
            raise UnavailableError(msg)
        found.remove(seq)

    # --- the bus ------------------------------------------------------------------------------------------------------

    def subscribe(self, owner: object, number: int, subject: str, queue: str, hear: Hear) -> None:
        """Hear a subject from now on; the same owner and number again changes nothing."""
        if not any(one.owner is owner and one.number == number for one in self._interests):
            self._interests.append(_Interest(owner, number, filter_regex((subject,)), queue, hear))

    def unsubscribe(self, owner: object, number: int) -> None:
        """Hear it no more."""
        self._interests = [one for one in self._interests if (one.owner, one.number) != (owner, number)]

    def send(self, subject: str, body: bytes, reply: str) -> int:
        """Hand it to everybody who listens, to one of each queue group, in turn; gives how many."""
        heard = [one for one in self._interests if one.pattern.fullmatch(subject)]
        chosen = [one for one in heard if not one.queue]
        for queue in dict.fromkeys(one.queue for one in heard if one.queue):
            members = [one for one in heard if one.queue == queue]
            turn = self._turns.get((queue, subject), 0)
            self._turns[queue, subject] = turn + 1
            chosen.append(members[turn % len(members)])
        for one in chosen:
            one.hear(subject, body, reply)
        return len(chosen)

    def drop(self, owner: object, shares: Sequence[object] = ()) -> None:
        """A connection is gone: nothing is delivered to it any more.

        Args:
            owner: The connection. shares: Its shares of work queues.
        """
        self._interests = [one for one in self._interests if one.owner is not owner]
        self._readers = {key: one for key, one in self._readers.items() if key[0] is not owner}
        for queue in self.queues.values():
            for share in shares:
                queue.forget(share)

    def _stored(self, stream: MemoryStream) -> None:
        for key, reader in tuple(self._readers.items()):
            if reader.stream is stream:
                self._serve(key, reader)
        for (name, _), queue in tuple(self.queues.items()):
            if name == stream.spec.name:
                queue.pump()

    def _serve(self, key: tuple[object, int], reader: _Reader) -> None:
        found, looked_at = reader.stream.scan(reader.start_seq, reader.pattern, max_count=reader.max_count)
        reader.start_seq = looked_at + 1
        if found:
            del self._readers[key]
            reader.answer(found, looked_at)

    def _stream(self, name: str) -> MemoryStream:
        stream = self.streams.get(name)
        if stream is None:
            msg = f"{name}: stream not found (error 10059); `headrace admin migrate` makes the streams"
            raise NotFoundError(msg)
        stream.expire(self._clock.now_ms())
        return stream

    def _queue(self, stream: str, durable: str) -> MemoryQueue:
        self._stream(stream)
        queue = self.queues.get((stream, durable))
        if queue is None:
            msg = f"{durable} of {stream}: consumer not found (error 10014)"
            raise ConsumerGoneError(msg)
        return queue


def _refuse_overlap(filters: Sequence[str]) -> None:
    for at, one in enumerate(filters):
        if any(overlap(one, other) for other in filters[at + 1 :]):
            msg = f"{one}: consumer subject filters cannot overlap (error 10138)"
            raise TerminalError(msg)


def _compare(what: str, wanted: StreamSpec | ConsumerSpec, found: StreamSpec | ConsumerSpec) -> None:
    lines = []
    for one in dataclasses.fields(wanted):
        must, has = getattr(wanted, one.name), getattr(found, one.name, None)
        same = sorted(has or ()) == sorted(must) if isinstance(must, tuple) else has == must
        if not same:
            lines.append(f"  {one.name}: the server has {has!r}, it must be {must!r}")
    if lines:
        text = "\n".join(lines)
        msg = f"{what} exists with another configuration:\n{text}"
        raise ConfigError(msg)
