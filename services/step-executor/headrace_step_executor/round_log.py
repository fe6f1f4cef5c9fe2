"""The rounds of a model's loop in the log: read when the loop begins, written one by one.

Two executors may be at it at once, when one was thought dead: each write is checked against the last one, and whoever
comes second takes what the first has written for its own.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from headrace.contracts import codec, ids, rounds, subjects
from headrace.contracts.canonical import blake2b_hex
from headrace.contracts.codec import encode_value
from headrace.contracts.errors import AppendConflictError, UnavailableError, UnknownOutcomeError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import EventLog, Expected
from headrace_step_executor.decide import Received, report_envelope

log = logging.getLogger("headrace.executor")

LOOK_AGAIN_S: Final = 0.25
"""Between two looks while the broker cannot say whether a round is stored. The attempt's deadline ends them."""
_TURNED: Final = "io.headrace.turn.completed.v1"
_BEGUN: Final = "io.headrace.tool.started.v1"
_CALLED: Final = "io.headrace.tool.completed.v1"
Place = tuple[int, int]
"""(round, call)."""


class RoundLog:
    """What is known of one loop.

    Args:
        start: Hash of what the loop begins with; rounds of another beginning are passed over.
        source: Of what this process writes.
        hide: Takes out of a body what nobody may read.
    """

    def __init__(
        self,
        eventlog: EventLog,
        received: Received,
        *,
        start: str,
        source: str,
        clock: Clock,
        hide: Callable[[Any], Any],
    ) -> None:
        self._log, self._received, self._clock, self._source = eventlog, received, clock, source
        self._hide = hide
        self.start = start
        self._subject = subjects.rounds(received.prefix, blake2b_hex(received.order.path.encode()))
        self._seq = 0
        self.turns: dict[int, rounds.TurnCompleted] = {}
        self.calls: dict[Place, rounds.Called] = {}
        self.begun: set[Place] = set()

    async def load(self) -> None:
        """Read what there is. Raises UnavailableError."""
        if await self._log.last(self._received.stream, self._subject) is not None:
            await self._read_on()

    async def _read_on(self) -> None:
        async for stored in self._log.read(self._received.stream, (self._subject,), start_seq=self._seq + 1):
            self._seq = stored.seq
            message = codec.decode(stored.body)
            assert isinstance(message, rounds.RoundMessage), self._subject
            self._take(message)

    def _take(self, message: rounds.RoundMessage) -> None:
        """The first of each counts; another cannot be written."""
        data = message.data
        if message.stepid != self._received.order.path or data.start != self.start:
            return
        match message:
            case rounds.TurnCompleted():
                self.turns.setdefault(message.data.round, message)
            case rounds.ToolStarted():
                self.begun.add((message.data.round, message.data.call))
            case rounds.ToolCompleted():
                self.calls.setdefault((message.data.round, message.data.call), message.data)

    async def turned(self, data: rounds.Turned) -> bool:
        """Store a turn. False when there is one of this round by now, which counts instead."""
        return await self._add(rounds.TurnCompleted, _TURNED, data, lambda: data.round in self.turns)

    async def began(self, data: rounds.Begun) -> bool:
        """Store that a call begins. False when somebody else had begun it before."""
        place = (data.round, data.call)
        return await self._add(rounds.ToolStarted, _BEGUN, data, lambda: place in self.begun)

    async def called(self, data: rounds.Called) -> None:
        """Store what came of a call, unless that is known by now."""
        place = (data.round, data.call)
        await self._add(rounds.ToolCompleted, _CALLED, data, lambda: place in self.calls)

    async def _add(self, kind: Any, tag: str, data: Any, known: Any) -> bool:
        """Return when it is stored; True when it is ours."""
        order, cause, data = self._received.order, self._received.message, self._hide(data)
        fields = report_envelope(self._received, tag, data, source=self._source, now_ms=self._clock.now_ms())
        fields["id"] = ids.event_id(
            tag, cause.tenant, cause.runid, order.path, order.attempt, order.offer, data=encode_value(data)
        )
        message = kind(**fields, data=data)
        body = codec.encode(message)
        while not known():
            try:
                expected = Expected(self._seq, self._subject)
                done = await self._log.append(self._subject, body, msg_id=message.id, expected=expected)
            except AppendConflictError:
                await self._look()
            except (UnknownOutcomeError, UnavailableError) as error:
                log.warning("round.not_stored", extra={"subject": self._subject, "why": str(error)})
                await self._clock.sleep(LOOK_AGAIN_S)
                await self._look()
            else:
                self._seq = done.seq
                self._take(message)
                return True
        return False

    async def _look(self) -> None:
        try:
            await self._read_on()
        except UnavailableError as error:
            log.warning("round.not_read", extra={"subject": self._subject, "why": str(error)})
            await self._clock.sleep(LOOK_AGAIN_S)
