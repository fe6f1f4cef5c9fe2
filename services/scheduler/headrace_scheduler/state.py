"""What we know of a run: the fold of its messages, in stream order.

Pure: no clock, no I/O, no randomness. `evolve` updates in place because a run's state has exactly one owner,
and copying it for every event would make big runs quadratic. A draft is the exception: `decide` applies the
events it is about to say to a draft, which copies only what it touches, so that deciding never changes the
state it read.

Three rules keep every reader's state equal:
- a decision counts only when its version is the state's version + 1;
- a report counts only when it is the first terminal one of the current attempt and names the accepted decision;
- orders and claims change nothing but what is known about offers.
"""

from bisect import insort
from typing import Final, assert_never

import msgspec

from headrace.contracts import events as ev
from headrace.contracts.envelope import ItemResult, Value
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Node, Plan, node_of
from headrace_scheduler.deadlines import attempt_window_ms
from headrace_scheduler.records import (
    ACTIVE,
    CANCELLED,
    CHILD,
    FAILED,
    FANNED,
    READY,
    RUNNING,
    SKIPPED,
    SLEEPING,
    SUCCEEDED,
    WAITING,
    Fan,
    Inst,
    Report,
    item_of,
)
from headrace_scheduler.records import Run as Run

CONTROLLABLE: Final = {
    "pause": ("running",),
    "resume": ("paused",),
    "cancel": ("running", "paused", "blocked"),
}
"""In which status a control changes anything."""
INPUTS_REMEMBERED: Final = 64
"""Inputs are deduplicated by the broker for two minutes; this covers later redeliveries of the same command."""


def created(message: ev.RunDecided) -> Run | None:
    """The run that a first decision makes, still at version 0; None when the message is no first decision."""
    first = message.data.events[0] if message.data.events else None
    if message.data.version != 1 or not isinstance(first, ev.RunCreated):
        return None
    return Run(run=message.runid, tenant=message.tenant, pipeline=message.pipeline, defdigest=first.defdigest)


def evolve(run: Run, seq: int, message: ev.RunMessage, plan: Plan) -> bool:
    """Fold one message, stored at `seq`, into the run. False when it changed nothing a decision could depend on."""
    match message:
        case ev.RunDecided():
            return _evolve_decided(run, seq, message, plan)
        case ev.StepOrdered():
            return _evolve_ordered(run, seq, message)
        case ev.AttemptSucceeded():
            report = Report(message.id, value=message.data.output, usage=message.data.usage)
            return _evolve_report(run, message.stepid, message.attempt, message.data.decision, report)
        case ev.AttemptFailed():
            report = Report(message.id, failure=message.data.failure, usage=message.data.usage)
            return _evolve_report(run, message.stepid, message.attempt, message.data.decision, report)
        case ev.AttemptDeferred():
            report = Report(message.id, deferred=message.data.reason, deferred_ms=message.data.due_ms)
            if (inst := run.get(message.stepid)) is not None and message.data.offer < inst.want_offer:
                run.late += 1
                return False  # a newer offer is out, and may run
            return _evolve_report(run, message.stepid, message.attempt, message.data.decision, report)
        case ev.AttemptStarted():
            return _evolve_claim(run, seq, message)
        case ev.CancelRequested():
            return _evolve_control(run, message.id, "cancel", message.data.reason)
        case ev.PauseRequested():
            return _evolve_control(run, message.id, "pause", message.data.reason)
        case ev.ResumeRequested():
            return _evolve_control(run, message.id, "resume", message.data.reason)
        case ev.ChildReported():
            return _evolve_child(run, message)
        case _:
            assert_never(message)


