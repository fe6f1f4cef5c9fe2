"""Appends in flight: one inbox for acknowledgements, one future an append, one timer for all that stay unanswered."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from headrace.contracts import names
from headrace.contracts.errors import (
    AppendConflictError,
    DataError,
    DeniedError,
    HeadraceError,
    UnavailableError,
    UnknownOutcomeError,
)
from headrace.runtime import jetstream_wire as wire
from headrace.runtime.eventlog import Appended, Expected
from headrace.runtime.jetstream_link import Link, header_block
from headrace.runtime.subject_filters import check_subject

IN_FLIGHT_MAX: Final = 4096
"""Sixteen times what saturates the server; more only lengthens the wait for the last one."""
IN_FLIGHT_BYTES_MAX: Final = 32 * 1024 * 1024


class _Ack(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: wire.ApiError | None = None


class _InFlight(NamedTuple):
    future: asyncio.Future[Appended]
    subject: str
    expected: Expected | None
    deadline_s: float
    size: int


_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_NO_FIELDS: Final = header_block({})
_decode_ack = msgspec.json.Decoder(_Ack).decode


class Publisher:
    """Sends appends in call order and settles their futures, each exactly once and within the deadline."""

    def __init__(self, link: Link, *, deadline_s: float = names.PUBLISH_DEADLINE_S) -> None:
        self._link, self._deadline_s = link, deadline_s
        self._loop = asyncio.get_running_loop()
        self._flying: dict[bytes, _InFlight] = {}
        self._flying_bytes = 0
        self._count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._reaper: asyncio.TimerHandle | None = None
        self._inbox = link.new_inbox() + "."
        self._sid = link.listen(self._inbox + "*", self._on_ack)
        link.attach(self)
        link.on_denied = self._on_denied

    @property
    def in_flight(self) -> int:
        """Appends whose outcome is open."""
        return len(self._flying)

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        msg_id: str,
        expected: Expected | None,
        headers: Mapping[str, str] | None,
    ) -> asyncio.Future[Appended]:
        """See EventLog.publish."""
        check_subject(subject)
        block = _headers(msg_id, expected, headers)
        size = len(block) + len(body)
        if size > self._link.payload_bytes_max:
            msg = f"{subject}: {size} bytes with headers; the broker takes {self._link.payload_bytes_max}"
            raise DataError(msg)
        if self._waiting or not self._has_room(size):
            await self._wait_for_room(size)
        self._count += 1
        token = b"%d" % self._count
        self._link.send(subject, body, reply=self._inbox + token.decode(), headers=block)
        future: asyncio.Future[Appended] = self._loop.create_future()
        deadline_s = self._loop.time() + self._deadline_s
        self._flying[token] = _InFlight(future, subject, expected, deadline_s, size)
        self._flying_bytes += size
        if self._reaper is None:
            self._reaper = self._loop.call_at(deadline_s, self._reap)
        return future

    def close(self) -> None:
        """Everything in flight becomes unknown."""
        self._link.detach(self)
        self._link.forget(self._sid)
        self.link_down()
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None

    def link_down(self) -> None:
        """No acknowledgement will come on this connection, so nobody should wait for the deadline."""
        for token in tuple(self._flying):
            self._unknown(token)

    def link_up(self) -> None:
        """Nothing is sent again here: only the caller knows whether that is right."""

    def _has_room(self, size: int) -> bool:
        if not self._flying:
            return True
        return len(self._flying) < IN_FLIGHT_MAX and self._flying_bytes + size <= IN_FLIGHT_BYTES_MAX

    async def _wait_for_room(self, size: int) -> None:
        """First come, first served; whoever waits keeps its place until it has gone through."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._deadline_s + 1.0):  # the reaper makes room by the deadline
                while self._waiting[0] is not turn or not self._has_room(size):
                    await turn
                    turn_again: asyncio.Future[None] = self._loop.create_future()
                    self._waiting[self._waiting.index(turn)] = turn_again
                    turn = turn_again
        except TimeoutError as error:
            text = f"{len(self._flying)} appends are unanswered and no more may be sent"
            raise UnavailableError(text) from error
        finally:
            self._waiting.remove(turn)
            self._wake()

    def _wake(self) -> None:
        if self._waiting and not self._waiting[0].done():
            self._waiting[0].set_result(None)

    def _on_ack(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes) -> None:
        flying = self._land(subject[len(self._inbox) :])
        if flying is None or flying.future.done():
            return  # it was given up or cancelled
        if not data:
            status = wire.status_of(headers)[0]
            flying.future.set_exception(
                UnavailableError(f"{flying.subject}: no stream or no leader takes it (status {status})")
            )
            return
        ack = _decode_ack(data)
        if ack.error is None:
            flying.future.set_result(Appended(ack.seq, ack.duplicate))
        else:
            flying.future.set_exception(_refusal(flying, ack.error))

    def _on_denied(self, subject: str) -> None:
        for token, flying in tuple(self._flying.items()):
            if flying.subject.lower() == subject:
                self._land(token)
                if not flying.future.done():
                    error = DeniedError(f"{flying.subject}: the broker's permissions do not allow it")
                    flying.future.set_exception(error)

    def _land(self, token: bytes) -> _InFlight | None:
        flying = self._flying.pop(token, None)
        if flying is not None:
            self._flying_bytes -= flying.size
            self._wake()
        return flying

    def _unknown(self, token: bytes) -> None:
        flying = self._land(token)
        if flying is not None and not flying.future.done():
            flying.future.set_exception(UnknownOutcomeError(f"append to {flying.subject}"))

    def _reap(self) -> None:
        """Give up what is overdue. Deadlines are in sending order, so only the front needs a look."""
        self._reaper = None
        now_s = self._loop.time()
        while self._flying:
            token, oldest = next(iter(self._flying.items()))
            if oldest.deadline_s > now_s:
                self._reaper = self._loop.call_at(oldest.deadline_s, self._reap)
                return
            self._unknown(token)


def _headers(msg_id: str, expected: Expected | None, extra: Mapping[str, str] | None) -> bytes:
    """The header block; the two that nearly every append has are written without a detour through a mapping."""
    if not msg_id and expected is None and not extra:
        return b""
    own, lines = "", 0
    if msg_id:
        own, lines = f"Nats-Msg-Id: {msg_id}\r\n", 1
    if expected is not None:
        own += f"{_EXPECTED}: {expected.seq}\r\n{_EXPECTED}-Subject: {expected.subject}\r\n"
        lines += 2
    if own.count("\n") != lines or own.count("\r") != lines:
        msg = f"{msg_id!r} or {expected!r} has a line break"
        raise DataError(msg)
    block = header_block(extra) if extra else _NO_FIELDS
    return block[:-2] + own.encode() + b"\r\n"


def _refusal(flying: _InFlight, error: wire.ApiError) -> HeadraceError:
    if error.err_code in wire.WRONG_LAST and flying.expected is not None:
        return AppendConflictError(
            subject=flying.expected.subject,
            expected_seq=flying.expected.seq,
            found=error.description,
        )
    return wire.error_from(error, what=flying.subject)
