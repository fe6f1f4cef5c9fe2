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

from typing import Final, assert_never

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import names, rounds
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import ROOT, Plan, node_of
from headrace_scheduler import emits, questions
from headrace_scheduler.deadlines import attempt_window_ms
from headrace_scheduler.forking import take_over
from headrace_scheduler.instances import begin, call_standby, end, leave, open_block, open_scope, stand_in, store_items
from headrace_scheduler.ledger import charge_lost, raise_limit, reserve
from headrace_scheduler.records import (
    CANCELLED,
    CHILD,
    FAILED,
    FANNED,
    INSIDE,
    RUNNING,
    SKIPPED,
    SLEEPING,
    SUCCEEDED,
    TURNING,
    WAITING,
    Fan,
    Inst,
    Report,
    Signal,
    Turns,
)
from headrace_scheduler.records import Run as Run

CONTROLS: Final[dict[type, str]] = {
    ev.CancelRequested: "cancel",
    ev.PauseRequested: "pause",
    ev.ResumeRequested: "resume",
}
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
            report = Report(message.id, value=message.data.output, usage=message.data.usage, cost=message.data.cost)
            return _evolve_report(run, message.stepid, message.attempt, message.data.decision, report)
        case ev.AttemptFailed():
            report = Report(message.id, failure=message.data.failure, usage=message.data.usage, cost=message.data.cost)
            return _evolve_report(run, message.stepid, message.attempt, message.data.decision, report)
        case ev.AttemptDeferred():
            data = message.data
            report = Report(message.id, deferred=data.reason, deferred_ms=data.due_ms, detail=data.detail)
            if (inst := run.get(message.stepid)) is not None and message.data.offer < inst.want_offer:
                run.late += 1
                return False  # a newer offer is out, and may run
            return _evolve_report(run, message.stepid, message.attempt, message.data.decision, report)
        case ev.AttemptStarted():
            return _evolve_claim(run, seq, message)
        case ev.CancelRequested() | ev.PauseRequested() | ev.ResumeRequested():
            return _evolve_control(run, message)
        case ev.SignalReceived() | ev.BudgetRaiseRequested():
            return _evolve_sent(run, message)
        case ev.ApprovalGiven() | ev.EventPublished():
            return questions.hear(run, message) if isinstance(message, ev.ApprovalGiven) else emits.hear(run, message)
        case ev.ChildReported():
            return _evolve_child(run, message)
        case ev.KeyAnswered():
            return _evolve_key(run, message)
        case rounds.TurnCompleted() | rounds.ToolStarted() | rounds.ToolCompleted():
            return False  # what an attempt does meanwhile: its report says how it ends
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
        charge_lost(run, inst, order.offer - inst.want_offer)
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
    """An attempt that was deferred, or whose outcome a person is asked for, still ends when another holder of its
    order, thought dead, reports a result."""
    waits = inst.status == SLEEPING and inst.timer in ("deferred", questions.OUTCOME)
    return inst.status == RUNNING or (waits and not report.deferred)


def _evolve_claim(run: Run, seq: int, message: ev.AttemptStarted) -> bool:
    inst = run.get(message.stepid)
    if inst is None:
        run.late += 1
        return False
    inst.claim_seq, inst.claim_attempt, inst.claim_holder = seq, message.attempt, message.data.executor
    return False


def _evolve_control(run: Run, message: ev.CancelRequested | ev.PauseRequested | ev.ResumeRequested) -> bool:
    if run.ended or message.id in run.inputs_seen:
        run.late += 1
        return False
    run.inputs_seen.append(message.id)
    del run.inputs_seen[:-INPUTS_REMEMBERED]
    kind = CONTROLS[type(message)]
    coming = {"pause": "paused", "resume": "running", "cancel": "cancelling"}
    status = coming[run.controls[-1][0]] if run.controls else run.status
    if status in CONTROLLABLE[kind]:
        run.controls.append((kind, message.data.reason))
        return True
    return False


def _evolve_key(run: Run, message: ev.KeyAnswered) -> bool:
    if run.ended or run.key_answer:
        run.late += 1
        return False
    run.key_answer = "granted" if message.data.granted else "refused"
    return True


def _evolve_sent(run: Run, message: ev.SignalReceived | ev.BudgetRaiseRequested) -> bool:
    if run.ended or message.id in run.inputs_seen:
        run.late += 1
        return False
    run.inputs_seen.append(message.id)
    del run.inputs_seen[:-INPUTS_REMEMBERED]
    if isinstance(message, ev.BudgetRaiseRequested):
        run.raises.append(message.data)
    else:
        run.signals.setdefault(message.data.name, []).append(Signal(message.id, message.data.payload))
    return True


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


