"""`run-approve`: a person's answer, checked against what the run asks, stored once, and followed until it is taken."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts import subjects
from headrace.contracts.codec import decode
from headrace.contracts.envelope import Value
from headrace.contracts.errors import AppendConflictError, ConflictError, RetryableError
from headrace.runtime.clock import Clock
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.eventlog import Broker, Expected, Stored
from headrace_scheduler import messages
from headrace_scheduler.answering import ExpiredError, Question, check
from headrace_scheduler.plans import Plans

log = logging.getLogger("headrace.scheduler")

TAKEN_WITHIN_S: Final = 2.0
"""A living owner takes an answer within milliseconds; where it is dead, the command is handed back and looked at again
until the next owner has."""
LOOK_EVERY_S: Final = 0.02

Find = Callable[[str, str], Awaitable[tuple[str, Stored, messages.Target]]]
"""The stream of a run, its last decision, and whose it is."""

Store = Callable[[str, str, Any], Awaitable[Value]]
"""(tenant, run, JSON value) → the value, stored where it is large."""


class NotTakenError(RetryableError):
    """An answer is stored, and the owner of the run has not read it yet."""

    code = "answer_not_taken"


class ApprovalIntake:
    """Handles what people answer."""

    def __init__(self, broker: Broker, *, clock: Clock, plans: Plans, source: str, find: Find, store: Store) -> None:
        self._broker, self._clock, self._plans, self._source = broker, clock, plans, source
        self._find, self._store = find, store

    async def answer(self, command: cmd.RunApprove) -> ev.Accepted:
        """Store the answer and see it taken. The same command again is told the same.

        Raises:
            TerminalError: it is refused, see `answering.check`; or the run has ended.
            NotTakenError: stored, and not known yet whether in time.
        """
        data = command.data
        stream, last, target = await self._find(command.tenant, data.runid)
        decided = decode(last.body)
        assert isinstance(decided, ev.RunDecided)  # of its subject
        plan = await self._plans.get(command.tenant, decided.defdigest)
        now_ms = self._clock.now_ms()
        question = Question(data.step)
        seq = await self._read(stream, target, question, 0)
        given = ev.GivenAnswer(
            step=data.step,
            hash=data.hash,
            decision=data.decision,
            by=data.by,
            at_ms=now_ms,
            comment=data.comment,
            attempt=question.attempt,
            value=await self._store(command.tenant, data.runid, data.value) if data.decision == "complete" else None,
        )
        outgoing = messages.approval_given(target, given, cause=command.id, source=self._source)
        if question.answer is None or question.answer.id != outgoing.id:
            _check_run(target.run, question)
            check(plan, question, data, now_ms=now_ms)
            try:
                expected = Expected(0, outgoing.subject)
                await self._broker.append(outgoing.subject, outgoing.body, msg_id=outgoing.id, expected=expected)
            except AppendConflictError:
                log.info("answer.conflict", extra={"run_id": target.run, "command": command.id})
            crashpoint("answer_stored_before_taken")
        await self._see_taken(stream, target, question, seq)
        if question.answer is None or question.answer.id != outgoing.id:
            check(plan, question, data, now_ms=now_ms)
            message = f"an answer to `{data.step}` of run {target.run} is not in the log yet"
            raise NotTakenError(message)
        if question.state != "taken":
            _check_run(target.run, question)
            message = f"`{data.step}`: the question ended before the answer came"
            raise ExpiredError(message)
        return ev.Accepted(command=command.id, runid=target.run)

    async def _read(self, stream: str, target: messages.Target, question: Question, seq: int) -> int:
        """Read the run's history on from after `seq`; gives how far."""
        scope = subjects.run_filter(target.run, tenant=target.tenant)
        async for stored in self._broker.read(stream, (scope,), start_seq=seq + 1):
            seq = stored.seq
            question.take(decode(stored.body))
        return seq

    async def _see_taken(self, stream: str, target: messages.Target, question: Question, seq: int) -> None:
        until_s = self._clock.monotonic_s() + TAKEN_WITHIN_S
        while True:
            seq = await self._read(stream, target, question, seq)
            if question.state != "open":
                return
            if self._clock.monotonic_s() > until_s:
                message = f"the answer to `{question.step}` of run {target.run} is stored and not taken yet"
                raise NotTakenError(message)
            await self._clock.sleep(LOOK_EVERY_S)


def _check_run(run: str, question: Question) -> None:
    if question.ended:
        message = f"run {run} is {question.ended}"
        raise ConflictError(message)
