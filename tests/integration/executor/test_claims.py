"""At most once: claimed before the call, by whoever holds the token, and unknown when nobody can tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.contracts import codec, events, subjects
from headrace.contracts.errors import UnavailableError, UnknownOutcomeError
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Appended, EventLog, Expected
from headrace_step_executor.claims import claim
from headrace_step_executor.decide import Received, claim_subject, received_order
from headrace_step_executor.parts import Surroundings
from headrace_step_executor.tools.call import ToolCall
from tests.conftest import Connect, until
from tests.integration.executor.rig import STREAM, Rig, running

ONCE: dict[str, Any] = {"tool": "effect", "input": {}, "effect": "at_most_once"}


class Ledger:
    """The outside world: every call that reached it."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.calls: list[tuple[str, int]] = []
        self._fail = fail

    async def effect(self, call: ToolCall) -> Any:
        """It happened; then it may go wrong."""
        self.calls.append((call.key, call.attempt))
        if self._fail is not None:
            raise self._fail
        return {"done": True}

    @property
    def around(self) -> Surroundings:
        """For the executor."""
        return Surroundings(tools={"effect": self.effect})


def as_received(order: events.StepOrdered) -> Received:
    prefix = subjects.run_prefix(order.tenant, order.pipeline, order.runid)
    return received_order(order, subjects.order(prefix, "tool"), stored_ms=0, seq=1, stream=STREAM, deliveries=1)


async def foreign_claim(rig: Rig, order: events.StepOrdered) -> int:
    """Another executor's claim of the same call; its sequence."""
    assert await claim(rig.broker, as_received(order), executor="other", token="t-other", clock=rig.clock)
    last = await rig.broker.last(STREAM, claim_subject(as_received(order)))
    assert last is not None
    return last.seq


async def test_a_call_is_claimed_before_it_is_made(connect_broker: Connect, tmp_path: Path) -> None:
    """The claim stands in the log before the report, with the executor's name; the call happened once."""
    ledger = Ledger()
    async with running(connect_broker, tmp_path, around=ledger.around) as rig:
        order = rig.order(**ONCE)
        await rig.publish(order)
        await rig.report()
        stored = [message async for message in rig.broker.read(STREAM, ["hr.evt.*.*.*.r1.report.>"])]
        kinds = [codec.decode(message.body) for message in stored]
        assert [type(message) for message in kinds] == [events.AttemptStarted, events.AttemptSucceeded]
        assert isinstance(kinds[0], events.AttemptStarted)
        assert (kinds[0].data.executor, stored[0].subject) == (
            "executor-1",
            claim_subject(as_received(order)),
        )
        assert ledger.calls == [("r1/a", 1)]


async def test_a_call_that_somebody_else_holds_is_let_go(connect_broker: Connect, tmp_path: Path) -> None:
    """No call, no report; the order is acknowledged, for the owner alone says what became of the other."""
    ledger = Ledger()
    async with running(connect_broker, tmp_path, around=ledger.around) as rig:
        order = rig.order(**ONCE)
        seq = await foreign_claim(rig, order)
        await rig.publish(order)
        await rig.queue_is_empty()
        assert (ledger.calls, await rig.reports()) == ([], [])
        await rig.publish(rig.order(**ONCE, attempt=2, claim_seq=seq))
        report = await rig.report()
        assert (report.attempt, ledger.calls) == (2, [("r1/a", 2)])


async def test_an_error_after_which_nobody_knows_is_reported_as_unknown(
    connect_broker: Connect, tmp_path: Path
) -> None:
    """A crash in the middle of the call is `outcome_unknown`; it is retried only where the step says so."""
    ledger = Ledger(fail=ConnectionResetError("gone"))
    async with running(connect_broker, tmp_path, around=ledger.around) as rig:
        failure = await rig.failure(**ONCE)
        assert (failure.code, failure.retryable) == ("outcome_unknown", False)
        again = await rig.failure(run="r2", **ONCE, on_unknown="retry")
        assert (again.code, again.retryable) == ("outcome_unknown", True)
        refused = await rig.failure(run="r3", **(ONCE | {"tool": "text.split"}))
        assert refused.code == "tool_args_invalid"


class Lossy:
    """A log whose first answers are lost: what was sent is stored, or not, and nobody says which."""

    def __init__(self, inner: EventLog, plan: list[str]) -> None:
        self._inner, self._plan = inner, plan
        self.appends = 0

    async def append(
        self, subject: str, body: bytes, *, msg_id: str = "", expected: Expected | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Appended:  # fmt: skip
        self.appends += 1
        fault = self._plan.pop(0) if self._plan else ""
        if fault in ("", "stored"):
            done = await self._inner.append(subject, body, msg_id=msg_id, expected=expected, headers=headers)
            if not fault:
                return done
        if fault == "away":
            text = "not connected"
            raise UnavailableError(text)
        raise UnknownOutcomeError(subject)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize("plan", [["stored"], ["lost"], ["lost", "stored"], ["away", "away"]])
async def test_a_claim_of_unknown_outcome_is_read_back(
    connect_broker: Connect, tmp_path: Path, plan: list[str]
) -> None:
    """Stored without an answer, or never stored: in the end we hold it, and there is one claim."""
    async with running(connect_broker, tmp_path) as rig:
        received = as_received(rig.order(**ONCE))
        lossy: Any = Lossy(rig.broker, list(plan))
        assert await claim(lossy, received, executor="me", token="t-me", clock=SystemClock())
        claims = [stored async for stored in rig.broker.read(STREAM, [claim_subject(received)])]
        assert len(claims) == 1


async def test_a_claim_of_unknown_outcome_may_have_been_overtaken(connect_broker: Connect, tmp_path: Path) -> None:
    """Our publish was lost and another one's arrived: we let go."""
    async with running(connect_broker, tmp_path) as rig:
        order = rig.order(**ONCE)
        await foreign_claim(rig, order)
        lossy: Any = Lossy(rig.broker, ["lost"])
        assert not await claim(lossy, as_received(order), executor="me", token="t-me", clock=SystemClock())


async def test_reports_are_offered_again_under_the_same_id(connect_broker: Connect, tmp_path: Path) -> None:
    """A broker that is away for a second while the result is ready: one report, nothing lost, nothing twice."""
    ledger = Ledger()
    async with running(connect_broker, tmp_path, around=ledger.around) as rig:
        executor_log: Any = Lossy(rig.executor._broker, ["away", "stored", "lost"])
        rig.executor._broker = executor_log
        await rig.publish(rig.order(tool="effect", input={}))
        await rig.queue_is_empty()
        await until(lambda: executor_log.appends >= 4)
        assert (len(await rig.reports()), len(ledger.calls)) == (1, 1)
