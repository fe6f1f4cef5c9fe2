"""Streams and work queues in memory, as one nats-server node keeps them. No IO; time and timers are given.

What is copied from the real server, because code depends on it: the expected sequence is checked before deduplication,
deduplication is per stream and by id alone, a full stream refuses, acknowledged work leaves a `workqueue` stream, and
what is not acknowledged in time is delivered again before anything new.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from headrace.contracts.errors import AppendConflictError, StorageFullError
from headrace.runtime.eventlog import (
    Appended,
    ConsumerSpec,
    ConsumerState,
    Expected,
    Position,
    Stored,
    StreamSpec,
)
from headrace.runtime.subject_filters import filter_regex

RECORD_BYTES: Final = 30
"""What the file store adds to subject, headers and body: 22 bytes before and 8 of checksum after."""
HEADER_RECORD_BYTES: Final = 4


class Timer(Protocol):
    """What `call_later` gives."""

    def cancel(self) -> None:
        """It will not fire."""
        ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class _Node:
    """A token of the subject tree: sequences of the subject that ends here, and the newest of all below."""

    __slots__ = ("below", "children", "seqs")

    def __init__(self) -> None:
        self.below = 0
        self.children: dict[str, _Node] = {}
        self.seqs: list[int] = []

    def newest(self) -> int:
        return max(self.below, self.seqs[-1] if self.seqs else 0)


class SubjectIndex:
    """Finds the newest sequence that a filter matches without looking at every subject."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, subject: str, seq: int) -> None:
        """`seq` is higher than any before."""
        node = self._root
        for token in subject.split("."):
            node.below = seq
            node = node.children.setdefault(token, _Node())
        node.seqs.append(seq)

    def remove(self, subject: str, seq: int) -> None:
        """The message is gone."""
        path = [self._root]
        tokens = subject.split(".")
        for token in tokens:
            path.append(path[-1].children[token])
        path[-1].seqs.remove(seq)
        for parent, token in zip(reversed(path[:-1]), reversed(tokens), strict=True):
            child = parent.children[token]
            if not child.seqs and not child.children:
                del parent.children[token]
            parent.below = max((one.newest() for one in parent.children.values()), default=0)

    def of_subject(self, subject: str) -> list[int]:
        """Sequences of exactly this subject, oldest first."""
        node: _Node | None = self._root
        for token in subject.split("."):
            node = node.children.get(token) if node is not None else None
        return node.seqs if node is not None else []

    def newest(self, subject_filter: str) -> int:
        """The newest sequence that matches; 0 for none."""
        return max(self._matching(self._root, subject_filter.split(".")), default=0)

    def newest_of_each(self, filters: Sequence[str]) -> list[int]:
        """The newest sequence of every subject that matches, ascending."""
        found = {seq for one in filters or (">",) for seq in self._leaves(self._root, one.split("."))}
        return sorted(found)

    def _matching(self, node: _Node, tokens: Sequence[str]) -> Iterator[int]:
        if not tokens:
            if node.seqs:
                yield node.seqs[-1]
        elif tokens[0] == ">":
            yield node.below
        else:
            for child in self._children(node, tokens[0]):
                yield from self._matching(child, tokens[1:])

    def _leaves(self, node: _Node, tokens: Sequence[str]) -> Iterator[int]:
        if not tokens:
            if node.seqs:
                yield node.seqs[-1]
        elif tokens[0] == ">":
            for child in node.children.values():
                yield from self._leaves(child, ())
                yield from self._leaves(child, tokens)
        else:
            for child in self._children(node, tokens[0]):
                yield from self._leaves(child, tokens[1:])

    @staticmethod
    def _children(node: _Node, token: str) -> Sequence[_Node]:
        if token == "*":
            return tuple(node.children.values())
        child = node.children.get(token)
        return () if child is None else (child,)


