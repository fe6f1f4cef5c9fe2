"""Submit, watch, control: the same messages that anybody may publish, with identities and outcomes taken care of."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, NamedTuple

from headrace.client.differences import Differences, compare
from headrace.client.explain import explain
from headrace.client.history import RunView
from headrace.client.reasons import REASONS_MAX, Reason
from headrace.client.schedules import ScheduleRow, deployed
from headrace.client.values import resolve
from headrace.contracts import codec, ids, names, subjects
from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts.envelope import SPECVERSION, Value
from headrace.contracts.errors import (
    CorruptError,
    NotFoundError,
    RetryableError,
    TerminalError,
    TooLargeError,
    UnknownOutcomeError,
)
from headrace.contracts.failure import Failure
from headrace.pipeline.bundle import Bundle
from headrace.pipeline.compile import compile_plan
from headrace.pipeline.plan import Plan
from headrace.runtime import blobs
from headrace.runtime.clock import Clock, rfc3339
from headrace.runtime.entropy import Entropy
from headrace.runtime.eventlog import Broker, BusMessage, Stored

OUTCOME_WITHIN_S: Final = 30.0
"""A living scheduler answers within milliseconds, another one within 5 s of its death; a broker restarts in 10."""
LOOK_EVERY_S: Final = 1.0
"""The outcome is heard as it is written; where that was missed it is read."""
BATCH: Final = 256
CONFIGURED: Final = frozenset({"provider_missing", "queue_unserved", "secret_missing"})
"""Reasons that only a change of the configuration takes away."""


class Change(NamedTuple):
    """A message of a run as it was read, and the events that are news by it."""

    stored: Stored
    message: ev.StoredMessage
    events: list[ev.DecisionEvent]


class CommandRefusedError(TerminalError):
    """A command changed nothing. `reasons` has every reason. Exit code 65, 75 where trying later may help, 78 where
    the cluster is not configured for it."""

    code = "refused"

    def __init__(self, reasons: tuple[Failure, ...]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(f"{reason.code}: {reason.message}" for reason in reasons))

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # the class has one number, a refusal one of three
        """See HeadraceError."""
        if any(reason.code in CONFIGURED for reason in self.reasons):
            return names.EXIT_CONFIG
        later = bool(self.reasons) and all(reason.retryable for reason in self.reasons)
        return names.EXIT_TRY_LATER if later else names.EXIT_DATA


class UnansweredError(RetryableError):
    """The command is durable and nobody has answered yet; it will be carried out when a scheduler runs."""

    code = "unanswered"


class Client:
    """A user's view of the engine over one broker connection.

    Args:
        run_streams: Number of run streams, as fixed when they were made.
    """

    def __init__(self, broker: Broker, *, tenant: str, clock: Clock, entropy: Entropy, run_streams: int = 1) -> None:
        self._broker, self.tenant, self._clock, self._entropy = broker, tenant, clock, entropy
        self._run_streams = run_streams
        self.source = f"/client/{entropy.bits(32):08x}"

    def new_id(self) -> str:
        """A ULID: sorts by time, fits a subject."""
        return ids.ulid(self._clock.now_ms(), self._entropy.bits(80))

    # --- commands --------------------------------------------------------------------------------------------------

    async def put_definition(self, bundle: Bundle, *, arm: bool = False) -> str:
        """Store and register a definition with its child files; gives its digest. Doing it again changes nothing."""
        for data in (*bundle.children.values(), bundle.data):
            await blobs.put(self._broker, self.tenant, subjects.DEFINITION_ROOT, data)
        asked = cmd.PutDefinition(pipeline=bundle.plan.pipeline, digest=bundle.digest, arm=arm)
        await self._command("definition-put", cmd.DefinitionPut, asked)
        return bundle.digest

    async def start(
        self, pipeline: str, inputs: Mapping[str, Any], *, runid: str = "", labels: Mapping[str, str] | None = None
    ) -> str:
        """Start a run of `name` or `name@digest`; gives its id once the start is durable and accepted.

        Raises:
            CommandRefusedError: with every reason. UnansweredError: starting again with the same `runid` is the same
            start.
        """
        asked = cmd.StartRun(pipeline=pipeline, inputs=dict(inputs), runid=runid, labels=dict(labels or {}))
        return (await self._command("run-start", cmd.RunStart, asked)).runid

    async def cancel(self, runid: str, *, reason: str = "") -> None:
        """Ask for a run's end. Raises CommandRefusedError: unknown, or ended already."""
        await self._command("run-cancel", cmd.RunCancel, cmd.NameRun(runid=runid, reason=reason))

    async def pause(self, runid: str, *, reason: str = "") -> None:
        """Let steps in flight finish and start nothing new. Raises as `cancel`."""
        await self._command("run-pause", cmd.RunPause, cmd.NameRun(runid=runid, reason=reason))

    async def resume(self, runid: str, *, reason: str = "") -> None:
        """Go on with a paused run. Raises as `cancel`."""
        await self._command("run-resume", cmd.RunResume, cmd.NameRun(runid=runid, reason=reason))

    async def retire(self, pipeline: str, *, reason: str = "") -> None:
        """Take a pipeline back: its triggers are disarmed, a start by name finds nothing. Its runs go on.

        Raises:
            CommandRefusedError: nothing of that name is registered.
        """
        asked = cmd.NamePipeline(pipeline=pipeline, reason=reason)
        await self._command("definition-retire", cmd.DefinitionRetire, asked)

    async def schedules(self) -> list[ScheduleRow]:
        """Every deployed schedule, by pipeline and number, and how it stands."""
        return await deployed(self._broker, self.tenant, run_streams=self._run_streams)

    async def pause_trigger(self, pipeline: str, trigger: int | None = None, *, reason: str = "") -> None:
        """Pause a pipeline's schedules, or the one of this number: what falls due meanwhile is passed over.

        Raises:
            CommandRefusedError: no such schedule is deployed.
        """
        asked = cmd.NameTrigger(pipeline=pipeline, trigger=trigger, reason=reason)
        await self._command("trigger-pause", cmd.TriggerPause, asked)

    async def resume_trigger(self, pipeline: str, trigger: int | None = None, *, reason: str = "") -> None:
        """Resume paused schedules. Raises as `pause_trigger`."""
        asked = cmd.NameTrigger(pipeline=pipeline, trigger=trigger, reason=reason)
        await self._command("trigger-resume", cmd.TriggerResume, asked)

    async def backfill_trigger(
        self, pipeline: str, trigger: int | None = None, *, from_ms: int, to_ms: int, reason: str = ""
    ) -> None:
        """Start the runs of due instants of the past, both ends included, that have none.

        Raises:
            CommandRefusedError: no such schedule, a span that is not of the past, or more than 1,000 instants in it.
        """
        asked = cmd.BackfillTrigger(pipeline=pipeline, trigger=trigger, from_ms=from_ms, to_ms=to_ms, reason=reason)
        await self._command("trigger-backfill", cmd.TriggerBackfill, asked)

    async def signal(self, runid: str, name: str, payload: Any = None) -> None:
        """Send a run a signal. One that comes before its step waits for it.

        Raises:
            CommandRefusedError: no such run, it has ended, it waits for no such signal, or the payload does not fit.
        """
        await self._command("run-signal", cmd.RunSignal, cmd.SignalRun(runid=runid, name=name, payload=payload))

    async def raise_budget(self, runid: str, *, usd_nanos: int = 0, tokens: int = 0, reason: str = "") -> None:
        """Allow a run to cost more: the budget that it waits for, else its own.

        Raises:
            CommandRefusedError: no such run, it has ended, or nothing of it has a budget.
        """
        asked = cmd.RaiseBudget(runid=runid, usd_nanos=usd_nanos, tokens=tokens, reason=reason)
        await self._command("budget-raise", cmd.BudgetRaise, asked)

    async def approve(
        self,
        runid: str,
        step: str,
        *,
        shown: str,
        by: str,
        decision: cmd.Answer = "approve",
        comment: str = "",
        value: Any = None,
    ) -> None:
        """Answer a step that asks a person; returns once the run has taken the answer, for good.

        Args:
            shown: The hash of what was shown to whoever answers, as the request in the run's history says it.
            decision: Of a call whose outcome is unknown `retry`, `fail` or `complete`, with the value that it gave.

        Raises:
            CommandRefusedError: no such run or step, it has ended, it does not ask (any more), somebody else has
                answered, what is asked has another hash, or somebody else is asked.
        """
        asked = cmd.ApproveRun(
            runid=runid, step=step, hash=shown, by=by, decision=decision, comment=comment, value=value
        )
        await self._command("run-approve", cmd.RunApprove, asked)

    async def rerun(self, runid: str, step: str, *, newid: str = "") -> str:
        """Start a run of the same definition and inputs that takes over whatever does not depend on `step`.

        Raises:
            CommandRefusedError: no such run or step, what comes before it cannot be shared (every reason is there), or
            `newid` belongs to another start.
        """
        asked = cmd.RerunRun(runid=runid, step=step, newid=newid)
        return (await self._command("run-rerun", cmd.RunRerun, asked)).runid

    async def fork(
        self, runid: str, step: str, inputs: Mapping[str, Any], *, definition: str = "", newid: str = ""
    ) -> str:
        """Start a run that shares what came before `step`, with these inputs changed and, if given, another definition
        (`name@digest`) of the same pipeline. Raises as `rerun`, and when the inputs do not fit."""
        asked = cmd.ForkRun(runid=runid, step=step, inputs=dict(inputs), definition=definition, newid=newid)
        return (await self._command("run-fork", cmd.RunFork, asked)).runid

    async def _command(self, verb: str, kind: type[cmd.Command], data: Any) -> ev.Accepted:
        """Send one command and wait for its outcome. Publishing again under one id is the same command."""
        command_id = self.new_id()
        message = kind(
            specversion=SPECVERSION,
            id=command_id,
            source=self.source,
            time=rfc3339(self._clock.now_ms()),
            schemaver=1,
            tenant=self.tenant,
            traceparent=f"00-{self._entropy.bits(128):032x}-{self._entropy.bits(64):016x}-01",
            data=data,
        )
        body = codec.encode(message)
        if len(body) > names.COMMAND_BYTES_MAX:
            msg = f"a command of {len(body)} bytes; at most {names.COMMAND_BYTES_MAX}: pass large data as a file"
            raise TooLargeError(msg)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def hear(answer: BusMessage) -> None:
            if not answered.done():
                answered.set_result(answer.body)

        subject = subjects.outcome(self.tenant, command_id)
        heard = await self._broker.subscribe(subject, hear)
        try:
            await self._publish(subjects.command(self.tenant, verb), body, command_id)
            outcome = codec.decode(await self._answer(subject, answered))
        finally:
            await heard.stop()
        match outcome:
            case ev.CommandAccepted():
                return outcome.data
            case ev.CommandRefused():
                raise CommandRefusedError(outcome.data.reasons)
        msg = f"{subject} holds a {type(outcome).__name__}"
        raise CorruptError(msg)

    async def _publish(self, subject: str, body: bytes, command_id: str) -> None:
        try:
            await self._broker.append(subject, body, msg_id=command_id)
        except UnknownOutcomeError:  # it may be stored: once more, under the same id
            await self._broker.append(subject, body, msg_id=command_id)

    async def _answer(self, subject: str, answered: "asyncio.Future[bytes]") -> bytes:
        """The outcome as heard live, or as stored where it was missed."""
        until_s = self._clock.monotonic_s() + OUTCOME_WITHIN_S
        while True:
            done, _ = await asyncio.wait((answered,), timeout=LOOK_EVERY_S)
            if done:
                return answered.result()
            stored = await self._broker.last(subjects.OUTCOMES, subject)
            if stored is not None:
                return stored.body
            if self._clock.monotonic_s() > until_s:
                msg = f"no scheduler answered within {OUTCOME_WITHIN_S:g} s; the command is stored and will be obeyed"
                raise UnansweredError(msg)

    # --- reading ---------------------------------------------------------------------------------------------------

    async def events(
        self, runid: str, *, follow: bool = False, start_seq: int = 1
    ) -> AsyncGenerator[tuple[Stored, ev.StoredMessage], None]:
        """Every message of a run, in order; with `follow` the end comes with the end of the run.

        Reading goes on over reconnects and restarts of the broker, from the sequence it had reached.

        Raises:
            NotFoundError: there is no such run.
        """
        stream, found = self._stream_of(runid), False
        scope = subjects.run_filter(runid, tenant=self.tenant)
        if not follow or await self._broker.last(stream, scope) is None:
            async for stored in self._broker.read(stream, (scope,), start_seq=start_seq):
                found = True
                yield stored, codec.decode(stored.body)
            if not found:
                raise _unknown(runid)
            return
        async with aclosing(self.follow(RunView(runid), start_seq=start_seq)) as changes:
            async for change in changes:
                yield change.stored, change.message

    async def view(self, runid: str) -> RunView:
        """The run as it stands. Raises NotFoundError: there is no such run."""
        view = RunView(runid)
        async for stored, message in self.events(runid):
            view.take(message, seq=stored.seq)
        return view

    async def follow(self, view: RunView, *, start_seq: int = 0) -> AsyncGenerator[Change, None]:
        """What comes after a view, folded into it, until the run has ended. Goes on over restarts of the broker.

        Args:
            start_seq: Begin there instead, to see old messages as well; the view must not have read them.
        """
        if view.ended:
            return
        scope = subjects.run_filter(view.run, tenant=self.tenant)
        tail = await self._broker.tail(self._stream_of(view.run), (scope,), start_seq=start_seq or view.seq + 1)
        try:
            while not view.ended:
                for stored in await tail.batch(max_count=BATCH, wait_s=LOOK_EVERY_S):
                    message = codec.decode(stored.body)
                    yield Change(stored, message, view.take(message, seq=stored.seq))
        finally:
            await tail.stop()

    async def result(self, runid: str) -> RunView:
        """Wait for the run's end, however long that takes: its own deadline bounds it. Raises NotFoundError."""
        view = await self.view(runid)
        async for _ in self.follow(view):
            pass
        return view

    async def explain(self, runid: str, step: str = "", *, served: Collection[str] | None = None) -> list[Reason]:
        """Why a run, or a step of it, stands where it stands, and the same of the child runs that it waits for.

        Args:
            served: Queues that executors are known to serve; None when nobody was asked.

        Raises:
            NotFoundError: there is no such run, or its pipeline has no such step.
        """
        told: list[Reason] = []
        pending: deque[tuple[str, str]] = deque([(runid, step)])
        while pending and len(told) < REASONS_MAX:
            run, about = pending.popleft()
            history = await self._history(run)
            plan = await self._plan(history)
            reasons = explain(history, plan, step=about, now_ms=self._clock.now_ms(), served=served)
            told += reasons if run == runid else [replace(reason, run=reason.run or run) for reason in reasons]
            pending += [(reason.run, "") for reason in reasons if reason.code == "child"]
        return told

    async def differences(self, runid: str, other: str) -> Differences:
        """What differs between two runs. Raises NotFoundError: there is no such run."""
        return compare(await self._history(runid), await self._history(other))

    async def _history(self, runid: str) -> list[tuple[int, ev.StoredMessage]]:
        return [(stored.seq, message) async for stored, message in self.events(runid)]

    async def plan_of(self, runid: str) -> Plan:
        """The plan that a run is bound to. Raises NotFoundError: there is no such run."""
        return await self._plan(await self._history(runid))

    async def _plan(self, history: list[tuple[int, ev.StoredMessage]]) -> Plan:
        digest = next(message.defdigest for _, message in history)
        data = await blobs.get(
            self._broker, self.tenant, f"{subjects.DEFINITION_ROOT}/{digest}", size_max=names.VALUE_BYTES_MAX
        )
        return compile_plan(data)

    async def value(self, value: Value) -> Any:
        """The JSON value, wherever it is held. Raises NotFoundError, CorruptError."""
        return await resolve(self._broker, self.tenant, value)

    def _stream_of(self, runid: str) -> str:
        if not ids.RUN_RE.fullmatch(runid):
            raise _unknown(runid)
        return subjects.runs_stream(ids.partition_of(runid), streams=self._run_streams)


def _unknown(runid: str) -> NotFoundError:
    return NotFoundError(f"no run {runid[:100]!r}")