def apply(run: Run, plan: Plan, event: ev.DecisionEvent, *, at_ms: int) -> None:
    """Fold one event of an accepted decision, or one that `decide` is about to say."""
    match event:  # classes are asked in turn: the two that most decisions are made of come first
        case ev.StepScheduled():
            _apply_scheduled(run, plan, event, at_ms)
        case ev.StepCompleted():
            _apply_completed(run, plan, event)
        case ev.StepFailed():
            end(run, plan, event.path, FAILED, failure=event.failure)
        case ev.StepSkipped():
            end(run, plan, event.path, SKIPPED)
        case ev.StepCancelled():
            end(run, plan, event.path, CANCELLED)
        case ev.ForeachStarted() | ev.ItemsStored() | ev.LoopStarted() | ev.ScopeStarted():
            _apply_opened(run, plan, event, at_ms)
        case ev.TimerSet():
            inst = begin(run, plan, event.path, SLEEPING, at_ms)
            if event.timer == "retry":
                inst.claim_base = event.claim_seq
            inst.timer, inst.timer_ms, inst.failure = event.timer, event.due_ms, event.failure
        case ev.TimerFired():
            _apply_fired(run, plan, event, at_ms)
        case ev.ChildStarted():
            inst = begin(run, plan, event.path, CHILD, at_ms)
            inst.child, inst.attempt, inst.due_ms = event.child, event.attempt, event.due_ms
            inst.scheduled_ms, inst.begun = at_ms, event
        case ev.SignalAwaited() | ev.SignalTaken() | ev.FallbackStarted() | ev.CompensationStarted():
            _apply_called(run, plan, event, at_ms)
        case (
            ev.ApprovalRequested()
            | ev.ApprovalGranted()
            | ev.ApprovalDenied()
            | ev.OutcomeSettled()
            | ev.EmitStarted()
            | ev.ChildEnded()
        ):
            _apply_outside(run, plan, event, at_ms)
        case _:
            _apply_run(run, plan, event, at_ms)


def _apply_run(run: Run, plan: Plan, event: "_RunEvent", at_ms: int) -> None:
    match event:
        case ev.RunCreated():
            _apply_created(run, plan, event, at_ms)
        case ev.RunForked():
            take_over(run, plan, event)
        case ev.RunCompleted():
            run.status, run.outputs = "completed", event.outputs
        case ev.RunFailed():
            run.status, run.failure = "failed", event.failure
        case ev.RunFailing():
            run.status, run.failure, run.failing_path = "failing", event.failure, event.path
            _stop_starting(run, event.due_ms)
        case ev.RunCancelling():
            run.status, run.cancel_due_ms, run.cancel_reason = "cancelling", event.due_ms, event.reason
            _stop_starting(run, event.due_ms + names.UNDO_MS)
        case ev.RunCancelled():
            run.status = "cancelled"
        case ev.RunPaused():
            run.status, run.controls = "paused", run.controls[1:]
        case ev.RunResumed():
            run.status, run.controls = "running", run.controls[1:]
        case ev.RunBlocked():
            run.status, run.blocked_on = "blocked", event.budget
        case ev.BudgetRaised():
            raise_limit(run, event)
        case ev.RunStalled():
            run.status, run.failure = "stalled", event.failure
        case _:
            assert_never(event)


def _stop_starting(run: Run, undo_due_ms: int) -> None:
    """Nothing begins any more but what undoes."""
    run.controls, run.undo_due_ms = [], undo_due_ms
    for entry in (*run.ready, *run.lined):
        run.edit(entry[3]).status = WAITING
    run.ready, run.lined = [], []


def _apply_called(
    run: Run,
    plan: Plan,
    event: ev.SignalAwaited | ev.SignalTaken | ev.FallbackStarted | ev.CompensationStarted,
    at_ms: int,
) -> None:
    match event:
        case ev.SignalAwaited():
            inst = begin(run, plan, event.path, SLEEPING, at_ms)
            inst.timer, inst.timer_ms = "signal", event.due_ms
        case ev.SignalTaken():
            left = [signal for signal in run.signals.get(event.name, ()) if signal.id != event.signal]
            run.signals = {**run.signals, event.name: left}
        case ev.FallbackStarted():
            stand_in(run, plan, event.path, at_ms).failure = event.failure
        case ev.CompensationStarted():
            node = node_of(plan, event.path).compensate
            assert node is not None, event.path
            run.undo_began = True
            call_standby(run, plan, event.path, node)


