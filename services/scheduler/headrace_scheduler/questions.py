"""Questions to people, as the fold knows them: what is asked, and the answer that no decision has dealt with. Pure."""

from typing import Final

from headrace.contracts import events as ev
from headrace.pipeline.plan import Plan
from headrace_scheduler.instances import begin
from headrace_scheduler.records import SLEEPING, Answer, Inst, Run

TIMER: Final = "approval"
"""What wakes a step that asks, if nobody answers."""
OUTCOME: Final = "outcome"
"""As TIMER, of a step whose call may have happened: what woke it would be the run's own end."""
ANSWERS: Final = {TIMER: ("approve", "reject"), OUTCOME: ("retry", "fail", "complete")}

Asked = ev.ApprovalRequested | ev.ApprovalGranted | ev.ApprovalDenied | ev.OutcomeSettled


def is_answered(inst: Inst) -> bool:
    """True when a step asks, and has its answer."""
    return inst.answer is not None and is_asking(inst)


def is_asking(inst: Inst) -> bool:
    """True while an answer may come."""
    return inst.status == SLEEPING and inst.timer in ANSWERS


def hear(run: Run, message: ev.ApprovalGiven) -> bool:
    """Take the first answer in time to what is shown. False when it changes nothing."""
    data, inst = message.data, run.get(message.data.step)
    if (
        run.ended
        or inst is None
        or not is_asking(inst)
        or inst.answer is not None
        or (inst.question, inst.attempt) != (data.hash, data.attempt)
        or data.decision not in ANSWERS[inst.timer]
        or data.at_ms > inst.timer_ms
    ):
        run.late += 1
        return False
    inst.answer = Answer(message.id, data.decision, data.by, data.at_ms, data.comment, data.value)
    return True


def apply(run: Run, plan: Plan, event: Asked, at_ms: int) -> None:
    """A step asks, or an answer has been dealt with: what follows from it is said in the same decision."""
    if isinstance(event, ev.ApprovalRequested):
        inst = begin(run, plan, event.path, SLEEPING, at_ms)
        inst.timer, inst.timer_ms = TIMER if event.unknown is None else OUTCOME, event.due_ms
        inst.question, inst.answer, inst.failure = event.hash, None, event.unknown
        if event.unknown is not None:
            inst.deadline_ms = event.due_ms  # a person has the time that the run has
        return
    inst = run.edit(event.path)
    inst.question, inst.answer = "", None
    if isinstance(event, ev.OutcomeSettled):
        inst.deadline_ms = 0  # the time that a person took is not the step's: it begins anew