def _evolve_decided(run: Run, seq: int, message: ev.RunDecided, plan: Plan) -> bool:
    data = message.data
    if (message.tenant, message.pipeline) != (run.tenant, run.pipeline):
        run.late += 1  # a second creation under another pipeline: its subject is not in this run's scope
        return False
    run.decision_seq = seq  # one that does not count stands in the scope all the same: the next is checked against it
    if data.version != run.version + 1 or run.ended:
        run.late += 1
        return False
    run.version, run.decision_id = data.version, message.id
    if data.version == 1:
        run.correlation, run.traceparent, run.tracestate = (
            message.correlationid,
            message.traceparent,
            message.tracestate,
        )
    ordered = data.order.path if data.order is not None else ""
    for event in data.events:
        apply(run, plan, event, at_ms=data.at_ms)
        if isinstance(event, ev.StepScheduled):
            inst = run.edit(event.path)
            inst.decision, inst.version = message.id, data.version
            if event.path == ordered:
                inst.offer, inst.order_seq = 1, seq
                run.unordered.pop(event.path, None)
    return True


def _evolve_ordered(run: Run, seq: int, message: ev.StepOrdered) -> bool:
    order = message.data
    inst = run.get(order.path)
    if inst is None or inst.status != RUNNING or inst.attempt != order.attempt or inst.decision != order.decision:
        run.late += 1
        return False
    if order.offer <= inst.offer:
        return False
    if order.offer > inst.want_offer:
        inst.lost += order.offer - inst.want_offer
        inst.want_offer = order.offer
    inst.offer, inst.order_seq = order.offer, seq
    if inst.offer >= inst.want_offer:
        run.unordered.pop(order.path, None)
    return False


def _evolve_report(run: Run, path: str, attempt: int, decision: str, report: Report) -> bool:
    inst = run.get(path)
    if (
        run.ended
        or inst is None
        or not _hears(inst, report)
        or inst.attempt != attempt
        or inst.decision != decision
        or inst.report is not None
    ):
        run.late += 1
        return False
    inst.report = report
    run.reported[path] = None
    return True


def _hears(inst: Inst, report: Report) -> bool:
    """An attempt that was deferred still ends when another holder of its order, thought dead, reports a result."""
    return inst.status == RUNNING or (inst.status == SLEEPING and inst.timer == "deferred" and not report.deferred)


def _evolve_claim(run: Run, seq: int, message: ev.AttemptStarted) -> bool:
    inst = run.get(message.stepid)
    if inst is None:
        run.late += 1
        return False
    inst.claim_seq, inst.claim_attempt, inst.claim_holder = seq, message.attempt, message.data.executor
    return False


def _evolve_control(run: Run, message_id: str, kind: str, reason: str) -> bool:
    if run.ended or message_id in run.inputs_seen:
        run.late += 1
        return False
    run.inputs_seen.append(message_id)
    del run.inputs_seen[:-INPUTS_REMEMBERED]
    coming = {"pause": "paused", "resume": "running", "cancel": "cancelling"}
    status = coming[run.controls[-1][0]] if run.controls else run.status
    if status in CONTROLLABLE[kind]:
        run.controls.append((kind, reason))
        return True
    return False


def _evolve_child(run: Run, message: ev.ChildReported) -> bool:
    data, inst = message.data, run.get(message.stepid)
    if (
        run.ended
        or inst is None
        or inst.status != CHILD
        or (inst.child, inst.attempt) != (data.child, data.attempt)
        or inst.report is not None
    ):
        run.late += 1
        return False
    failure = data.failure
    if data.status == "cancelled" and failure is None:
        failure = Failure(code="child_cancelled", message=f"child run {data.child} was cancelled")
    elif data.status != "completed" and failure is None:
        failure = Failure(code="child_failed", message=f"child run {data.child} failed and did not say why")
    inst.report = Report(message.id, value=data.outputs, failure=failure)
    run.reported[inst.path] = None
    return True


# --- events inside decisions -------------------------------------------------------------------


