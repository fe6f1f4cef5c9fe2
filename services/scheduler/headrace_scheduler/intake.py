"""The way in: commands from anyone with permission, taken by any scheduler.

Each command is checked, its event appended, its outcome written, and only then is it acknowledged. A redelivery
finds the same identities and changes nothing. What is malformed is parked and, where it has an id, answered.
"""

import logging
from typing import Any, Final

import msgspec

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts import ids, names, pseudo, subjects
from headrace.contracts.canonical import blake2b_hex, canonical_json, sha256_hex
from headrace.contracts.codec import decode, decode_command, encode, encode_value
from headrace.contracts.envelope import SPECVERSION, Value
from headrace.contracts.errors import (
    AppendConflictError,
    ConflictError,
    CorruptError,
    DataError,
    ExpressionError,
    MalformedMessageError,
    NotFoundError,
    RetryableError,
    TerminalError,
    UnknownOutcomeError,
)
from headrace.contracts.failure import Failure
from headrace.pipeline.inputs import check_inputs, with_defaults
from headrace.pipeline.plan import Plan
from headrace.pipeline.pricing import unpriced
from headrace.runtime import blobs
from headrace.runtime.clock import Clock, rfc3339
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.eventlog import Broker, Delivery, Expected, Stored
from headrace.runtime.park import park
from headrace.runtime.probes import Admission
from headrace_scheduler import messages
from headrace_scheduler.approval_intake import ApprovalIntake
from headrace_scheduler.concurrency import key_text
from headrace_scheduler.definitions import Definitions
from headrace_scheduler.fork_intake import ForkIntake
from headrace_scheduler.refusal import RefusedError
from headrace_scheduler.schedule_intake import ScheduleIntake
from headrace_scheduler.serving import Served
from headrace_scheduler.signalling import TooManySignalsError, refusals

log = logging.getLogger("headrace.scheduler")

RETRY_S: Final = 1.0
CRASHES_MAX: Final = 3
"""A command that crashed its handler this often is parked."""
RAISE_MAX: Final = 10**15
"""A million dollars: what a budget may be in the first place."""
ENDS: Final = {"run-completed": "completed", "run-failed": "failed", "run-cancelled": "cancelled"}


