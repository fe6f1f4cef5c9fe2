"""Commands about schedules: checked against what is deployed, then appended as inputs of the schedules."""

from typing import Any, Final

import msgspec

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts import ids, pseudo, subjects
from headrace.contracts.codec import encode
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.errors import DataError, NotFoundError
from headrace.pipeline.schedules import next_ms
from headrace.runtime.clock import Clock, rfc3339
from headrace.runtime.eventlog import Broker
from headrace_scheduler import pseudo_messages
from headrace_scheduler.definitions import Armed, Definitions

BACKFILL_MAX: Final = 1_000
"""Runs that one backfill may start: a year of days thrice, or most of a day of minutes. More is asked for in parts."""


class ScheduleIntake:
    """Handles what people ask of schedules."""

    def __init__(
        self, broker: Broker, *, clock: Clock, definitions: Definitions, source: str, run_streams: int
    ) -> None:
        self._broker, self._clock, self._definitions = broker, clock, definitions
        self._source, self._run_streams = source, run_streams

    async def retire(self, command: cmd.DefinitionRetire) -> ev.Accepted:
        """Take a pipeline's definition back.

        Raises:
            NotFoundError: nothing of that name is registered.
        """
        pipeline = command.data.pipeline
        await self._definitions.digest_of(command.tenant, _checked(pipeline))
        kind = str(ev.DefinitionRetired.__struct_config__.tag)
        retired = ev.DefinitionRetired(
            specversion=SPECVERSION,
            id=ids.event_id(kind, command.tenant, command.id, pipeline),
            source=self._source,
            time=rfc3339(self._clock.now_ms()),
            schemaver=1,
            tenant=command.tenant,
            pipeline=pipeline,
            causationid=command.id,
            correlationid=command.correlationid or command.id,
            traceparent=command.traceparent,
            data=ev.Reason(reason=command.data.reason),
        )
        subject = subjects.definition(command.tenant, pipeline)
        await self._broker.append(subject, encode(retired), msg_id=retired.id)
        return ev.Accepted(command=command.id)

    async def ask(self, command: cmd.TriggerPause | cmd.TriggerResume | cmd.TriggerBackfill) -> ev.Accepted:
        """Tell the schedules that are meant.

        Raises:
            NotFoundError: no such schedule is deployed. DataError: the span cannot be backfilled.
            UnavailableError: what is deployed is not known yet.
        """
        armed = await self._armed(command.tenant, command.data.pipeline)
        chosen = _chosen(armed, command.data.pipeline, command.data.trigger)
        match command:
            case cmd.TriggerPause(data=data):
                await self._tell(command, chosen, pseudo.TriggerPauseRequested, pseudo.Wish(reason=data.reason))
            case cmd.TriggerResume(data=data):
                await self._tell(command, chosen, pseudo.TriggerResumeRequested, pseudo.Wish(reason=data.reason))
            case cmd.TriggerBackfill(data=data):
                self._check_span(armed, chosen, data)
                span = pseudo.Span(from_ms=data.from_ms, to_ms=data.to_ms, reason=data.reason)
                await self._tell(command, chosen, pseudo.TriggerBackfillRequested, span)
        return ev.Accepted(command=command.id)

    async def _armed(self, tenant: str, pipeline: str) -> Armed:
        await self._definitions.catch_up(tenant, _checked(pipeline))
        armed = self._definitions.armed.get((tenant, pipeline))
        if armed is None or not armed.crons:
            message = f"pipeline `{pipeline}` has no schedule; `headrace deploy` its file first"
            raise NotFoundError(message)
        return armed

    def _check_span(self, armed: Armed, chosen: range, data: cmd.BackfillTrigger) -> None:
        if data.from_ms > data.to_ms:
            message = "a backfill begins before it ends"
            raise DataError(message)
        if data.to_ms > self._clock.now_ms():
            message = "a backfill is about the past: what is to come is fired when it is due"
            raise DataError(message)
        if data.from_ms < 0:
            message = "a backfill begins in 1970 at the earliest"
            raise DataError(message)
        count = 0
        for number in chosen:
            spec = armed.crons[number]
            due_ms = next_ms(spec.cron, spec.timezone, data.from_ms - 1)
            while due_ms is not None and due_ms <= data.to_ms:
                count += 1
                if count > BACKFILL_MAX:
                    message = f"more than {BACKFILL_MAX} instants are due in this span; ask in parts"
                    raise DataError(message)
                due_ms = next_ms(spec.cron, spec.timezone, due_ms)

    async def _tell(self, command: cmd.Command, chosen: range, kind: type[Any], data: msgspec.Struct) -> None:
        pipeline = command.data.pipeline  # type: ignore[union-attr]  # every command about schedules has it
        for number in chosen:
            outgoing = pseudo_messages.trigger_asked(
                kind,
                data,
                tenant=command.tenant,
                pipeline=pipeline,
                trigger=number,
                cause=command.id,
                source=self._source,
                now_ms=self._clock.now_ms(),
            )
            await self._broker.append(outgoing.subject, outgoing.body, msg_id=outgoing.id)


def _checked(pipeline: str) -> str:
    if not ids.NAME_RE.fullmatch(pipeline):
        message = f"no pipeline {pipeline[:80]!r}"
        raise NotFoundError(message)
    return pipeline


def _chosen(armed: Armed, pipeline: str, trigger: int | None) -> range:
    if trigger is None:
        return range(len(armed.crons))
    if not 0 <= trigger < len(armed.crons):
        message = f"pipeline `{pipeline}` has no schedule {trigger}; it has {len(armed.crons)}, counted from 0"
        raise NotFoundError(message)
    return range(trigger, trigger + 1)
