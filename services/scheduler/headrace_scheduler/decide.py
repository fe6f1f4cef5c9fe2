"""What follows from a run's state: the events that are still missing, as one decision.

Pure, and it only reads: events are tried on a draft. Run it twice, or in two processes, and the log is the
same, because the broker takes one decision a version and every reader ignores any other.

Order of the questions: what was asked (cancel, pause, resume) → deadlines → reports → timers → what may start →
is it over?
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.envelope import Value
from headrace.contracts.errors import ExpressionError
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Plan, node_of
from headrace.pipeline.prices import PriceTable, shipped
from headrace_scheduler import starting
from headrace_scheduler.approvals import settle_approval
from headrace_scheduler.budgets import raise_budgets
from headrace_scheduler.caching import keep
from headrace_scheduler.containers import ask_outputs
from headrace_scheduler.draft import Writer
from headrace_scheduler.emits import is_emitted
from headrace_scheduler.emitting import settle_emit
from headrace_scheduler.ends import fail_attempt
from headrace_scheduler.outcomes import settle_outcome
from headrace_scheduler.paths import OUTPUTS, is_inside
from headrace_scheduler.questions import is_answered
from headrace_scheduler.records import (
    ACTIVE,
    CHILD,
    INSIDE,
    NULL,
    RUNNING,
    SLEEPING,
    STANDING,
    TIMELESS,
    Inst,
    Run,
    is_claimed,
)
from headrace_scheduler.reuse import Found, Reuse
from headrace_scheduler.signals import is_heard, stop_waiting

REFUSED: Final = Failure(
    code="concurrency_limit", message="as many runs with the same concurrency key are live as may be at a time"
)
CANCEL_GRACE_MS: Final = 10_000
"""How long a cancelled run waits for its children to say that they stopped."""
NAMED_MAX: Final = 20
"""Steps that a reason names; more help nobody."""
ENDING: Final = frozenset({"cancelling", "failing"})
"""Nothing begins any more but what undoes."""
HEADLINES: Final = (
    (ev.RunStalled, "run-stalled"),
    (ev.RunCompleted, "run-completed"),
    (ev.RunFailed, "run-failed"),
    (ev.RunCancelled, "run-cancelled"),
    (ev.RunFailing, "run-failing"),
    (ev.RunCancelling, "run-cancelling"),
    (ev.RunBlocked, "run-blocked"),
    (ev.RunPaused, "run-paused"),
    (ev.RunResumed, "run-resumed"),
    (ev.RunCreated, "run-created"),
)
TELLING: Final = frozenset(kind for kind, _ in HEADLINES)


@dataclass(slots=True)
class Limits:
    """What the cluster's state allows this run, beside its own limits."""

    left: dict[str, int]
    """Orders that may still be offered, by queue. Counted down here."""
    refused: set[str] = field(default_factory=set)
    """Queues for which something could have been offered and was not: come back when there is room."""
    lost: frozenset[str] = frozenset()
    """Instances whose holder died for the last time, or died holding a claimed at-most-once call."""
    definitions: Mapping[str, str] = field(default_factory=dict)
    """Newest digest by pipeline name, for children started by name."""
    reuse: Reuse = field(default_factory=Reuse)
    """Earlier results; what is wanted beside them is noted here."""
    prices: PriceTable = field(default_factory=shipped)
    """What models cost, for budgets."""


@dataclass(slots=True)
class Decision:
    """Events to append as one message, and the orders that follow from it."""

    version: int
    at_ms: int
    events: tuple[ev.DecisionEvent, ...]
    headline: str
    orders: dict[str, ev.Order]
    """By path, `decision` still empty where this decision schedules the attempt."""
    order: ev.Order | None
    """The one that goes inside, when exactly one step is scheduled."""
    blobs: list[tuple[str, bytes]]
    kept: Mapping[str, Found] = field(default_factory=dict)
    """Results to be kept for later by digest of their key, once this is in the log."""


def decide(run: Run, plan: Plan, *, now_ms: int, limits: Limits) -> Decision | None:
    """The next decision of a run, or None when no event is missing."""
    if run.ended or run.status == "stalled" or is_quiet(run, plan, now_ms, limits):
        return None
    return draft_decision(run, plan, now_ms=now_ms, limits=limits)