class Intake:
    """Handles commands, one delivery a call; calls may run side by side."""

    def __init__(
        self,
        broker: Broker,
        *,
        clock: Clock,
        served: Served,
        definitions: Definitions,
        admission: Admission,
        source: str,
        run_streams: int,
        durability: str,
    ) -> None:
        self._broker, self._clock, self._served, self._definitions = broker, clock, served, definitions
        self._plans = served.plans
        self._admission, self._source, self._run_streams = admission, source, run_streams
        self._durability = durability
        self._forks = ForkIntake(
            self,
            broker,
            clock=clock,
            served=served,
            definitions=definitions,
            source=source,
            run_streams=run_streams,
            durability=durability,
        )
        self._schedules = ScheduleIntake(
            broker, clock=clock, definitions=definitions, source=source, run_streams=run_streams
        )
        self._approvals = ApprovalIntake(
            broker, clock=clock, plans=self._plans, source=source, find=self._run, store=self.store
        )

    async def handle(self, delivery: Delivery) -> None:
        """Carry a command out, or refuse it, or hand it back."""
        stored = delivery.stored
        try:
            command = self._decode(stored)
        except MalformedMessageError as error:
            await self._answer_malformed(stored, error, delivery.deliveries)
            await delivery.ack()
            return
        try:
            if await self._is_answered(command, delivery.deliveries):
                await delivery.ack()
                return
            outcome = await self._carry_out(command)
            await self._write_outcome(command.tenant, command.id, outcome)
        except (RetryableError, UnknownOutcomeError, TimeoutError) as error:
            log.warning("command.waits", extra={"command": command.id, "why": str(error)})
            await delivery.nak(delay_s=RETRY_S)
            return
        except Exception as error:
            if delivery.deliveries < CRASHES_MAX:
                await delivery.nak(delay_s=RETRY_S)
                raise
            failure = Failure(code="internal", message=f"{type(error).__name__}: {error}"[:2000])
            await self._park(stored, failure, delivery.deliveries)
            await self._write_outcome(command.tenant, command.id, self._refused(command.id, (failure,)))
            await delivery.ack()
            raise
        crashpoint("outcome_stored_before_ack")
        await delivery.ack()

    def _decode(self, stored: Stored) -> cmd.Command:
        tokens = stored.subject.split(".")
        if len(tokens) != 4:
            message = f"a command's subject is hr.cmd.<tenant>.<verb>, not {stored.subject}"
            raise MalformedMessageError(message)
        check_headers(stored)
        return decode_command(
            tokens[3], tokens[2], stored.body, dict(stored.headers), fallback_id=f"{stored.stream}-{stored.seq}"
        )

    async def _answer_malformed(self, stored: Stored, error: MalformedMessageError, deliveries: int) -> None:
        await self._park(stored, error.failure(), deliveries)
        command_id = _id_of(stored)
        tokens = stored.subject.split(".")
        if command_id and len(tokens) > 2 and ids.TENANT_RE.fullmatch(tokens[2]):
            await self._write_outcome(tokens[2], command_id, self._refused(command_id, (error.failure(),)))

    async def _park(self, stored: Stored, failure: Failure, deliveries: int) -> None:
        await park(
            self._broker,
            stored,
            failure,
            deliveries=deliveries,
            source=self._source,
            now_ms=self._clock.now_ms(),
        )

    # --- commands ----------------------------------------------------------------------------------

    async def _carry_out(self, command: cmd.Command) -> ev.Accepted | ev.Refused:
        try:
            match command:
                case cmd.RunStart():
                    return await self._start(command)
                case cmd.DefinitionPut():
                    return await self._put_definition(command)
                case cmd.RunCancel():
                    return await self._control(command, "cancel")
                case cmd.RunPause():
                    return await self._control(command, "pause")
                case cmd.RunResume():
                    return await self._control(command, "resume")
                case cmd.RunApprove():
                    return await self._approvals.answer(command)
                case cmd.BudgetRaise():
                    return await self._raise(command)
                case cmd.RunSignal():
                    return await self._signal(command)
                case cmd.RunRerun() | cmd.RunFork():
                    return await self._forks.carry_out(command)
                case cmd.DefinitionRetire():
                    return await self._schedules.retire(command)
                case cmd.TriggerPause() | cmd.TriggerResume() | cmd.TriggerBackfill():
                    return await self._schedules.ask(command)
        except RefusedError as error:
            return self._refused(command.id, error.reasons)
        except (TerminalError, ExpressionError) as error:
            return self._refused(command.id, (error.failure(),))

    def _refused(self, command_id: str, reasons: tuple[Failure, ...]) -> ev.Refused:
        log.info("command.refused", extra={"command": command_id, "codes": [reason.code for reason in reasons]})
        return ev.Refused(command=command_id, reasons=reasons)

    def admit(self, key: str, command: cmd.Command) -> str:
        """The id of a run that is to be started: the client's own key, or made from the command's id.

        Raises:
            RefusedError: there is no room for another run. DataError: the key does not fit.
        """
        overloaded = self._admission.refusal()
        if overloaded is not None:
            raise RefusedError((overloaded,))
        run_id = key or ids.run_id_of_command(command.id)
        if not ids.CLIENT_RUN_RE.fullmatch(run_id):
            message = f"run id {run_id[:80]!r}: 1 to 64 of A–Z, a–z, 0–9 and `-`"
            raise DataError(message)
        return run_id

    async def _start(self, command: cmd.RunStart) -> ev.Accepted | ev.Refused:
        data = command.data
        run_id = self.admit(data.runid, command)
        digest = await self._definitions.digest_of(command.tenant, data.pipeline)
        plan = await self._plans.get(command.tenant, digest)
        await self.create_run(
            plan, command, run_id=run_id, inputs=data.inputs, labels=data.labels, request=request_hash(command.data)
        )
        return ev.Accepted(command=command.id, runid=run_id)

    async def create_run(
        self,
        plan: Plan,
        cause: cmd.RunStart,
        *,
        run_id: str,
        inputs: dict[str, Any],
        labels: dict[str, str],
        request: str,
        event: dict[str, Any] | None = None,
        hops: int = 0,
    ) -> None:
        """Append the first decision of a run, once. `event` is what triggered it, `hops` how many events of
        runs led to it.

        Raises:
            RefusedError: the inputs do not fit, nobody could serve it, or a price is not known; every reason is there.
            ConflictError: `key_reused`, the id belongs to another start.
        """
        complete = with_defaults(plan, inputs)
        reasons = check_inputs(plan, complete)
        reasons += await self._served.refusals(cause.tenant, plan)
        reasons += [Failure(code="price_unknown", message=line) for line in unpriced(plan, self._plans.prices)]
        if reasons:
            raise RefusedError(tuple(reasons))
        now_ms = self._clock.now_ms()
        created = ev.RunCreated(
            defdigest=plan.digest,
            inputs=await self.store(cause.tenant, run_id, complete),
            tools=self._served.tool_versions.pins(cause.tenant, plan),
            deadline_ms=now_ms + plan.deadline_ms,
            request=request,
            labels=dict(plan.labels) | labels,
            traceparent=cause.traceparent,
            tracestate=cause.tracestate,
            durability=self._durability,
            event=None if event is None else await self.store(cause.tenant, run_id, event),
            hops=hops,
            key=key_text(plan, complete, event, now_ms=now_ms),
        )
        await self.create(
            messages.Creation(
                run=run_id,
                tenant=cause.tenant,
                pipeline=plan.pipeline,
                created=created,
                cause=cause.id,
                source=self._source,
                now_ms=now_ms,
                correlation=cause.correlationid or run_id,
            )
        )

    async def create(self, creation: messages.Creation) -> None:
        """Append the first decision of a run, once.

        Raises:
            ConflictError: `key_reused`, the id belongs to another start.
        """
        outgoing = messages.first_decision(creation)
        expected = Expected(0, subjects.creation_scope(creation.run))
        try:
            await self._broker.append(outgoing.subject, outgoing.body, msg_id=outgoing.id, expected=expected)
        except (AppendConflictError, UnknownOutcomeError):
            if not await self.is_started(creation.run, creation.created.request):
                raise

    async def is_started(self, run_id: str, request: str) -> bool:
        """True when somebody, perhaps we ourselves, has created the run for the same request.

        Raises:
            KeyReusedError: the id belongs to another start.
            CorruptError: the run has a history without its beginning.
        """
        stream, seq = subjects.runs_stream(ids.partition_of(run_id), streams=self._run_streams), 0
        async for stored in self._broker.read(stream, (subjects.creation_scope(run_id),)):
            seq, first = stored.seq, decode(stored.body)
            if isinstance(first, ev.RunDecided) and isinstance(first.data.events[0], ev.RunCreated):
                if first.data.events[0].request == request:
                    return True
                message = f"run id {run_id} belongs to another start; choose another, or leave it out"
                raise KeyReusedError(message)
        if seq:
            message = (
                f"run {run_id} has decisions up to {seq} in {stream} and no creation: a message of its log is lost"
            )
            raise CorruptError(message)
        return False

    async def store(self, tenant: str, run_id: str, value: Any) -> Value:
        """A value for a run's first decision or input: inline while small, else stored first."""
        data = encode_value(value)
        if len(data) <= names.INLINE_BYTES_MAX:
            return Value(json=msgspec.Raw(data))
        await blobs.put(self._broker, tenant, run_id, data)
        return Value(ref=subjects.blob_ref(run_id, sha256_hex(data)), size=len(data))

    async def _put_definition(self, command: cmd.DefinitionPut) -> ev.Accepted:
        data = command.data
        plan = await self._plans.get(command.tenant, data.digest)
        if plan.pipeline != data.pipeline:
            message = f"definition {data.digest} is pipeline `{plan.pipeline}`, not `{data.pipeline}`"
            raise DataError(message)
        kind = "io.headrace.definition.registered.v1"
        registered = ev.DefinitionRegistered(
            specversion=SPECVERSION,
            id=ids.event_id(kind, command.tenant, command.id, data.digest),
            source=self._source,
            time=rfc3339(self._clock.now_ms()),
            schemaver=1,
            tenant=command.tenant,
            pipeline=data.pipeline,
            causationid=command.id,
            correlationid=command.correlationid or command.id,
            traceparent=command.traceparent,
            defdigest=data.digest,
            data=_definition(plan, data, armed_ms=self._clock.now_ms()),
        )
        subject = subjects.definition(command.tenant, data.pipeline)
        await self._broker.append(subject, encode(registered), msg_id=registered.id)
        return ev.Accepted(command=command.id)

    async def _control(self, command: cmd.RunCancel | cmd.RunPause | cmd.RunResume, kind: str) -> ev.Accepted:
        stream, last, target = await self._run(command.tenant, command.data.runid)
        outgoing = messages.control(
            target,
            kind,
            cause=command.id,
            reason=command.data.reason,
            source=self._source,
            now_ms=self._clock.now_ms(),
        )
        return await self._tell(command, stream, last, outgoing)

    async def _raise(self, command: cmd.BudgetRaise) -> ev.Accepted:
        data = command.data
        stream, last, target = await self._run(command.tenant, data.runid)
        decided = decode(last.body)
        assert isinstance(decided, ev.RunDecided)  # of its subject
        plan = await self._plans.get(command.tenant, decided.defdigest)
        if plan.budget is None and all(node.budget is None for node in plan.nodes):
            message = f"pipeline `{plan.pipeline}` has no budget that could be raised"
            raise DataError(message)
        if not (
            0 <= data.usd_nanos <= RAISE_MAX and 0 <= data.tokens <= RAISE_MAX and data.usd_nanos + data.tokens > 0
        ):
            message = f"a budget is raised by 1 to {RAISE_MAX} billionths of a dollar or tokens"
            raise DataError(message)
        asked = ev.Raise(usd_nanos=data.usd_nanos, tokens=data.tokens, reason=data.reason)
        outgoing = messages.raise_requested(
            target, asked, cause=command.id, source=self._source, now_ms=self._clock.now_ms()
        )
        return await self._tell(command, stream, last, outgoing)

    async def _signal(self, command: cmd.RunSignal) -> ev.Accepted:
        data = command.data
        stream, last, target = await self._run(command.tenant, data.runid)
        decided = decode(last.body)
        assert isinstance(decided, ev.RunDecided)  # of its subject
        plan = await self._plans.get(command.tenant, decided.defdigest)
        reasons = refusals(plan, data.name, data.payload)
        if reasons:
            raise RefusedError(reasons)
        payload = await self.store(command.tenant, data.runid, data.payload)
        outgoing = messages.signal_received(
            target, data.name, payload, cause=command.id, source=self._source, now_ms=self._clock.now_ms()
        )
        sent = [stored async for stored in self._broker.read(stream, (outgoing.subject,))]
        if len(sent) >= names.SIGNALS_MAX and not await self._is_stored(stream, outgoing):
            message = f"run {data.runid} was sent {len(sent)} signals; at most {names.SIGNALS_MAX} are allowed"
            raise TooManySignalsError(message)
        return await self._tell(command, stream, last, outgoing)

    async def _run(self, tenant: str, run_id: str) -> tuple[str, Stored, messages.Target]:
        """The stream of a run, its last decision, and whose it is.

        Raises:
            NotFoundError: there is none in this tenant; whether another has it is not told.
        """
        if not ids.RUN_RE.fullmatch(run_id):
            message = f"no run {run_id[:80]!r}"
            raise NotFoundError(message)
        part = ids.partition_of(run_id)
        stream = subjects.runs_stream(part, streams=self._run_streams)
        last = await self._broker.last(stream, f"hr.evt.{tenant}.*.{part:02d}.{run_id}.decision.>")
        subject = None if last is None else subjects.parse_run_subject(last.subject)
        if last is None or subject is None:
            message = f"no run {run_id}"
            raise NotFoundError(message)
        return stream, last, messages.Target(tenant, subject.pipeline, run_id)

    async def _tell(self, command: cmd.Command, stream: str, last: Stored, outgoing: messages.Outgoing) -> ev.Accepted:
        """Append an input of a run that has not ended."""
        subject = subjects.parse_run_subject(last.subject)
        assert subject is not None, last.subject
        if subject.rest not in ENDS:
            await self._broker.append(outgoing.subject, outgoing.body, msg_id=outgoing.id)
        elif not await self._is_stored(stream, outgoing):
            message = f"run {subject.run} has ended: {ENDS[subject.rest]}"
            raise ConflictError(message)
        return ev.Accepted(command=command.id, runid=subject.run)

    async def _is_stored(self, stream: str, outgoing: messages.Outgoing) -> bool:
        """True when this very input is in the history: the command was accepted before, and is answered alike again."""
        async for stored in self._broker.read(stream, (outgoing.subject,)):
            if decode(stored.body).id == outgoing.id:
                return True
        return False

    async def _is_answered(self, command: cmd.Command, deliveries: int) -> bool:
        """True when the command has its answer: one command, one answer, though the world has moved on since. The first
        delivery of a start need not be looked up: starting twice is starting once."""
        if deliveries == 1 and isinstance(command, cmd.RunStart):
            return False
        subject = subjects.outcome(command.tenant, command.id)
        return await self._broker.last(subjects.OUTCOMES, subject) is not None

    # --- outcomes ----------------------------------------------------------------------------------

    async def _write_outcome(self, tenant: str, command_id: str, outcome: ev.Accepted | ev.Refused) -> None:
        cls: Any = ev.CommandAccepted if isinstance(outcome, ev.Accepted) else ev.CommandRefused
        message = cls(
            specversion=SPECVERSION,
            id=ids.event_id(cls.__struct_config__.tag, tenant, command_id, data=canonical_json(outcome)),
            source=self._source,
            time=rfc3339(self._clock.now_ms()),
            schemaver=1,
            tenant=tenant,
            causationid=command_id,
            correlationid=getattr(outcome, "runid", "") or command_id,
            data=outcome,
        )
        subject = subjects.outcome(tenant, command_id)
        try:
            await self._broker.append(subject, encode(message), msg_id=message.id, expected=Expected(0, subject))
        except AppendConflictError:  # one command, one answer: the first, also where two deliveries are handled at once
            log.info("command.answered_before", extra={"command": command_id})


