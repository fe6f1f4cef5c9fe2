"""The stored messages that a scheduler writes, with their envelopes and deterministic ids. Pure."""

from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import ids, subjects
from headrace.contracts.canonical import blake2b_hex
from headrace.contracts.codec import encode, encode_value
from headrace.contracts.envelope import SPECVERSION, Value
from headrace.contracts.live import Held, Revoke
from headrace.runtime.clock import rfc3339
from headrace_scheduler.decide import Decision
from headrace_scheduler.records import Run

DECIDED = "io.headrace.run.decided.v1"
ORDERED = "io.headrace.step.ordered.v1"


class Outgoing(NamedTuple):
    """A message ready to be appended."""

    subject: str
    body: bytes
    id: str


def prefix_of(run: Run) -> str:
    """The subjects of a run's history start so."""
    return subjects.run_prefix(run.tenant, run.pipeline, run.run)


def decided(run: Run, decision: Decision, *, source: str) -> tuple[Outgoing, ev.RunDecided]:
    """A decision as its one message.

    The id covers the content: two schedulers may decide differently about one version, and an order or report must be
    able to say which of the two it comes from.
    """
    data = ev.Decided(version=decision.version, at_ms=decision.at_ms, events=decision.events, order=decision.order)
    event_id = ids.event_id(DECIDED, run.tenant, run.run, "", 0, 0, decision.version, data=encode_value(data))
    message = ev.RunDecided(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(decision.at_ms),
        schemaver=1,
        tenant=run.tenant,
        subject=f"run/{run.run}",
        pipeline=run.pipeline,
        runid=run.run,
        causationid=run.decision_id or run.request,
        correlationid=run.correlation,
        traceparent=run.traceparent,
        tracestate=run.tracestate,
        defdigest=run.defdigest,
        data=data,
    )
    subject = subjects.decision(prefix_of(run), decision.headline)
    return Outgoing(subject, encode(message), event_id), message


def ordered(run: Run, order: ev.Order, *, source: str) -> Outgoing:
    """A work order. Time and source are its decision's, so that deriving it again gives the same bytes."""
    event_id = ids.event_id(
        ORDERED,
        run.tenant,
        run.run,
        order.path,
        order.attempt,
        order.offer,
        order.version,
        data=order.decision.encode(),
    )
    message = ev.StepOrdered(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(order.scheduled_ms),
        schemaver=1,
        tenant=run.tenant,
        subject=f"run/{run.run}/step/{order.path}",
        pipeline=run.pipeline,
        runid=run.run,
        stepid=order.path,
        attempt=order.attempt,
        causationid=order.decision,
        correlationid=run.correlation,
        traceparent=run.traceparent,
        tracestate=run.tracestate,
        defdigest=run.defdigest,
        data=order,
    )
    return Outgoing(subjects.order(prefix_of(run), order.queue), encode(message), event_id)


def child_reported(parent: Run, child: Run, *, attempt: int, source: str, now_ms: int) -> Outgoing:
    """A child's end, as an input of its parent."""
    data = ev.ChildResult(
        child=child.run, attempt=attempt, status=child.status, outputs=child.outputs, failure=child.failure
    )
    kind = "io.headrace.child.reported.v1"
    event_id = ids.event_id(kind, parent.tenant, parent.run, child.parent_path, attempt, 0, 0, child.run)
    message = ev.ChildReported(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(now_ms),
        schemaver=1,
        tenant=parent.tenant,
        subject=f"run/{parent.run}/step/{child.parent_path}",
        pipeline=parent.pipeline,
        runid=parent.run,
        stepid=child.parent_path,
        attempt=attempt,
        causationid=child.decision_id,
        correlationid=parent.correlation,
        traceparent=parent.traceparent,
        defdigest=parent.defdigest,
        data=data,
    )
    return Outgoing(subjects.input_(prefix_of(parent), "child-reported"), encode(message), event_id)


OVER_FOR_THE_ENGINE: Final = frozenset({"timeout", "deadline_exceeded", "executor_lost", "outcome_unknown"})
"""Failures by which an attempt ends without its executor's word."""
REVOKED_OFFERS: Final = 1_000_000
"""More than an attempt can have: whatever offer an executor holds is meant."""


def revocation(run: Run, decision: Decision) -> Revoke | None:
    """Which attempts a decision has ended without their executors' word."""
    held = tuple(
        Held(run=run.run, path=event.path, attempt=getattr(event, "attempt", 0), offer=REVOKED_OFFERS)
        for event in decision.events
        if isinstance(event, ev.StepFailed | ev.TimerSet)
        and event.failure is not None
        and event.failure.code in OVER_FOR_THE_ENGINE
    )
    return Revoke(held=held) if held else None


CONTROLS = {
    "cancel": (ev.CancelRequested, "cancel-requested"),
    "pause": (ev.PauseRequested, "pause-requested"),
    "resume": (ev.ResumeRequested, "resume-requested"),
}


@dataclass(slots=True, frozen=True)
class Target:
    """The run that an input is about."""

    tenant: str
    pipeline: str
    run: str