def draft_decision(run: Run, plan: Plan, *, now_ms: int, limits: Limits) -> Decision | None:
    """As `decide`, asking every question, which costs a draft of the run."""
    writer = Writer(run, plan, now_ms, limits.left, limits.refused, limits.definitions, limits.reuse)
    writer.prices = limits.prices
    _settle_controls(writer)
    raise_budgets(writer)
    if writer.run.status == "cancelling":
        _settle_cancelling(writer, limits.lost)
    elif writer.run.status == "failing":
        _settle_failing(writer, limits.lost)
    elif now_ms >= run.deadline_ms:
        fail_run(writer, Failure(code="deadline_exceeded", message="the run's deadline has passed"), path="")
    else:
        _settle_reports(writer)
        _settle_timers(writer, limits.lost)
        if run.key_answer == "refused" and not writer.events:
            fail_run(writer, REFUSED, path="")
        elif writer.run.status == "running" and (not run.key or run.key_answer == "granted"):
            starting.start(writer)
        _finish_or_fail(writer)
    if not writer.events:
        return None
    writer.drop_ended()
    headline, order = _headline(writer)
    return Decision(
        version=run.version + 1,
        at_ms=now_ms,
        events=tuple(writer.events),
        headline=headline,
        orders=writer.orders,
        order=order,
        blobs=writer.blobs,
        kept=writer.kept,
    )


def is_quiet(run: Run, plan: Plan, now_ms: int, limits: Limits) -> bool:
    """True when nothing has happened that an event could follow from, which is so after each decision was folded.

    Told without a draft, for a fraction of its cost. Every question that `decide` asks has its line here.
    """
    if run.controls or run.raises or run.reported or run.ready or limits.lost or run.open == 0 or run.status in ENDING:
        return False
    if now_ms >= run.deadline_ms or (run.lined and run.in_flight < plan.max_parallel):
        return False
    for path in run.active:
        inst = run.get(path)
        assert inst is not None, path
        if _is_called(run, plan, inst):
            return False
        if now_ms >= _due_ms(run, inst) or (inst.status in starting.HOLDERS and _may_move_on(run, plan, inst)):
            return False
    return True


def _is_called(run: Run, plan: Plan, inst: Inst) -> bool:
    """What a step waits for has come."""
    return is_answered(inst) or is_emitted(inst) or is_heard(run, plan, inst)


def _due_ms(run: Run, inst: Inst) -> int:
    """When time alone makes a decision about an active instance possible."""
    if inst.status == STANDING:
        return run.end_ms  # what stands in has a deadline of its own
    if inst.status in TIMELESS:
        return inst.deadline_ms
    return min(inst.timer_ms if inst.status == SLEEPING else inst.due_ms, inst.deadline_ms)


def _may_move_on(run: Run, plan: Plan, inst: Inst) -> bool:
    if inst.scope is not None:
        return inst.scope.open == 0
    if inst.turns is not None:
        return not inst.turns.living
    if inst.status == STANDING:
        fallback = node_of(plan, inst.path).fallback
        return fallback is not None and fallback.node is None
    foreach = node_of(plan, inst.path).foreach
    assert inst.fan is not None and foreach is not None, inst.path
    if inst.fan.cursor >= inst.fan.count:
        return inst.fan.in_flight == 0  # never in a folded state: the last item's end ends the whole
    return inst.fan.in_flight < foreach.max_parallel and run.in_flight < plan.max_parallel


def _headline(writer: Writer) -> tuple[str, ev.Order | None]:
    """What the subject says, and the order inside: executors listen to `scheduled.<queue>` only."""
    kinds = {type(event) for event in writer.events}
    if not kinds.isdisjoint(TELLING):
        return next(headline for kind, headline in HEADLINES if kind in kinds), None
    order = writer.only_order()
    return ("progressed" if order is None else f"scheduled.{order.queue}"), order


def next_due_ms(run: Run, plan: Plan, *, now_ms: int) -> int | None:
    """The earliest instant after `now_ms` at which time alone makes a decision possible; None when there is none.

    What is due already and still undecided waits for room, not for time: something else will touch the run.
    """
    if run.ended or run.status == "stalled":
        return None
    dues = [run.cancel_due_ms, run.undo_due_ms] if run.status in ENDING else [run.deadline_ms]
    for path in run.active:
        inst = run.get(path)
        assert inst is not None, path
        dues.append(_due_ms(run, inst))
        dues.append(inst.deadline_ms)
    return min((due for due in dues if due > now_ms), default=None)


