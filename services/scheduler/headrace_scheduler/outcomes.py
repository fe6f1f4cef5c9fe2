"""Calls that may happen once only and whose outcome nobody knows: a person is asked, and what they say is done. Pure.

A report that comes after all is the truth, and wins over an answer that no decision has taken.
"""

from typing import TYPE_CHECKING, Any

from headrace.contracts import events as ev
from headrace.contracts.codec import inline
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Plan, approval_hash, node_of
from headrace_scheduler.records import NULL, Inst

if TYPE_CHECKING:  # the writer calls these functions; naming its type back is no dependency
    from headrace_scheduler.draft import Writer


def asks(plan: Plan, path: str, failure: Failure) -> bool:
    """True when a person decides what follows from this failure."""
    return failure.code == "outcome_unknown" and "?" not in path and node_of(plan, path).on_unknown == "ask"


def question(path: str, attempt: int, call: str) -> dict[str, Any]:
    """What is shown of an attempt: the same in every process."""
    message = (
        f"The outcome of attempt {attempt} of `{path}` ({call}) is unknown. Has the call happened? `retry` makes it"
        " again, `fail` fails the step, `complete` takes the value that it gave."
    )
    return {"message": message, "attempt": attempt, "call": call}


def ask_outcome(writer: "Writer", inst: Inst, failure: Failure) -> None:
    """Show what is known of the call, and wait for as long as the run may."""
    node = node_of(writer.plan, inst.path)
    shown = question(inst.path, inst.attempt, node.tool or node.kind)
    writer.emit(
        ev.ApprovalRequested(
            path=inst.path,
            shown=inline(shown),
            hash=approval_hash(shown),
            due_ms=writer.run.end_ms,
            attempt=inst.attempt,
            unknown=failure,
        )
    )


def settle_outcome(writer: "Writer", inst: Inst) -> None:
    """Do what was answered; where nobody did before the run's end, the outcome stays unknown."""
    path, given, failure = inst.path, inst.answer, inst.failure
    assert failure is not None, path
    if given is None:
        writer.fail_step(path, failure)
        return
    writer.emit(
        ev.OutcomeSettled(
            path=path,
            attempt=inst.attempt,
            answer=given.id,
            decision=given.decision,
            by=given.by,
            comment=given.comment,
        )
    )
    match given.decision:
        case "retry":
            writer.emit(
                ev.TimerSet(
                    path=path,
                    timer="retry",
                    due_ms=writer.now_ms,
                    attempt=inst.attempt,
                    claim_seq=inst.claim_seq,
                    failure=failure,
                )
            )
        case "complete":
            writer.emit(ev.StepCompleted(path=path, attempt=inst.attempt, output=given.value or NULL))
        case _:
            writer.fail_step(path, failure)
