"""`run-rerun` and `run-fork`: a new run whose first decision says what it takes over from another one.

The other run is read and folded once; what it holds by reference is stored again for the new one, so that the new run's
history stands alone from its first message on.
"""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts import ids, names, subjects
from headrace.contracts.canonical import blake2b_hex, canonical_json
from headrace.contracts.codec import decode, encode
from headrace.contracts.envelope import ItemResult, Value
from headrace.contracts.errors import ConflictError, CorruptError, DataError, NotFoundError, TooLargeError
from headrace.pipeline.inputs import check_inputs, with_defaults
from headrace.pipeline.plan import Plan
from headrace.runtime import blobs
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Broker
from headrace_scheduler import messages
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

FORKED_BYTES_MAX: Final = 3 * names.DECISION_BYTES_MAX
"""Of what is taken over, in one decision: three quarters of what a message can hold, some 5,000 steps."""


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
        taken = [await self._adopt(command.tenant, run_id, one) for one in taken_over(fork, data.step)]
        forked = ev.RunForked(origin=run.run, seq=seq, version=run.version, step=data.step, taken=tuple(taken))
        now_ms = self._clock.now_ms()
        is_same = new.digest == old.digest and not fork.changed["inputs"]
        made = msgspec.structs.replace(
            first,
            defdigest=new.digest,
            inputs=await self._intake.store(command.tenant, run_id, fork.new_inputs),
            deadline_ms=now_ms + new.deadline_ms,
            request=request,
            labels=dict(new.labels) | first.labels,
            traceparent=command.traceparent,
            tracestate=command.tracestate,
            durability=self._durability,
            key=first.key if is_same else key_text(new, fork.new_inputs, now_ms=now_ms),
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
                forked=await self._fitting(command.tenant, run_id, forked),
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

    async def _fork(self, command: cmd.RunRerun | cmd.RunFork, run: Run, old: Plan, new: Plan) -> Fork:
        """Inputs that an edited definition does not know any more are left out; those given replace the others."""
        before: dict[str, Any] = msgspec.json.decode(await self._bytes(command.tenant, run.inputs))
        given = command.data.inputs if isinstance(command.data, cmd.ForkRun) else {}
        known = {name: value for name, value in before.items() if name in new.inputs_schema["properties"]}
        inputs = with_defaults(new, known | given)
        reasons = check_inputs(new, inputs) + await self._served.refusals(command.tenant, new)
        if reasons:
            raise RefusedError(tuple(reasons))
        return Fork(run, old, new, before, inputs)

    async def _bytes(self, tenant: str, value: Value) -> bytes:
        if isinstance(value.json, msgspec.Raw):
            return bytes(value.json)
        return await blobs.get(self._broker, tenant, value.ref)

    # --- values ------------------------------------------------------------------------------------

    async def _adopt(self, tenant: str, run_id: str, taken: ev.Taken) -> ev.Taken:
        output = taken.output
        return (
            taken if output is None else msgspec.structs.replace(taken, output=await self._own(tenant, run_id, output))
        )

    async def _own(self, tenant: str, run_id: str, value: Value) -> Value:
        """The value, with everything that it refers to held by the new run."""
        if value.form == "items":
            data = await self._bytes(tenant, value)
            items = msgspec.json.decode(data, type=list[ItemResult])
            own = [await self._own_item(tenant, run_id, item) for item in items]
            if own != items:
                return await self._stored(tenant, run_id, encode(own), form="items")
        if not value.ref:
            return value
        return msgspec.structs.replace(value, ref=await blobs.adopt(self._broker, tenant, value.ref, run_id))

    async def _own_item(self, tenant: str, run_id: str, item: ItemResult) -> ItemResult:
        if item.value is None or not item.value.ref:
            return item
        return msgspec.structs.replace(item, value=await self._own(tenant, run_id, item.value))

    async def _stored(self, tenant: str, run_id: str, data: bytes, *, form: str) -> Value:
        if len(data) <= names.INLINE_BYTES_MAX:
            return Value(json=msgspec.Raw(data), form=form)
        return Value(ref=await blobs.put(self._broker, tenant, run_id, data), size=len(data), form=form)

    async def _fitting(self, tenant: str, run_id: str, forked: ev.RunForked) -> ev.RunForked:
        """The event, its largest values by reference as far as one decision cannot hold them.

        Raises:
            TooLargeError: there are too many steps all the same.
        """
        sizes = {
            number: len(one.output.json)
            for number, one in enumerate(forked.taken)
            if one.output is not None and isinstance(one.output.json, msgspec.Raw)
        }
        taken, left = list(forked.taken), len(encode(forked)) - FORKED_BYTES_MAX
        for number in sorted(sizes, key=lambda number: (-sizes[number], number)):
            if left <= 0:
                break
            output = taken[number].output
            assert output is not None and isinstance(output.json, msgspec.Raw)
            ref = await blobs.put(self._broker, tenant, run_id, bytes(output.json))
            held = Value(ref=ref, size=sizes[number], form=output.form)
            left -= len(encode(output)) - len(encode(held))
            taken[number] = msgspec.structs.replace(taken[number], output=held)
        if left > 0:
            message = f"{len(taken)} steps are too many to take over: {left} bytes more than one decision holds"
            raise TooLargeError(message)
        return msgspec.structs.replace(forked, taken=tuple(taken))


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