# --- what was asked ----------------------------------------------------------------------------


def _settle_controls(writer: Writer) -> None:
    for kind, reason in list(writer.run.controls):
        match kind:
            case "pause":
                writer.emit(ev.RunPaused(reason=reason))
            case "resume":
                writer.emit(ev.RunResumed())
            case _:
                writer.emit(ev.RunCancelling(reason=reason, due_ms=writer.now_ms + CANCEL_GRACE_MS))
                _cancel_active(writer, children=False)
                return


def _settle_cancelling(writer: Writer, lost: frozenset[str]) -> None:
    run = writer.run
    if not run.undo_began:
        _cancel_active(writer, children=False)  # what did not fit the decision that began it
        for path in list(run.reported):
            inst = run.get(path)
            if inst is not None and inst.status == CHILD:
                writer.emit(ev.StepCancelled(path=path))
        _cancel_active(writer, children=False)  # what was around them
        if run.active and writer.now_ms < run.cancel_due_ms:
            return
        _cancel_active(writer, children=True)
    if _has_undone(writer, lost):
        writer.emit(ev.RunCancelled(reason=run.cancel_reason + _not_undone(run)))


def _settle_failing(writer: Writer, lost: frozenset[str]) -> None:
    run = writer.run
    if not run.undo_began:
        _cancel_active(writer, children=True)
    if _has_undone(writer, lost):
        assert run.failure is not None
        causes = (*run.failure.causes, *([_not_undone(run)] if run.undo else []))
        failure = msgspec.structs.replace(run.failure, causes=causes)
        writer.emit(ev.RunFailed(failure=failure, path=run.failing_path))


def _has_undone(writer: Writer, lost: frozenset[str]) -> bool:
    """Undo what succeeded, one step after another, the last first. True when that is over."""
    run = writer.run
    if writer.full:
        return False
    if run.undo and writer.now_ms >= run.undo_due_ms:
        _cancel_active(writer, children=True)
        return True
    if run.undo_began:
        _settle_reports(writer)
        _settle_timers(writer, lost)
        starting.start(writer)
    while run.undo and not run.active and not run.ready and not run.lined and not writer.full:
        writer.emit(ev.CompensationStarted(path=run.undo[-1]))
        starting.start(writer)
    return not run.undo


def _not_undone(run: Run) -> str:
    return f"not undone in time: {', '.join(run.undo[:NAMED_MAX])}" if run.undo else ""


def _cancel_active(writer: Writer, *, children: bool) -> None:
    run = writer.run
    awaited = [] if children else [path for path in run.active if (inst := run.get(path)) and inst.status == CHILD]
    for path in sorted(run.active, key=len, reverse=True):  # what is deepest first
        if writer.crowded:
            return
        if not any(path == child or is_inside(child, path) for child in awaited):
            writer.emit(ev.StepCancelled(path=path))


def fail_run(writer: Writer, failure: Failure, *, path: str) -> None:
    """End the run as failed. What is in flight is cancelled with it, and says so as far as one decision holds it."""
    _cancel_active(writer, children=True)
    if writer.run.undo:
        writer.emit(ev.RunFailing(failure=failure, path=path, due_ms=writer.now_ms + names.UNDO_MS))
    else:
        writer.emit(ev.RunFailed(failure=failure, path=path))


# --- what was heard ----------------------------------------------------------------------------


def _settle_reports(writer: Writer) -> None:
    for path in list(writer.run.reported):
        if writer.full:
            return
        inst = writer.run.get(path)
        if inst is None or inst.report is None:
            continue
        report = inst.report
        if inst.status == CHILD:
            status = "completed" if report.failure is None else "failed"
            if report.failure is not None and report.failure.code == "child_cancelled":
                status = "cancelled"
            writer.emit(
                ev.ChildEnded(path=path, attempt=inst.attempt, child=inst.child, status=status, failure=report.failure)
            )
        if report.deferred:
            due_ms = max(writer.now_ms, report.deferred_ms)
            why = report.detail or "the executor could not run it yet"
            reason = Failure(code=report.deferred, message=why, retryable=True)
            writer.emit(ev.TimerSet(path=path, timer="deferred", due_ms=due_ms, attempt=inst.attempt, failure=reason))
        elif report.failure is not None:
            fail_attempt(writer, inst, report.failure)
        else:
            _succeed(writer, inst, report.id, report.value)