def apply(run: Run, plan: Plan, event: ev.DecisionEvent, *, at_ms: int) -> None:  # noqa: C901 - one flat table of events
    """Fold one event of an accepted decision, or one that `decide` is about to say."""
    match event:  # classes are asked in turn: the two that most decisions are made of come first
        case ev.StepScheduled():
            _apply_scheduled(run, event, at_ms)
        case ev.StepCompleted():
            _apply_completed(run, plan, event)
        case ev.RunCreated():
            _apply_created(run, plan, event, at_ms)
        case ev.RunCompleted():
            run.status, run.outputs = "completed", event.outputs
        case ev.RunFailed():
            run.status, run.failure = "failed", event.failure
        case ev.RunCancelling():
            run.status, run.cancel_due_ms, run.cancel_reason = "cancelling", event.due_ms, event.reason
            run.controls = []
        case ev.RunCancelled():
            run.status = "cancelled"
        case ev.RunPaused():
            run.status, run.controls = "paused", run.controls[1:]
        case ev.RunResumed():
            run.status, run.controls = "running", run.controls[1:]
        case ev.RunBlocked():
            run.status = "blocked"
        case ev.RunStalled():
            run.status, run.failure = "stalled", event.failure
        case ev.StepFailed():
            _end(run, plan, run.edit(event.path), FAILED, failure=event.failure)
        case ev.StepSkipped():
            _end(run, plan, run.edit(event.path), SKIPPED)
        case ev.StepCancelled():
            _end(run, plan, run.edit(event.path), CANCELLED)
        case ev.ForeachStarted():
            inst = _begin(run, event.path, FANNED, at_ms)
            inst.fan = _fan(event)
        case ev.TimerSet():
            inst = _begin(run, event.path, SLEEPING, at_ms)
            if event.timer == "retry":
                inst.claim_base = event.claim_seq
            inst.timer, inst.timer_ms, inst.failure = event.timer, event.due_ms, event.failure
        case ev.TimerFired():
            _apply_fired(run, plan, event, at_ms)
        case ev.ChildStarted():
            inst = _begin(run, event.path, CHILD, at_ms)
            inst.child, inst.attempt, inst.due_ms = event.child, event.attempt, event.due_ms
            inst.scheduled_ms, inst.begun = at_ms, event
        case ev.ChildEnded():
            pass  # for readers: the step's own end follows in the same decision
        case _:
            assert_never(event)


def _fan(event: ev.ForeachStarted) -> Fan:
    if event.items.ref:
        return Fan(count=event.count, ref=event.items.ref)
    assert isinstance(event.items.json, msgspec.Raw)
    return Fan(count=event.count, items=msgspec.json.decode(event.items.json, type=list[msgspec.Raw]))


def _apply_created(run: Run, plan: Plan, event: ev.RunCreated, at_ms: int) -> None:
    run.created_ms, run.deadline_ms, run.inputs = at_ms, event.deadline_ms, event.inputs
    run.labels, run.request, run.durability = event.labels, event.request, event.durability
    run.parent, run.parent_path, run.depth = event.parent, event.parent_path, event.depth
    run.open = len(plan.nodes)
    for node in plan.nodes:
        inst = run.edit(node.id)
        inst.unmet = len(node.needs)
        if inst.unmet == 0:
            _make_ready(run, node, inst)


def _make_ready(run: Run, node: Node, inst: Inst) -> None:
    inst.status = READY
    insort(run.ready, (-node.priority, node.index, inst.path))


def _begin(run: Run, path: str, status: str, at_ms: int, *, queue: str = "") -> Inst:
    """Move an instance to an active status, wherever it came from."""
    inst = run.edit(path)
    _leave(run, inst)
    _drop_evaluations(run, path)
    if item_of(path) is not None and inst.first_ms == 0:
        _take_from_window(run, path)
    if "?" in path and not inst.first_ms:
        run.evaluations += 1
    inst.status = status
    inst.first_ms = inst.first_ms or at_ms
    inst.report = None
    run.active[path] = None
    if status in (RUNNING, CHILD):
        run.in_flight += 1
    if status == RUNNING:
        inst.queue = queue
        run.out[queue] = run.out.get(queue, 0) + 1
    return inst


def _drop_evaluations(run: Run, path: str) -> None:
    if not run.evaluations:
        return
    for evaluation in (f"{path}?when", f"{path}?items"):
        if run.get(evaluation) is not None:
            run.drop(evaluation)
            run.evaluations -= 1


