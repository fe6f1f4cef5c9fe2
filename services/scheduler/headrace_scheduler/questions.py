"""Questions to people, as the fold knows them: what is asked, and the answer that no decision has dealt with. Pure."""

from headrace.contracts import events as ev
from headrace.pipeline.plan import Plan
from headrace_scheduler.instances import begin
from headrace_scheduler.records import SLEEPING, Answer, Inst, Run

TIMER = "approval"
"""What wakes a step that asks, if nobody answers."""


def is_answered(inst: Inst) -> bool:
    """True when a step asks, and has its answer."""
    return inst.answer is not None and is_asking(inst)


def is_asking(inst: Inst) -> bool:
    """True while an answer may come."""
    return inst.status == SLEEPING and inst.timer == TIMER


def hear(run: Run, message: ev.ApprovalGiven) -> bool:
    """Take the first answer in time to what is shown. False when it changes nothing."""
    data, inst = message.data, run.get(message.data.step)
    if (
        run.ended
        or inst is None
        or not is_asking(inst)
        or inst.answer is not None
        or inst.question != data.hash
        or data.at_ms > inst.timer_ms
    ):
        run.late += 1
        return False
    inst.answer = Answer(message.id, data.decision, data.by, data.at_ms, data.comment)
    return True


def apply(
    run: Run, plan: Plan, event: ev.ApprovalRequested | ev.ApprovalGranted | ev.ApprovalDenied, at_ms: int
) -> None:
    """A step asks, or an answer has been dealt with: the step's end follows in the same decision."""
    if isinstance(event, ev.ApprovalRequested):
        inst = begin(run, plan, event.path, SLEEPING, at_ms)
        inst.timer, inst.timer_ms = TIMER, event.due_ms
        inst.question, inst.answer = event.hash, None
    else:
        inst = run.edit(event.path)
        inst.question, inst.answer = "", None