def _succeed(writer: Writer, inst: Inst, report: str, value: Value | None) -> None:
    path = inst.path
    child = inst.status == CHILD
    if child:
        writer.emit(ev.StepCompleted(path=path, attempt=inst.attempt, report=report, output=value))
    else:
        if inst.cache_key and value is not None:
            keep(writer, inst.cache_key, path, report, value)
        writer.emit(ev.StepCompleted(path=path, attempt=inst.attempt, report=report))
    if path == OUTPUTS:
        assert value is not None
        writer.emit(ev.RunCompleted(outputs=value, degraded=writer.run.degraded))


# --- what time brings --------------------------------------------------------------------------


def _settle_timers(writer: Writer, lost: frozenset[str]) -> None:
    for path in list(writer.run.active):
        if writer.full:
            return
        inst = writer.run.get(path)
        if inst is None or inst.report is not None or inst.status not in ACTIVE:
            continue  # it has ended with what is around it
        if inst.status == STANDING:
            continue  # what stands in has a deadline of its own
        if writer.now_ms >= inst.deadline_ms:
            writer.fail_step(path, Failure(code="deadline_exceeded", message=f"{path}: the step's deadline has passed"))
        elif inst.status == RUNNING and path in lost:
            fail_attempt(writer, inst, _lost(writer, inst))
        elif inst.status in (RUNNING, CHILD, INSIDE) and writer.now_ms >= inst.due_ms:
            fail_attempt(writer, inst, _overdue(writer, inst))
        elif inst.status == SLEEPING and (writer.now_ms >= inst.timer_ms or _is_called(writer.run, writer.plan, inst)):
            _fire(writer, inst)


def _claimed(writer: Writer, inst: Inst) -> bool:
    """An at-most-once call of the current attempt may have happened."""
    return is_claimed(inst, writer.plan)


def _unknown(writer: Writer, inst: Inst) -> Failure:
    again = node_of(writer.plan, inst.path).on_unknown == "retry"
    message = f"{inst.path}: the call was begun by {inst.claim_holder} and its outcome is unknown"
    return Failure(code="outcome_unknown", message=message, retryable=again)


def _lost(writer: Writer, inst: Inst) -> Failure:
    if _claimed(writer, inst):
        return _unknown(writer, inst)
    message = f"{inst.path}: the executors that held the order died {inst.lost + 1} times"
    return Failure(code="executor_lost", message=message, retryable=True)


def _overdue(writer: Writer, inst: Inst) -> Failure:
    if inst.status == RUNNING and _claimed(writer, inst):
        return _unknown(writer, inst)
    return Failure(code="timeout", message=f"{inst.path}: no result by the attempt's deadline", retryable=True)


def _fire(writer: Writer, inst: Inst) -> None:
    match inst.timer:
        case "wait":
            writer.emit(ev.TimerFired(path=inst.path, timer="wait"))
            writer.emit(ev.StepCompleted(path=inst.path, output=NULL))
        case "emit":
            settle_emit(writer, inst)
        case "outcome":
            settle_outcome(writer, inst)
        case "approval":
            settle_approval(writer, node_of(writer.plan, inst.path), inst)
        case "signal":
            stop_waiting(writer, node_of(writer.plan, inst.path), inst.path)
        case _ if writer.run.status in ("paused", "blocked") or writer.fatal is not None or not writer.room():
            return
        case "deferred" if writer.take(inst.queue):
            writer.emit(ev.TimerFired(path=inst.path, timer="deferred"))
            writer.reoffer(inst.path)
        case "retry" if _claimed(writer, inst):
            fail_attempt(writer, inst, _unknown(writer, inst))  # a holder thought dead has begun the call since
        case "retry":
            starting.schedule(writer, inst.path, attempt=inst.attempt + 1)


# --- is it over? -------------------------------------------------------------------------------


def _finish_or_fail(writer: Writer) -> None:
    run = writer.run
    if run.ended:
        return
    if writer.fatal is not None:
        path, failure = writer.fatal
        fail_run(writer, failure, path=path)
        return
    if run.open > 0 or writer.full or run.get(OUTPUTS) is not None:
        return
    try:
        answer = ask_outputs(writer, "")
    except ExpressionError as error:
        fail_run(writer, error.failure(), path="outputs")
        return
    if answer is not None:
        writer.emit(ev.RunCompleted(outputs=answer.stored(writer), degraded=run.degraded))
