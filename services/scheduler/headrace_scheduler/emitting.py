"""Steps that publish an event: what is to be published, and when the step has ended. Pure."""

from headrace.contracts import events as ev
from headrace.contracts import ids, names
from headrace.contracts.codec import encode_value
from headrace.contracts.errors import ExpressionError
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Node
from headrace_scheduler.asking import ask
from headrace_scheduler.draft import Writer
from headrace_scheduler.emits import TIMER
from headrace_scheduler.paths import evaluation
from headrace_scheduler.records import NULL, Inst


def start_emit(writer: Writer, node: Node, path: str) -> None:
    """Say what is to be published; refuse it when events have led to events too often.

    Raises:
        ExpressionError: what it says cannot be made, or is too large for a message.
    """
    run = writer.run
    if run.hops >= names.EVENT_HOPS_MAX:
        message = (
            f"{path}: {run.hops} events led to this run, one from another; at most {names.EVENT_HOPS_MAX} may: does the"
            " pipeline trigger itself? What is to go on for ever is a schedule"
        )
        writer.fail_step(path, Failure(code="hops_limit", message=message))
        return
    answer = ask(writer, evaluation(path, "spec"), node.spec)
    if answer is None:
        return
    data = answer.at_hand(path, "the event")["data"]
    size = len(encode_value(data))
    if size > names.INLINE_BYTES_MAX:
        message = f"{path}: the event takes {size} bytes; at most {names.INLINE_BYTES_MAX} are allowed"
        raise ExpressionError(message, code="too_large")
    event_id = ids.event_id("io.headrace.emit.started.v1", run.tenant, run.run, path)
    writer.emit(ev.EmitStarted(path=path, name=node.emit, event=event_id, data=writer.store(data), hops=run.hops + 1))


def settle_emit(writer: Writer, inst: Inst) -> None:
    """The broker has the event, or the run's time has passed; then nobody knows whether it has."""
    if inst.emitted:
        writer.emit(ev.StepCompleted(path=inst.path, output=NULL))
        return
    writer.emit(ev.TimerFired(path=inst.path, timer=TIMER))
    message = f"{inst.path}: the broker has not said that it has the event; it may have it"
    writer.fail_step(inst.path, Failure(code="outcome_unknown", message=message))
