"""Schedules as people see them: what is deployed, by the registrations, and how each stands, by its last decision."""

from typing import NamedTuple

from headrace.contracts import codec, ids, pseudo, subjects
from headrace.contracts import events as ev
from headrace.runtime.eventlog import Broker


class ScheduleRow(NamedTuple):
    """One deployed schedule."""

    pipeline: str
    trigger: int
    """Its number among the pipeline's schedules, from 0."""
    status: str
    """armed, paused, or new: deployed a moment ago, and no scheduler has noted it."""
    next_ms: int
    """When it is due next; 0 where it is paused or new."""
    schedule: pseudo.CronSpec
    defdigest: str


async def deployed(broker: Broker, tenant: str, *, run_streams: int) -> list[ScheduleRow]:
    """Every deployed schedule of a tenant, by pipeline and number."""
    armed: dict[str, ev.Definition] = {}
    async for stored in broker.read(subjects.DEFINITIONS, (subjects.definition(tenant, "*"),)):
        match codec.decode(stored.body):
            case ev.DefinitionRegistered(pipeline=pipeline, data=data) if data.armed:
                armed[pipeline] = data
            case ev.DefinitionRetired(pipeline=pipeline):
                armed.pop(pipeline, None)
            case _:
                pass  # registered, and not deployed
    return [
        await _row(broker, tenant, pipeline, number, definition, run_streams)
        for pipeline, definition in sorted(armed.items())
        for number in range(len(definition.crons))
    ]


async def _row(
    broker: Broker, tenant: str, pipeline: str, number: int, definition: ev.Definition, run_streams: int
) -> ScheduleRow:
    run = ids.schedule_id(tenant, pipeline, number)
    stream = subjects.runs_stream(ids.partition_of(run), streams=run_streams)
    last = await broker.last(stream, subjects.decision_scope(subjects.run_prefix(tenant, pipeline, run)))
    decided = None if last is None else codec.decode(last.body)
    status, next_ms = "new", 0
    if isinstance(decided, pseudo.TriggerDecided) and decided.data.status != "disarmed":
        status, next_ms = decided.data.status, decided.data.next_ms
    return ScheduleRow(pipeline, number, status, next_ms, definition.crons[number], definition.digest)
