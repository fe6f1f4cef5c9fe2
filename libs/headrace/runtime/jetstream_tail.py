"""Tails: an ephemeral consumer without acknowledgements, made again from the last sequence whenever anything is odd.

Position is the caller's: it is the sequence of the last message handed out. A gap in the consumer's own numbering, a
heartbeat that knows more than we have, a reconnect or a consumer that is gone all lead to the same step, a new consumer
from the next sequence. That step is taken inside `batch`, by the task that reads: a tail has no task of its own.

With several filters nats-server (2.15) searches all subjects of a block for every message that lies back: 300 messages
a second where one filter gives 30,000. So a tail that is behind reads everything that its filters have in common, drops
what does not match, and returns to its filters when it has caught up.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from headrace.contracts import names
from headrace.contracts.errors import CorruptError, RetryableError, UnavailableError
from headrace.runtime import jetstream_wire as wire
from headrace.runtime.eventlog import Stored
from headrace.runtime.jetstream_link import Link
from headrace.runtime.jetstream_pull import Puller
from headrace.runtime.subject_filters import common_filter, filter_regex

WINDOW_MESSAGES: Final = 1024
"""Asked for or waiting to be handed out. Four times what keeps the server busy over a local connection."""
WINDOW_BYTES: Final = 16 * 1024 * 1024
"""Of one request. Above the largest possible message, or a tail would stand still before it."""
WIDE_ABOVE: Final = 512
"""So many messages behind, several filters are slower than reading too much."""
NARROW_AFTER_S: Final = 2.0
"""A tail just caught up may fall behind again at once; changing twice costs two requests."""
INACTIVE_S: Final = 60.0
"""The server removes a reader that nobody reads this long; a frozen process makes a new one when it wakes."""
REBUILD_PAUSE_S: Final = 0.1
READ_STALL_S: Final = names.PUBLISH_DEADLINE_S


class JetStreamTail:
    """See eventlog.Tail. One task reads it.

    Args:
        ends: Ask for what was stored when it began and for nothing more: the server would search the rest of the
            stream for another match before it does anything else for this consumer.
    """

    def __init__(
        self, link: Link, stream: str, filters: Sequence[str], *, start_seq: int, last_per_subject: bool = False,
        ends: bool = False,
    ) -> None:  # fmt: skip
        self._link, self._stream, self._filters = link, stream, tuple(filters)
        self._newest_first_pass = last_per_subject
        self._several = len(self._filters) > 1
        self._matches = filter_regex(self._filters).fullmatch
        self._wide = False
        self._wide_since_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._seq = 0 if last_per_subject else max(start_seq, 1) - 1
        self._buffer: deque[tuple[Stored, int]] = deque()
        self._received_seq = self._seq
        self._consumer = ""
        self._consumer_seq = 0
        self._puller: Puller | None = None
        self._ends = ends
        self._broken = True
        self._began = False
        self._stopped = False
        self._next_rebuild_s = 0.0
        self._failure: CorruptError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.owed = 0
        """Messages stored before the tail began (or was rebuilt before it had caught up) and not handed out yet."""
        self.rebuilds = 0

    @property
    def seq(self) -> int:
        """See eventlog.Tail."""
        return self._seq

    @property
    def caught_up(self) -> bool:
        """See eventlog.Tail."""
        return self._began and self.owed <= 0

    async def begin(self) -> None:
        """Make the consumer.

        Raises: NotFoundError: no such stream. UnavailableError.
        """
        self._link.attach(self)
        try:
            await self._rebuild()
        except BaseException:
            self._link.detach(self)
            raise

    async def batch(self, *, max_count: int, wait_s: float) -> list[Stored]:
        """See eventlog.Tail.

        Raises: CorruptError: the stream ends before what was already read from it; something was lost.
        """
        assert self._waiter is None, "one task reads a tail"
        assert not self._stopped, "the tail was stopped"
        deadline_s = self._loop.time() + wait_s
        while not self._buffer:
            if self._failure is not None:
                raise self._failure
            now_s = self._loop.time()
            left_s = deadline_s - now_s
            if self._broken and self._link.connected:
                if now_s >= self._next_rebuild_s:
                    await self._rebuild_within(max(left_s, REBUILD_PAUSE_S))
                left_s = min(left_s, REBUILD_PAUSE_S) if self._broken else deadline_s - self._loop.time()
            if deadline_s <= self._loop.time() or (self._ends and self.caught_up):
                return []
            await self._wait(left_s)
        return self._hand_out(max_count)

    async def stop(self) -> None:
        """See eventlog.Tail."""
        if self._end():
            try:
                await self._link.api(f"CONSUMER.DELETE.{self._stream}.{self._consumer}")
            except RetryableError:
                return  # gone already, or the server removes it after INACTIVE_S

    def abandon(self) -> None:
        """Stop without waiting for the server to say so."""
        if self._end() and self._link.connected:
            delete = f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}"
            self._link.send(delete, b"", reply=self._link.new_inbox())

    def _end(self) -> bool:
        """False when it had ended before."""
        if self._stopped:
            return False
        self._stopped = True
        self._link.detach(self)
        if self._puller is not None:
            self._puller.stop()
        return True

    def link_down(self) -> None:
        """What was under way is lost: read again from the last sequence received."""
        self._broken = True

    def link_up(self) -> None:
        """The reader rebuilds now rather than at its next look."""
        self._wake()

    def _hand_out(self, max_count: int) -> list[Stored]:
        messages: list[Stored] = []
        pending = 1
        while self._buffer and len(messages) < max_count:
            stored, pending = self._buffer.popleft()
            messages.append(stored)
        self._seq = messages[-1].seq
        self.owed = 0 if pending == 0 else self.owed - len(messages)
        self._ask()
        return messages

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

    async def _rebuild_within(self, seconds: float) -> None:
        self._next_rebuild_s = self._loop.time() + REBUILD_PAUSE_S
        try:
            async with asyncio.timeout(seconds):
                await self._rebuild()
        except (RetryableError, TimeoutError):
            return  # still broken: the next look tries again

    async def _rebuild(self) -> None:
        if self._puller is not None:
            self._puller.stop()
            self._puller = None
            self.rebuilds += 1
        if self._began:
            await self._check_nothing_lost()
        name, pending = await self._create()
        if self._several and not self._wide and pending > WIDE_ABOVE:
            await self._link.api(f"CONSUMER.DELETE.{self._stream}.{name}")
            self._widen()
            name, pending = await self._create()
        self._consumer, self._consumer_seq = name, 0
        if not self._began or self.owed > 0:
            self.owed = pending + len(self._buffer)
        self._began = True
        self._puller = Puller(
            self._link,
            stream=self._stream,
            consumer=name,
            on_message=self._on_message,
            on_idle=self._on_idle,
            on_refused=self._on_refused,
            on_room=self._ask,
        )
        self._puller.start()
        self._ask()

    async def _create(self) -> tuple[str, int]:
        """Name of a new consumer, and how many messages it has to deliver."""
        name = "T-" + self._link.new_inbox().rpartition(".")[2]
        request = {"stream_name": self._stream, "config": self._config(name), "action": "create"}
        self._broken = False
        try:
            answer = await self._link.api(f"CONSUMER.CREATE.{self._stream}.{name}", request)
        except BaseException:
            self._broken = True
            raise
        if self._broken:
            msg = f"{self._stream}: the connection was lost while a reader was made"
            raise UnavailableError(msg)
        return name, int(answer.get("num_pending", 0))

    def _widen(self) -> None:
        self._wide, self._wide_since_s = True, self._loop.time()

    def _config(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "replay_policy": "instant",
            "inactive_threshold": int(INACTIVE_S * wire.NS_PER_S),
            "mem_storage": True,
            "num_replicas": 1,
            "max_waiting": 16,
        }
        if self._newest_first_pass and (not self._began or self.owed > 0):
            config["deliver_policy"] = "last_per_subject"
        else:
            config["opt_start_seq"] = self._received_seq + 1
        if self._wide or len(self._filters) == 1:
            config["filter_subject"] = common_filter(self._filters)
        elif self._filters:
            config["filter_subjects"] = list(self._filters)
        elif "opt_start_seq" not in config:
            config["filter_subject"] = ">"
        return config

    async def _check_nothing_lost(self) -> None:
        answer = await self._link.api(f"STREAM.INFO.{self._stream}")
        last_seq = int(answer["state"]["last_seq"])
        if last_seq < self._received_seq:
            self._failure = CorruptError(
                f"{self._stream} ends at {last_seq}, but {self._received_seq} was already read from it: acknowledged"
                " messages were lost; compare with the archive and the durability class of the server"
            )
            raise self._failure

    def _ask(self) -> None:
        if self._puller is None or self._broken:
            return
        room = WINDOW_MESSAGES - len(self._buffer) - self._puller.outstanding
        if self._ends:
            room = min(room, self.owed - len(self._buffer) - self._puller.outstanding)
        if room >= WINDOW_MESSAGES // 2 or (room > 0 and not self._puller.outstanding and not self._buffer):
            self._puller.ask(room, bytes_max=WINDOW_BYTES)

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if self._broken:
            return
        info = wire.delivery_info(reply)
        if info.consumer_seq != self._consumer_seq + 1:
            self._break()
            return
        self._consumer_seq = info.consumer_seq
        if info.stream_seq <= self._received_seq:
            return  # the first pass over the newest of each subject, begun again
        self._received_seq = info.stream_seq
        wide, name = self._wide, subject.decode()
        if self._several:
            self._keep_pace(info.pending)
        if wide and not self._matches(name):
            self._pass_over(info.pending)
            return
        fields = wire.RawHeaders(headers) if headers else wire.NO_HEADERS
        stored = Stored(self._stream, info.stream_seq, name, data, info.time_ms, fields, len(headers))
        self._buffer.append((stored, info.pending))
        self._wake()
        assert self._puller is not None
        if self._puller.outstanding * 2 <= WINDOW_MESSAGES - len(self._buffer):
            self._ask()

    def _keep_pace(self, pending: int) -> None:
        """Read widely while far behind, narrowly again some time after."""
        if not self._wide and pending > WIDE_ABOVE:
            self._widen()
            self._break()
        elif self._wide and pending == 0 and self._loop.time() - self._wide_since_s > NARROW_AFTER_S:
            self._wide = False
            self._break()

    def _pass_over(self, pending: int) -> None:
        """A message that only the common filter takes: nobody gets it, but it counts as read."""
        self.owed -= 1
        if pending == 0:
            if self._buffer:
                self._buffer[-1] = (self._buffer[-1][0], 0)
            else:
                self.owed = 0
        if not self._buffer and self.owed <= 0:
            self._wake()
        assert self._puller is not None
        if self._puller.outstanding * 2 <= WINDOW_MESSAGES - len(self._buffer):
            self._ask()

    def _on_idle(self, last_consumer_seq: int) -> None:
        if last_consumer_seq > self._consumer_seq:
            self._break()
        elif not self._buffer and self.owed > 0:
            self.owed = 0  # nothing is left to be delivered: the rest was deleted meanwhile
            self._wake()

    def _on_refused(self, _code: int, _text: str) -> None:
        self._break()

    def _break(self) -> None:
        self._broken = True
        self._wake()


async def read_finite(link: Link, stream: str, filters: Sequence[str], *, start_seq: int) -> AsyncIterator[Stored]:
    """See EventLog.read.

    Raises: UnavailableError: nothing arrived for READ_STALL_S though something is still to come.
    """
    tail = JetStreamTail(link, stream, filters, start_seq=start_seq, ends=True)
    state = (await link.api(f"STREAM.INFO.{stream}"))["state"]
    await tail.begin()
    try:
        while not tail.caught_up:
            messages = await tail.batch(max_count=tail.owed, wait_s=READ_STALL_S)
            if not messages and not tail.caught_up:
                msg = f"{stream}: reading stalled at {tail.seq}, {tail.owed} messages to go"
                raise UnavailableError(msg)
            for stored in messages:
                if stored.seq > int(state["last_seq"]):
                    return
                yield stored
    finally:
        tail.abandon()