class KeyReusedError(ConflictError):
    """An idempotency key was used before, for something else."""

    code = "key_reused"


def check_headers(stored: Stored) -> None:
    """Refuse headers that no client of ours writes.

    Raises:
        MalformedMessageError: they take more than HEADER_BYTES_MAX.
    """
    if stored.header_bytes > names.HEADER_BYTES_MAX:
        message = f"{stored.header_bytes} bytes of headers; at most {names.HEADER_BYTES_MAX} are read"
        raise MalformedMessageError(message)


def _definition(plan: Plan, data: cmd.PutDefinition, *, armed_ms: int) -> ev.Definition:
    if not data.arm:
        return ev.Definition(digest=data.digest, size=0)
    crons = tuple(pseudo.CronSpec(cron=one.cron, timezone=one.timezone, catch_up=one.catch_up) for one in plan.crons)
    return ev.Definition(digest=data.digest, size=0, armed=True, armed_ms=armed_ms, triggers=plan.triggers, crons=crons)


def request_hash(data: cmd.StartRun) -> str:
    """What makes two starts under one key the same start."""
    return blake2b_hex(canonical_json({"pipeline": data.pipeline, "inputs": data.inputs, "labels": data.labels}))


def _id_of(stored: Stored) -> str:
    """The id of a malformed command, where it can be seen: whoever sent it may be waiting under it."""
    try:
        raw = msgspec.json.decode(stored.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raw = None
    lower = {name.lower(): value for name, value in stored.headers.items()}
    found = (raw.get("id") if isinstance(raw, dict) else None) or lower.get("ce-id") or lower.get("nats-msg-id") or ""
    return found if isinstance(found, str) and 1 <= len(found) <= 128 else ""
