"""Events from outside that pipelines listen for: `hr.trig.<tenant>.<name>` starts every armed definition that
wants it.

The run id derives from pipeline and event id, so that an event delivered twice starts one run.
"""

import logging
from typing import Any, Final

import msgspec

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts.canonical import blake2b_hex, canonical_json
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.errors import (
    ExpressionError,
    MalformedMessageError,
    RetryableError,
    TerminalError,
    UnknownOutcomeError,
)
from headrace.contracts.failure import Failure
from headrace.pipeline.evaluation import NOW
from headrace.pipeline.expressions import compile_expression, compile_template, evaluate_condition, render
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Broker, Delivery, Stored
from headrace.runtime.park import park
from headrace_scheduler.definitions import Definitions
from headrace_scheduler.intake import CRASHES_MAX, RETRY_S, Intake, check_headers
from headrace_scheduler.outbox import HOPS
from headrace_scheduler.plans import Plans

log = logging.getLogger("headrace.scheduler")

EVENT_FIELDS: Final = ("id", "type", "source", "time", "subject", "data")


class Triggers:
    """Handles trigger events, one delivery a call."""

    def __init__(
        self, broker: Broker, *, clock: Clock, plans: Plans, definitions: Definitions, intake: Intake, source: str
    ) -> None:
        self._broker, self._clock, self._plans, self._definitions = broker, clock, plans, definitions
        self._intake, self._source = intake, source

    async def handle(self, delivery: Delivery) -> None:
        """Start what listens; a start that is refused is parked with its reason and does not stop the others."""
        stored = delivery.stored
        try:
            tenant, name, event, hops = _decode(stored)
        except MalformedMessageError as error:
            await self._park(stored, error.failure(), delivery.deliveries)
            await delivery.ack()
            return
        try:
            await self._definitions.catch_up_with_all()
            for pipeline, digest, trigger in self._definitions.listening(tenant, name):
                await self._start(stored, (tenant, pipeline, digest), trigger, event, hops=hops)
        except (RetryableError, UnknownOutcomeError, TimeoutError) as error:
            log.warning("trigger.waits", extra={"trigger": name, "why": str(error)})
            await delivery.nak(delay_s=RETRY_S)
            return
        except Exception as error:
            if delivery.deliveries < CRASHES_MAX:
                await delivery.nak(delay_s=RETRY_S)
            else:
                failure = Failure(code="internal", message=f"{type(error).__name__}: {error}"[:2000])
                await self._park(stored, failure, delivery.deliveries)
                await delivery.ack()
            raise
        await delivery.ack()

    async def _start(
        self,
        stored: Stored,
        listening: tuple[str, str, str],
        trigger: ev.TriggerSpec,
        event: dict[str, Any],
        *,
        hops: int,
    ) -> None:
        tenant, pipeline, digest = listening
        values: dict[str, Any] = {"event": event, NOW: stored.time_ms}  # what happened decides, not when it was taken
        try:
            plan = await self._plans.get(tenant, digest)
            values["vars"] = dict(plan.vars)
            if trigger.when and not evaluate_condition(compile_expression(trigger.when), values):
                return
            inputs = render(compile_template(trigger.inputs), values)
            run_id = blake2b_hex(canonical_json([pipeline, event["id"]]))
            cause = cmd.RunStart(
                specversion=SPECVERSION,
                id=event["id"],
                source=str(event.get("source", "")),
                time="",
                schemaver=1,
                tenant=tenant,
                traceparent=str(stored.headers.get("traceparent", "")),
                data=cmd.StartRun(pipeline=f"{pipeline}@{digest}", inputs=inputs, runid=run_id),
            )
            request = blake2b_hex(canonical_json([pipeline, event]))
            await self._intake.create_run(
                plan, cause, run_id=run_id, inputs=inputs, labels={}, request=request, event=event, hops=hops
            )
            log.info("trigger.started", extra={"run_id": run_id, "pipeline": pipeline})
        except (TerminalError, ExpressionError) as error:
            await self._park(stored, error.failure(), 1)

    async def _park(self, stored: Stored, failure: Failure, deliveries: int) -> None:
        await park(
            self._broker,
            stored,
            failure,
            deliveries=deliveries,
            source=self._source,
            now_ms=self._clock.now_ms(),
        )


def _decode(stored: Stored) -> tuple[str, str, dict[str, Any], int]:
    """(tenant, trigger name, event, hops) of a CloudEvent, structured or binary, or of plain JSON. What a run emits
    says how many events led to it; what comes from outside is the first."""
    tokens = stored.subject.split(".")
    if len(tokens) != 4:
        message = f"a trigger's subject is hr.trig.<tenant>.<name>, not {stored.subject}"
        raise MalformedMessageError(message)
    check_headers(stored)
    try:
        raw = msgspec.json.decode(stored.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"not JSON: {error}"
        raise MalformedMessageError(message) from error
    lower = {key.lower(): value for key, value in stored.headers.items()}
    if isinstance(raw, dict) and "specversion" in raw:
        event = {key: raw[key] for key in EVENT_FIELDS if key in raw}
    else:
        event = {key: lower[f"ce-{key}"] for key in EVENT_FIELDS if f"ce-{key}" in lower}
        event["data"] = raw
    event["id"] = str(event.get("id") or lower.get("nats-msg-id") or f"{stored.stream}-{stored.seq}")
    hops = raw.get(HOPS, 0) if isinstance(raw, dict) and "specversion" in raw else 0
    if type(hops) is not int or hops < 0:
        message = f"{HOPS} is a number of events, not {str(hops)[:80]!r}"
        raise MalformedMessageError(message)
    return tokens[2], tokens[3], event, hops
