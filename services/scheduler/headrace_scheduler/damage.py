"""Histories that cannot be folded: a decision that is missing or unreadable, or a report that was taken and is gone.

A broker that finds a stored message damaged leaves it out; nothing else tells. Such a run is stopped with
`log_corrupted`: it never goes on with a guess, and never begins afresh. Before that the history is read again from the
stream's leader, because a reader that skipped a message must not be taken for a damaged log.
"""

from headrace.contracts import codec, subjects
from headrace.contracts import events as ev
from headrace.contracts.errors import CorruptError, HeadraceError, MalformedMessageError
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Plan
from headrace.runtime.eventlog import Broker
from headrace_scheduler.emits import is_emitting
from headrace_scheduler.records import Run
from headrace_scheduler.state import created, evolve


class SkippedError(HeadraceError):
    """Our reading is at fault, not the log: the leader has what we have not seen. Read again from the snapshot."""

    code = "message_skipped"


def doubt(run: Run, message: ev.RunDecided) -> str:
    """What must be missing if this is the run's next message, or nothing. Cheap: asked for every decision read.

    Nobody writes decision n + 1 without having read decision n in this very log, so one further on means that one in
    between cannot be read. Decisions that lost a race have lower versions and are none of this.
    """
    version = message.data.version
    if run.ended or (message.tenant, message.pipeline) != (run.tenant, run.pipeline) or version <= run.version:
        return ""
    if version > run.version + 1:
        return f"decision {run.version + 1} is missing before decision {version}"
    for event in message.data.events:
        if isinstance(event, ev.SignalTaken):
            if all(signal.id != event.signal for signal in run.signals.get(event.name, ())):
                return f"decision {version} takes signal {event.signal} for `{event.path}`, which is missing"
            continue
        if isinstance(event, ev.ApprovalGranted | ev.ApprovalDenied | ev.OutcomeSettled):
            inst = run.get(event.path)
            if inst is None or inst.answer is None or inst.answer.id != event.answer:
                return f"decision {version} takes answer {event.answer} for `{event.path}`, which is missing"
        if isinstance(event, ev.StepCompleted) and (inst := run.get(event.path)) is not None and is_emitting(inst):
            return f"decision {version} ends `{event.path}`, whose event is not known to be stored: that is missing"
        if isinstance(event, ev.StepCompleted) and event.report and event.output is None:
            inst = run.get(event.path)
            if inst is None or inst.report is None or inst.report.id != event.report:
                return f"decision {version} takes report {event.report} of `{event.path}`, which is missing"
    return ""


async def found(broker: Broker, stream: str, run_id: str, plan: Plan) -> Failure | None:
    """What the leader's own history of a run is damaged by, or None when it is whole."""
    run: Run | None = None
    async for stored in broker.read(stream, (subjects.run_filter(run_id),)):
        try:
            message = codec.decode(stored.body)
        except MalformedMessageError as error:
            if ".decision." in stored.subject:
                return unreadable(error)
            continue
        if not isinstance(message, ev.RunMessage):
            continue
        if isinstance(message, ev.RunDecided):
            run = run or created(message)
            why = "decision 1, its creation, is missing" if run is None else doubt(run, message)
            if why:
                return CorruptError(f"{why}; compare the stream with its archive, then start the work again").failure()
        if run is not None:
            evolve(run, stored.seq, message, plan)
    return None


def unreadable(error: MalformedMessageError) -> Failure:
    """A message in the place of a decision is none."""
    return CorruptError(f"a decision cannot be read: {error}"[:2000]).failure()


def headless(message: ev.RunDecided) -> Run:
    """As much of a run as a later decision tells, so that it can be stopped: every reader still waits for version 1."""
    return Run(
        run=message.runid,
        tenant=message.tenant,
        pipeline=message.pipeline,
        defdigest=message.defdigest,
        traceparent=message.traceparent,
        correlation=message.correlationid,
    )
