"""`run-rerun` and `run-fork`: a new run whose first decision says what it takes over from another one.

The other run is read and folded once; what it holds by reference is stored again for the new one, so that the new run's
history stands alone from its first message on.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts import ids, subjects
from headrace.contracts.canonical import blake2b_hex, canonical_json
from headrace.contracts.codec import decode
from headrace.contracts.envelope import Value
from headrace.contracts.errors import ConflictError, CorruptError, DataError, NotFoundError
from headrace.contracts.failure import Failure
from headrace.pipeline.inputs import check_inputs, with_defaults
from headrace.pipeline.plan import Plan
from headrace.pipeline.pricing import unpriced
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Broker
from headrace_scheduler import messages
from headrace_scheduler.adopting import adopted, bytes_of, fitting, owned
from headrace_scheduler.concurrency import key_text
from headrace_scheduler.damage import doubt
from headrace_scheduler.definitions import Definitions
from headrace_scheduler.forking import Fork, taken_over
from headrace_scheduler.records import Run
from headrace_scheduler.refusal import RefusedError
from headrace_scheduler.serving import Served
from headrace_scheduler.state import created, evolve

if TYPE_CHECKING:  # the intake makes this part of itself; naming its type back is no dependency
    from headrace_scheduler.intake import Intake


class ForkIntake:
    """Carries the two commands out, for the intake that it is part of."""

    def __init__(
        self,
        intake: "Intake",
        broker: Broker,
        *,
        clock: Clock,
        served: Served,
        definitions: Definitions,
        source: str,
        run_streams: int,
        durability: str,
    ) -> None:
        self._intake, self._broker, self._clock = intake, broker, clock
        self._plans, self._served, self._definitions = served.plans, served, definitions
        self._source, self._run_streams, self._durability = source, run_streams, durability

    async def carry_out(self, command: cmd.RunRerun | cmd.RunFork) -> ev.Accepted:
        """Start the new run, once.

        Raises:
            NotFoundError: no such run, step or definition. ConflictError: the run is none that can be forked, or the
            new run's id belongs to another start. RefusedError: with every reason. DataError, TooLargeError: see there.
        """
        data = command.data
        run_id = self._intake.admit(data.newid, command)
        request = _request_hash(command)
        accepted = ev.Accepted(command=command.id, runid=run_id)
        if await self._intake.is_started(run_id, request):
            return accepted  # whatever has become of the other run since
        run, first, seq, old = await self._read(command.tenant, data.runid)
        new = await self._plan(command, old)
        fork = await self._fork(command, run, old, new)
        taken = [await adopted(self._broker, command.tenant, run_id, one) for one in taken_over(fork, data.step)]
        forked = ev.RunForked(origin=run.run, seq=seq, version=run.version, step=data.step, taken=tuple(taken))
        event = None if first.event is None else await owned(self._broker, command.tenant, run_id, first.event)
        now_ms = self._clock.now_ms()
        is_same = new.digest == old.digest and not fork.changed["inputs"]
        made = msgspec.structs.replace(
            first,
            defdigest=new.digest,
            inputs=await self._intake.store(command.tenant, run_id, fork.new_inputs),
            tools=self._tools(command.tenant, new, first.tools),
            deadline_ms=now_ms + new.deadline_ms,
            request=request,
            labels=dict(new.labels) | first.labels,
            traceparent=command.traceparent,
            tracestate=command.tracestate,
            durability=self._durability,
            event=event,
            key=first.key if is_same else await self._key(command.tenant, new, fork.new_inputs, event, now_ms),
            attempt=first.attempt + 1 if isinstance(command, cmd.RunRerun) else 1,
        )
        await self._intake.create(
            messages.Creation(
                run=run_id,
                tenant=command.tenant,
                pipeline=new.pipeline,
                created=made,
                cause=command.id,
                source=self._source,
                now_ms=now_ms,
                correlation=command.correlationid or run_id,
                forked=await fitting(self._broker, command.tenant, run_id, forked),
            )
        )
        return accepted

    async def _read(self, tenant: str, run_id: str) -> tuple[Run, ev.RunCreated, int, Plan]:
        """The other run, its beginning, the newest sequence that was read, and its plan."""
        unknown = f"no run {run_id[:80]!r}"
        if not ids.RUN_RE.fullmatch(run_id):
            raise NotFoundError(unknown)
        stream = subjects.runs_stream(ids.partition_of(run_id), streams=self._run_streams)
        run: Run | None = None
        first: ev.RunCreated | None = None
        plan, seq = None, 0
        async for stored in self._broker.read(stream, (subjects.run_filter(run_id, tenant=tenant),)):
            message = decode(stored.body)
            if not isinstance(message, ev.RunMessage):
                continue
            if run is None and isinstance(message, ev.RunDecided) and (run := created(message)) is not None:
                begun = message.data.events[0]
                assert isinstance(begun, ev.RunCreated)
                first, plan = begun, await self._plans.get(tenant, run.defdigest)
            if run is None or plan is None:
                continue
            if isinstance(message, ev.RunDecided) and (why := doubt(run, message)):
                raise CorruptError(why)
            evolve(run, stored.seq, message, plan)
            seq = stored.seq
        if run is None or first is None or plan is None:
            raise NotFoundError(unknown)
        _check(run)
        return run, first, seq, plan

    async def _plan(self, command: cmd.RunRerun | cmd.RunFork, old: Plan) -> Plan:
        asked = command.data.definition if isinstance(command.data, cmd.ForkRun) else ""
        if not asked:
            return old
        digest = await self._definitions.digest_of(command.tenant, asked)
        plan = await self._plans.get(command.tenant, digest)
        if plan.pipeline != old.pipeline:
            message = f"definition {digest} is pipeline `{plan.pipeline}`; the run is of `{old.pipeline}`"
            raise DataError(message)
        return plan

    def _tools(self, tenant: str, plan: Plan, before: dict[str, str]) -> dict[str, str]:
        """Those that the other run pinned stay; what an edited definition calls beside them is pinned now."""
        called = {node.tool for node in plan.nodes if not node.version}
        kept = {tool: version for tool, version in before.items() if tool in called}
        return self._served.tool_versions.pins(tenant, plan) | kept

    async def _key(self, tenant: str, plan: Plan, inputs: dict[str, Any], event: Value | None, now_ms: int) -> str:
        """The text of the concurrency key: what triggered the other run counts as what triggers this one."""
        plain = None if event is None else msgspec.json.decode(await bytes_of(self._broker, tenant, event))
        return key_text(plan, inputs, plain, now_ms=now_ms)

    async def _fork(self, command: cmd.RunRerun | cmd.RunFork, run: Run, old: Plan, new: Plan) -> Fork:
        """Inputs that an edited definition does not know any more are left out; those given replace the others."""
        before: dict[str, Any] = msgspec.json.decode(await bytes_of(self._broker, command.tenant, run.inputs))
        given = command.data.inputs if isinstance(command.data, cmd.ForkRun) else {}
        known = {name: value for name, value in before.items() if name in new.inputs_schema["properties"]}
        inputs = with_defaults(new, known | given)
        reasons = check_inputs(new, inputs) + await self._served.refusals(command.tenant, new)
        reasons += [Failure(code="price_unknown", message=line) for line in unpriced(new, self._plans.prices)]
        if reasons:
            raise RefusedError(tuple(reasons))
        return Fork(run, old, new, before, inputs)


def _check(run: Run) -> None:
    if run.parent:
        message = f"run {run.run} is a child of {run.parent}, step `{run.parent_path}`; fork that run there"
        raise ConflictError(message)
    if run.status == "stalled":
        code = "" if run.failure is None else f" ({run.failure.code})"
        message = f"run {run.run} is stalled{code}: what it says of its steps cannot be relied upon"
        raise ConflictError(message)


def _request_hash(command: cmd.RunRerun | cmd.RunFork) -> str:
    """What makes two such commands under one key the same one."""
    data = command.data
    asked: dict[str, Any] = {"origin": data.runid, "step": data.step}
    if isinstance(data, cmd.ForkRun):
        asked |= {"inputs": data.inputs, "definition": data.definition}
    return blake2b_hex(canonical_json(asked))