def _leave(run: Run, inst: Inst) -> None:
    """Undo what the present status counts."""
    if inst.status == READY:
        place = 0  # steps leave in the list's order, so that the first is nearly always the one
        while run.ready[place][2] != inst.path:
            place += 1
        del run.ready[place]
    elif inst.status in ACTIVE:
        run.active.pop(inst.path, None)
        run.reported.pop(inst.path, None)
        run.unordered.pop(inst.path, None)
        if inst.status in (RUNNING, CHILD):
            run.in_flight -= 1
        if inst.status == RUNNING:
            run.out[inst.queue] -= 1


def _take_from_window(run: Run, path: str) -> None:
    owner, index = item_of(path) or ("", 0)
    fan = run.edit(owner).fan
    assert fan is not None and index == fan.cursor, (path, fan)
    fan.cursor += 1
    fan.in_flight += 1


def _apply_scheduled(run: Run, event: ev.StepScheduled, at_ms: int) -> None:
    inst = _begin(run, event.path, RUNNING, at_ms, queue=event.queue)
    inst.attempt, inst.offer, inst.want_offer, inst.order_seq, inst.lost = event.attempt, 0, 1, 0, 0
    inst.scheduled_ms, inst.not_after_ms, inst.due_ms = at_ms, event.not_after_ms, event.due_ms
    inst.input_sha, inst.timer, inst.timer_ms = event.input_sha, "", 0
    inst.decision, inst.version = "", 0  # known once the decision that says this is in the log
    run.unordered[event.path] = None


def _apply_fired(run: Run, plan: Plan, event: ev.TimerFired, at_ms: int) -> None:
    inst = run.edit(event.path)
    if event.timer != "deferred" or inst.status != SLEEPING:
        return  # a retry is followed by its step-scheduled, a wait by its step-completed
    _leave(run, inst)
    inst.status, inst.timer, inst.timer_ms = RUNNING, "", 0
    inst.not_after_ms, inst.due_ms = attempt_window_ms(
        plan, event.path, run_deadline_ms=run.deadline_ms, first_ms=inst.first_ms, at_ms=at_ms
    )
    run.active[event.path] = None
    if inst.report is None:
        inst.want_offer = inst.offer + 1
        run.unordered[event.path] = None
    else:
        run.reported[event.path] = None  # a result that whoever fired the timer had not seen
    run.in_flight += 1
    run.out[inst.queue] = run.out.get(inst.queue, 0) + 1


def _apply_completed(run: Run, plan: Plan, event: ev.StepCompleted) -> None:
    inst = run.edit(event.path)
    output = event.output
    if output is None and inst.report is not None:
        output = inst.report.value
    _end(run, plan, inst, SUCCEEDED, output=output)


def _end(
    run: Run,
    plan: Plan,
    inst: Inst,
    status: str,
    *,
    output: Value | None = None,
    failure: Failure | None = None,
) -> None:
    """An instance is terminal: keep its result, shrink it, and count down who waits for it."""
    _leave(run, inst)
    item = item_of(inst.path)
    if item is not None:
        if inst.first_ms == 0:
            _take_from_window(run, inst.path)
        _end_item(run, item, ItemResult(status=status, value=output, failure=failure))
        run.drop(inst.path)
        return
    inst.usage = None if inst.report is None else inst.report.usage
    inst.status, inst.output, inst.failure, inst.report, inst.fan, inst.begun = (
        status,
        output,
        failure,
        None,
        None,
        None,
    )
    if "?" in inst.path:
        return  # an evaluation: kept until its owner begins or ends
    _drop_evaluations(run, inst.path)
    run.open -= 1
    for dependent in node_of(plan, inst.path).dependents:
        node = plan.nodes[dependent]
        waiting = run.edit(node.id)
        waiting.unmet -= 1
        if waiting.unmet == 0 and waiting.status == WAITING:
            _make_ready(run, node, waiting)


def _end_item(run: Run, item: tuple[str, int], result: ItemResult) -> None:
    owner, index = item
    fan = run.edit(owner).fan
    if fan is None:
        return  # the foreach itself has ended; its items' ends are for the record
    fan.results[index] = result
    fan.in_flight -= 1
    fan.done += 1
    if result.status == FAILED:
        fan.failed += 1
