"""Events that steps publish, as the fold knows them: which are under way, and which the broker has. Pure."""

from headrace.contracts import events as ev
from headrace.pipeline.plan import Plan
from headrace_scheduler.instances import begin
from headrace_scheduler.records import SLEEPING, Inst, Run

TIMER = "emit"


def is_emitting(inst: Inst) -> bool:
    """True while the broker is not known to have the event."""
    return inst.status == SLEEPING and inst.timer == TIMER and not inst.emitted


def is_emitted(inst: Inst) -> bool:
    """True when the broker has it, and the step has not ended."""
    return inst.emitted and inst.status == SLEEPING and inst.timer == TIMER


def hear(run: Run, message: ev.EventPublished) -> bool:
    """The broker has stored an event. False when that is known, or nobody waits for it any more."""
    inst = run.get(message.data.step)
    if (
        run.ended
        or inst is None
        or not is_emitting(inst)
        or inst.emitting is None
        or inst.emitting.event != message.data.event
    ):
        run.late += 1
        return False
    inst.emitted = True
    return True


def apply(run: Run, plan: Plan, event: ev.EmitStarted, at_ms: int) -> None:
    """An event is under way."""
    inst = begin(run, plan, event.path, SLEEPING, at_ms)
    inst.timer, inst.timer_ms, inst.scheduled_ms = TIMER, run.end_ms, at_ms
    inst.emitting, inst.emitted = event, False