class MemoryStream:
    """One stream."""

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        self.takes = filter_regex(spec.subjects).fullmatch
        self.messages: dict[int, Stored] = {}
        """By sequence, ascending."""
        self.last_seq = 0
        self.index = SubjectIndex()
        self._bytes = 0
        self._ids: dict[str, tuple[int, int]] = {}

    def position(self) -> Position:
        """First and last sequence."""
        return Position(next(iter(self.messages), self.last_seq + 1), self.last_seq)

    def append(
        self, subject: str, body: bytes, *, msg_id: str, expected: Expected | None, headers: Mapping[str, str],
        now_ms: int,
    ) -> Appended:  # fmt: skip
        """Store it, or say why not; then nothing has changed."""
        self.expire(now_ms)
        if expected is not None:
            found = self.index.newest(expected.subject)
            if found != expected.seq:
                raise AppendConflictError(
                    subject=expected.subject, expected_seq=expected.seq, found=f"wrong last sequence: {found}"
                )
        if msg_id and msg_id in self._ids:
            return Appended(self._ids[msg_id][0], True)
        size = _size(subject, body, headers)
        self._check_room(subject, size)
        self.last_seq += 1
        self.messages[self.last_seq] = Stored(
            self.spec.name, self.last_seq, subject, body, now_ms, headers, _header_bytes(headers)
        )
        self.index.add(subject, self.last_seq)
        self._bytes += size
        if msg_id:
            self._ids[msg_id] = (self.last_seq, now_ms)
        self._drop_oldest(subject)
        return Appended(self.last_seq, False)

    def remove(self, seq: int) -> None:
        """Forget a message; nothing happens when it is not there."""
        stored = self.messages.pop(seq, None)
        if stored is not None:
            self.index.remove(stored.subject, seq)
            self._bytes -= _size(stored.subject, stored.body, stored.headers)

    def expire(self, now_ms: int) -> None:
        """Drop what is too old, and ids beyond the window."""
        if self.spec.max_age_s > 0:
            oldest_ms = now_ms - int(self.spec.max_age_s * 1000)
            while self.messages and (first := next(iter(self.messages.values()))).time_ms < oldest_ms:
                self.remove(first.seq)
        window_ms = now_ms - int(self.spec.duplicate_window_s * 1000)
        while self._ids and next(iter(self._ids.values()))[1] < window_ms:
            del self._ids[next(iter(self._ids))]

    def scan(self, start_seq: int, matches: re.Pattern[str], *, max_count: int) -> tuple[list[Stored], int]:
        """Up to `max_count` matches from `start_seq` on, and the last sequence that was looked at."""
        found: list[Stored] = []
        seq = max(start_seq, next(iter(self.messages), self.last_seq + 1)) - 1
        while seq < self.last_seq and len(found) < max_count:
            seq += 1
            stored = self.messages.get(seq)
            if stored is not None and matches.fullmatch(stored.subject):
                found.append(stored)
        return found, max(seq, start_seq - 1)

    def _check_room(self, subject: str, size: int) -> None:
        spec = self.spec
        if spec.discard_new_per_subject and 0 < spec.max_msgs_per_subject <= len(self.index.of_subject(subject)):
            msg = f"{subject}: maximum messages per subject exceeded (error 10077)"
            raise StorageFullError(msg)
        if (spec.discard_new or spec.discard_new_per_subject) and 0 < spec.max_bytes < self._bytes + size:
            msg = f"{subject}: maximum bytes exceeded (error 10077)"
            raise StorageFullError(msg)

    def _drop_oldest(self, subject: str) -> None:
        of_subject = self.index.of_subject(subject)
        while 0 < self.spec.max_msgs_per_subject < len(of_subject):
            self.remove(of_subject[0])
        while 0 < self.spec.max_bytes < self._bytes and len(self.messages) > 1:
            self.remove(next(iter(self.messages)))


@dataclass(slots=True)
class Pull:
    """A request for messages that waits at a work queue."""

    owner: object
    number: int
    left: int
    expires_s: float
    deliver: Callable[[int, Stored, int], None]
    """Gets the request's number, the message, and how often it was delivered."""
    refuse: Callable[[], None]
    """Told when the durable is removed."""


@dataclass(slots=True)
class _Pending:
    deliveries: int = 0
    timer: Timer | None = None
    queued: bool = False
    """Waits to be delivered again."""