def _apply_outside(
    run: Run,
    plan: Plan,
    event: questions.Asked | ev.EmitStarted | ev.ChildEnded,
    at_ms: int,
) -> None:
    match event:
        case ev.EmitStarted():
            emits.apply(run, plan, event, at_ms)
        case ev.ChildEnded():
            pass  # for readers: the step's own end follows in the same decision
        case _:
            questions.apply(run, plan, event, at_ms)


def _apply_opened(
    run: Run,
    plan: Plan,
    event: ev.ForeachStarted | ev.ItemsStored | ev.LoopStarted | ev.ScopeStarted,
    at_ms: int,
) -> None:
    match event:
        case ev.ItemsStored():
            store_items(run, event)
        case ev.ForeachStarted():
            begin(run, plan, event.path, FANNED, at_ms).fan = _fan(event)
        case ev.LoopStarted():
            begin(run, plan, event.path, TURNING, at_ms).turns = Turns(event.carry)
        case ev.ScopeStarted():
            inst = begin(run, plan, event.path, INSIDE, at_ms)
            inst.attempt, inst.scheduled_ms, inst.due_ms = event.attempt, at_ms, event.due_ms
            open_scope(run, plan, event.path, event.case)


def _fan(event: ev.ForeachStarted) -> Fan:
    ended = [0] * -(-event.count // names.ITEMS_PART_MAX) if event.count > names.ITEMS_PART_MAX else []
    if event.items.ref:
        return Fan(count=event.count, ref=event.items.ref, ended=ended)
    assert isinstance(event.items.json, msgspec.Raw)
    items = msgspec.json.decode(event.items.json, type=list[msgspec.Raw])
    return Fan(count=event.count, items=items, ended=ended)


def _apply_created(run: Run, plan: Plan, event: ev.RunCreated, at_ms: int) -> None:
    run.created_ms, run.deadline_ms, run.inputs = at_ms, event.deadline_ms, event.inputs
    run.labels, run.request, run.durability = event.labels, event.request, event.durability
    run.key, run.attempt, run.tools = event.key, event.attempt, event.tools
    run.event, run.hops = event.event, event.hops
    run.parent, run.parent_path, run.depth = event.parent, event.parent_path, event.depth
    run.open = open_block(run, plan, plan.blocks[ROOT], "")


def _apply_scheduled(run: Run, plan: Plan, event: ev.StepScheduled, at_ms: int) -> None:
    inst = begin(run, plan, event.path, RUNNING, at_ms, queue=event.queue)
    inst.attempt, inst.offer, inst.want_offer, inst.order_seq, inst.lost = event.attempt, 0, 1, 0, 0
    inst.scheduled_ms, inst.not_after_ms, inst.due_ms = at_ms, event.not_after_ms, event.due_ms
    inst.input_sha, inst.timer, inst.timer_ms = event.input_sha, "", 0
    inst.cache_key = event.cache_key or inst.cache_key  # the first attempt says it
    inst.decision, inst.version = "", 0  # known once the decision that says this is in the log
    run.unordered[event.path] = None
    reserve(run, plan, inst, event.reserved)


def _apply_fired(run: Run, plan: Plan, event: ev.TimerFired, at_ms: int) -> None:
    inst = run.edit(event.path)
    if event.timer != "deferred" or inst.status != SLEEPING:
        return  # a retry is followed by its step-scheduled, a wait by its step-completed
    reserved, inst.reserved = inst.reserved, None  # the same attempt goes on
    leave(run, inst)
    inst.status, inst.timer, inst.timer_ms, inst.reserved = RUNNING, "", 0, reserved
    inst.not_after_ms, inst.due_ms = attempt_window_ms(run, plan, event.path, at_ms=at_ms)
    run.active[event.path] = None
    if inst.report is None:
        inst.want_offer = inst.offer + 1
        run.unordered[event.path] = None
    else:
        run.reported[event.path] = None  # a result that whoever fired the timer had not seen
    run.in_flight += 1
    run.out[inst.queue] = run.out.get(inst.queue, 0) + 1


def _apply_completed(run: Run, plan: Plan, event: ev.StepCompleted) -> None:
    output, inst = event.output, run.get(event.path)
    if output is None and inst is not None and inst.report is not None:
        output = inst.report.value
    end(run, plan, event.path, SUCCEEDED, output=output, degraded=event.degraded)


_RunEvent = (
    ev.RunCreated
    | ev.RunForked
    | ev.RunCompleted
    | ev.RunFailed
    | ev.RunFailing
    | ev.RunCancelling
    | ev.RunCancelled
    | ev.RunPaused
    | ev.RunResumed
    | ev.RunBlocked
    | ev.BudgetRaised
    | ev.RunStalled
)
