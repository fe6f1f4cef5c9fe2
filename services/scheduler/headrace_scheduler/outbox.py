"""Publishing the events that the log says are under way.

The message derives from its decision, under one id. After a death it is published again: a broker that has had it for
less than two minutes stores it once, and whoever listens acts once for ever, because runs that an event starts take
their ids from it. That the broker has it is said in the run's log, and ends the step.
"""

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import ids, subjects
from headrace.contracts.codec import encode
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.errors import RetryableError, UnknownOutcomeError
from headrace.contracts.instants import rfc3339
from headrace.runtime.crashpoints import crashpoint
from headrace_scheduler.emits import is_emitting
from headrace_scheduler.messages import Outgoing, prefix_of
from headrace_scheduler.records import Inst, Run

if TYPE_CHECKING:  # the partition calls these functions; naming its type back is no dependency
    from headrace_scheduler.entries import Entry, Shared

log = logging.getLogger("headrace.scheduler")

HOPS: Final = "headracehops"
"""The extension attribute of a CloudEvent that says how many events of runs led to it, this one included."""
AGAIN_S: Final = 5.0
"""As everything that a partition publishes and does not see in the log."""


def is_unsettled(run: Run) -> bool:
    """True while an event is under way: what was published may be lost."""
    return any((inst := run.get(path)) is not None and is_emitting(inst) for path in run.active)


def publish_events(shared: "Shared", entry: "Entry") -> None:
    """Publish what is under way and was not published lately."""
    run, now_s = entry.run, shared.clock.monotonic_s()
    for path in run.active:
        inst = run.get(path)
        if inst is None or inst.emitting is None or not is_emitting(inst):
            continue
        key = (f"{path}!emit", 0, 0)
        at_s = entry.published.get(key)
        if at_s is None or now_s - at_s >= AGAIN_S:
            entry.published[key] = now_s
            shared.supervisor.spawn(_publish(shared, run, inst), "scheduler.emit")


async def _publish(shared: "Shared", run: Run, inst: Inst) -> None:
    event, note = cloud_event(run, inst), published(run, inst, source=shared.source, now_ms=shared.clock.now_ms())
    crashpoint("before_emit")
    try:
        await shared.broker.append(event.subject, event.body, msg_id=event.id)
        crashpoint("event_stored_before_said")
        await shared.broker.append(note.subject, note.body, msg_id=note.id)
    except (RetryableError, UnknownOutcomeError) as error:
        log.warning("emit.waits", extra={"run_id": run.run, "event": event.id, "why": str(error)})


def cloud_event(run: Run, inst: Inst) -> Outgoing:
    """The event as its one message: a function of the log, so that publishing again gives the same bytes."""
    emitting = inst.emitting
    assert emitting is not None and isinstance(emitting.data.json, msgspec.Raw), inst.path
    body: dict[str, Any] = {
        "specversion": SPECVERSION,
        "id": emitting.event,
        "source": f"/pipeline/{run.pipeline}",
        "type": emitting.name,
        "time": rfc3339(inst.scheduled_ms),
        "subject": f"run/{run.run}/step/{inst.path}",
        "traceparent": run.traceparent,
        HOPS: emitting.hops,
        "data": emitting.data.json,
    }
    return Outgoing(subjects.trigger(run.tenant, emitting.name), encode(body), emitting.event)


def published(run: Run, inst: Inst, *, source: str, now_ms: int) -> Outgoing:
    """That the broker has it, as an input of the run."""
    assert inst.emitting is not None, inst.path
    kind = "io.headrace.event.published.v1"
    event_id = ids.event_id(kind, run.tenant, run.run, "", 0, 0, 0, inst.emitting.event)
    message = ev.EventPublished(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(now_ms),
        schemaver=1,
        tenant=run.tenant,
        subject=f"run/{run.run}/step/{inst.path}",
        pipeline=run.pipeline,
        runid=run.run,
        stepid=inst.path,
        causationid=inst.emitting.event,
        correlationid=run.correlation,
        traceparent=run.traceparent,
        defdigest=run.defdigest,
        data=ev.Published(step=inst.path, event=inst.emitting.event),
    )
    return Outgoing(subjects.input_(prefix_of(run), "event-published"), encode(message), event_id)