@dataclass(slots=True)
class MemoryQueue:
    """One durable work queue."""

    spec: ConsumerSpec
    stream: MemoryStream
    call_later: CallLater
    now_s: Callable[[], float]
    delivered_seq: int = 0
    pulls: deque[Pull] = field(default_factory=deque)
    _cursor: int = 1
    _pending: dict[int, _Pending] = field(default_factory=dict)
    _again: deque[int] = field(default_factory=deque)
    _matches: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        self._matches = filter_regex(self.spec.filters)

    def state(self) -> ConsumerState:
        """Where it stands."""
        ahead, _ = self.stream.scan(self._cursor, self._matches, max_count=self.stream.last_seq + 1)
        floor = min(self._pending, default=self.delivered_seq + 1) - 1
        return ConsumerState(self.delivered_seq, floor, len(ahead), len(self._pending))

    def pump(self) -> None:
        """Deliver while somebody asks and something is there."""
        while self.pulls:
            pull = self.pulls[0]
            if pull.left <= 0 or pull.expires_s <= self.now_s():
                self.pulls.popleft()
                continue
            stored = self._next()
            if stored is None:
                return
            pull.left -= 1
            self.pulls.rotate(-1)
            pending = self._pending.setdefault(stored.seq, _Pending())
            pending.deliveries += 1
            self._arm(stored.seq, self.spec.ack_wait_s)
            pull.deliver(pull.number, stored, pending.deliveries)

    def forget(self, owner: object) -> None:
        """Its requests have no reader any more."""
        self.pulls = deque(pull for pull in self.pulls if pull.owner is not owner)

    def done(self, seq: int) -> None:
        """Acknowledged, or never to be delivered again."""
        pending = self._pending.pop(seq, None)
        if pending is None:
            return
        if pending.timer is not None:
            pending.timer.cancel()
        if pending.queued:
            self._again.remove(seq)
        if self.stream.spec.retention == "workqueue":
            self.stream.remove(seq)
        self.pump()

    def back(self, seq: int, delay_s: float) -> None:
        """Handed back."""
        pending = self._pending.get(seq)
        if pending is not None and not pending.queued:
            if delay_s > 0:
                self._arm(seq, delay_s)
            else:
                self._due(seq)

    def busy(self, seq: int) -> None:
        """Still being worked on."""
        pending = self._pending.get(seq)
        if pending is not None and not pending.queued:
            self._arm(seq, self.spec.ack_wait_s)

    def unack(self, seq: int) -> None:
        """Lose an acknowledgement, as a server that dies may, and deliver the message again if it is still there."""
        if seq in self.stream.messages and seq < self._cursor and seq not in self._pending:
            self._pending[seq] = _Pending(deliveries=1)
            self._due(seq)

    def amnesia(self, cursor: int) -> None:
        """Forget everything and go on at `cursor`, as a server's consumer may after losing its state."""
        for pending in self._pending.values():
            if pending.timer is not None:
                pending.timer.cancel()
        self._pending.clear()
        self._again.clear()
        self._cursor, self.delivered_seq = cursor, cursor - 1
        self.pump()

    def close(self) -> None:
        """The durable is removed."""
        for pending in self._pending.values():
            if pending.timer is not None:
                pending.timer.cancel()
        self._pending.clear()
        for pull in self.pulls:
            pull.refuse()
        self.pulls.clear()

    def _next(self) -> Stored | None:
        while self._again:
            seq = self._again.popleft()
            self._pending[seq].queued = False
            stored = self.stream.messages.get(seq)
            if stored is not None:
                return stored
            del self._pending[seq]  # limits removed it meanwhile
        if len(self._pending) >= self.spec.max_ack_pending:
            return None
        found, looked_at = self.stream.scan(self._cursor, self._matches, max_count=1)
        self._cursor = looked_at + 1
        if not found:
            return None
        self.delivered_seq = found[0].seq
        return found[0]

    def _arm(self, seq: int, seconds: float) -> None:
        pending = self._pending[seq]
        if pending.timer is not None:
            pending.timer.cancel()
        pending.timer = self.call_later(seconds, lambda: self._due(seq))

    def _due(self, seq: int) -> None:
        pending = self._pending.get(seq)
        if pending is None or pending.queued:
            return
        if pending.timer is not None:
            pending.timer.cancel()
            pending.timer = None
        pending.queued = True
        self._again.append(seq)
        self.pump()


def _size(subject: str, body: bytes, headers: Mapping[str, str]) -> int:
    size = RECORD_BYTES + len(subject) + len(body)
    return size + HEADER_RECORD_BYTES + _header_bytes(headers) if headers else size


def _header_bytes(headers: Mapping[str, str]) -> int:
    if not headers:
        return 0
    return len("NATS/1.0\r\n\r\n") + sum(len(name) + len(value) + 4 for name, value in headers.items())
