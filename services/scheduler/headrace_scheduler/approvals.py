"""Steps that ask a person: what is shown, and what follows from the answer, or from none. Pure."""

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.codec import encode_value
from headrace.contracts.errors import ExpressionError
from headrace.contracts.failure import Failure
from headrace.contracts.instants import rfc3339
from headrace.pipeline.plan import Node, approval_hash
from headrace_scheduler.asking import ask
from headrace_scheduler.draft import Writer
from headrace_scheduler.paths import evaluation
from headrace_scheduler.questions import TIMER
from headrace_scheduler.records import Answer, Inst


def request_approval(writer: Writer, node: Node, path: str) -> None:
    """Show what is to be approved, and wait.

    Raises:
        ExpressionError: what is shown cannot be made, or is more than a person could read.
    """
    assert node.approval is not None, path
    answer = ask(writer, evaluation(path, "spec"), node.spec)
    if answer is None:
        return
    shown = answer.at_hand(path, "what is shown")
    size = len(encode_value(shown))
    if size > names.INLINE_BYTES_MAX:
        message = f"{path}: what is shown takes {size} bytes; at most {names.INLINE_BYTES_MAX} are allowed"
        raise ExpressionError(message, code="too_large")
    writer.emit(
        ev.ApprovalRequested(
            path=path,
            shown=writer.store(shown),
            hash=approval_hash(shown),
            due_ms=min(writer.now_ms + node.approval.timeout_ms, writer.run.end_ms),
            by=node.approval.by,
        )
    )


def settle_approval(writer: Writer, node: Node, inst: Inst) -> None:
    """Somebody has answered, or the time has passed. An answer that came in time counts, however late it is seen."""
    assert node.approval is not None, inst.path
    path, given = inst.path, inst.answer
    if given is None:
        writer.emit(ev.TimerFired(path=path, timer=TIMER))
        reason = "nobody answered in time"
        if node.approval.skip_on_timeout:
            writer.emit(ev.StepSkipped(path=path, reason=reason))
        else:
            writer.fail_step(path, Failure(code="timeout", message=f"{path}: {reason}"))
    elif given.decision == "approve":
        writer.emit(ev.ApprovalGranted(path=path, answer=given.id, by=given.by, comment=given.comment))
        writer.emit(ev.StepCompleted(path=path, output=writer.store(_output(given))))
    else:
        writer.emit(ev.ApprovalDenied(path=path, answer=given.id, by=given.by, comment=given.comment))
        why = f": {given.comment}" if given.comment else ""
        writer.fail_step(path, Failure(code="rejected", message=f"{path}: rejected by {given.by}{why}"))


def _output(given: Answer) -> dict[str, str]:
    return {"decision": "approved", "by": given.by, "at": rfc3339(given.at_ms), "comment": given.comment}