def control(target: Target, kind: str, *, cause: str, reason: str, source: str, now_ms: int) -> Outgoing:
    """A request to cancel, pause or resume, as an input of the run; `cause` makes it unique."""
    cls, verb = CONTROLS[kind]
    tag = cls.__struct_config__.tag
    event_id = ids.event_id(tag, target.tenant, target.run, "", 0, 0, 0, cause)
    message = cls(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(now_ms),
        schemaver=1,
        tenant=target.tenant,
        subject=f"run/{target.run}",
        pipeline=target.pipeline,
        runid=target.run,
        causationid=cause,
        correlationid=ids.root_of(target.run),
        data=ev.Reason(reason=reason),
    )
    prefix = subjects.run_prefix(target.tenant, target.pipeline, target.run)
    return Outgoing(subjects.input_(prefix, verb), encode(message), event_id)


def signal_received(target: Target, name: str, payload: Value, *, cause: str, source: str, now_ms: int) -> Outgoing:
    """A signal, as an input of the run; `cause` makes it unique."""
    kind = "io.headrace.signal.received.v1"
    event_id = ids.event_id(kind, target.tenant, target.run, "", 0, 0, 0, cause)
    message = ev.SignalReceived(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(now_ms),
        schemaver=1,
        tenant=target.tenant,
        subject=f"run/{target.run}",
        pipeline=target.pipeline,
        runid=target.run,
        causationid=cause,
        correlationid=ids.root_of(target.run),
        data=ev.Signalled(name=name, payload=payload),
    )
    prefix = subjects.run_prefix(target.tenant, target.pipeline, target.run)
    return Outgoing(subjects.input_(prefix, "signal-received"), encode(message), event_id)


def raise_requested(target: Target, data: ev.Raise, *, cause: str, source: str, now_ms: int) -> Outgoing:
    """That a run may cost more, as its input; `cause` makes it unique."""
    kind = "io.headrace.budget-raise.requested.v1"
    event_id = ids.event_id(kind, target.tenant, target.run, "", 0, 0, 0, cause)
    message = ev.BudgetRaiseRequested(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(now_ms),
        schemaver=1,
        tenant=target.tenant,
        subject=f"run/{target.run}",
        pipeline=target.pipeline,
        runid=target.run,
        causationid=cause,
        correlationid=ids.root_of(target.run),
        data=data,
    )
    prefix = subjects.run_prefix(target.tenant, target.pipeline, target.run)
    return Outgoing(subjects.input_(prefix, "budget-raise-requested"), encode(message), event_id)


def approval_given(target: Target, data: ev.GivenAnswer, *, cause: str, source: str) -> Outgoing:
    """An answer, as an input of the run on the subject of its question; `cause` makes it unique."""
    kind = "io.headrace.approval.given.v1"
    event_id = ids.event_id(kind, target.tenant, target.run, "", 0, 0, 0, cause)
    message = ev.ApprovalGiven(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(data.at_ms),
        schemaver=1,
        tenant=target.tenant,
        subject=f"run/{target.run}/step/{data.step}",
        pipeline=target.pipeline,
        runid=target.run,
        stepid=data.step,
        causationid=cause,
        correlationid=ids.root_of(target.run),
        data=data,
    )
    prefix = subjects.run_prefix(target.tenant, target.pipeline, target.run)
    question = blake2b_hex(f"{data.step}#{data.attempt}".encode())
    return Outgoing(subjects.answer(prefix, question), encode(message), event_id)


@dataclass(slots=True, frozen=True)
class Creation:
    """Everything that the first decision of a run says."""

    run: str
    tenant: str
    pipeline: str
    created: ev.RunCreated
    cause: str
    source: str
    now_ms: int
    correlation: str
    forked: ev.RunForked | None = None


def first_decision(creation: Creation) -> Outgoing:
    """Decision 1: the run exists. Appended with expected sequence 0, so a run id is created once."""
    events = (creation.created,) if creation.forked is None else (creation.created, creation.forked)
    data = ev.Decided(version=1, at_ms=creation.now_ms, events=events)
    event_id = ids.event_id(DECIDED, creation.tenant, creation.run, "", 0, 0, 1, data=encode_value(data))
    message = ev.RunDecided(
        specversion=SPECVERSION,
        id=event_id,
        source=creation.source,
        time=rfc3339(creation.now_ms),
        schemaver=1,
        tenant=creation.tenant,
        subject=f"run/{creation.run}",
        pipeline=creation.pipeline,
        runid=creation.run,
        causationid=creation.cause,
        correlationid=creation.correlation,
        traceparent=creation.created.traceparent,
        tracestate=creation.created.tracestate,
        defdigest=creation.created.defdigest,
        data=data,
    )
    prefix = subjects.run_prefix(creation.tenant, creation.pipeline, creation.run)
    return Outgoing(subjects.decision(prefix, "run-created"), encode(message), event_id)


def at_decision(order: ev.Order, decision_id: str, version: int) -> ev.Order:
    """An order made while its decision was being written, now that the decision has an id."""
    if order.decision:
        return order
    return msgspec.structs.replace(order, decision=decision_id, version=version)
