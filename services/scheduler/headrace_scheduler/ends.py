"""What follows from the end of an instance: for its whole, for the scope that it stands in, for the run. Pure.

A failure that nothing tolerates ends the attempt of the group around it, which may be tried again; so it goes outwards,
until something tolerates it or the run fails.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.codec import encode
from headrace.contracts.envelope import Part, Value
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Node, node_of
from headrace_scheduler.deadlines import retry_policy, step_deadline_ms
from headrace_scheduler.outcomes import ask_outcome, asks
from headrace_scheduler.paths import asker_of, is_inside, owner_of, part_of, scope_of, whole_of
from headrace_scheduler.records import FANNED, STANDING, TURNING, Inst, fan_results, part_range
from headrace_scheduler.retry import retry_delay_ms

if TYPE_CHECKING:  # the writer calls these functions; naming its type back is no dependency
    from headrace_scheduler.draft import Writer

CAUSES_MAX: Final = 20
"""Of a failure: twice as many as steps nest."""


def follow(writer: "Writer", event: ev.StepCompleted | ev.StepFailed | ev.StepSkipped) -> None:
    """After an instance's end: does it end something else?"""
    path = event.path
    if "?" in path:
        return  # whoever asked goes on, or fails next
    if path[-1] == "]":
        _after_item(writer, *(part_of(path) or ("", 0)))
    elif path[-1] == ")":
        if isinstance(event, ev.StepFailed):
            _fail_whole(writer, path, event.failure)
    elif (node := node_of(writer.plan, path)).standby_for is not None:
        _after_standby(writer, node, event)
    elif isinstance(event, ev.StepFailed) and not event.tolerated:
        scope = scope_of(path)
        if not scope:
            writer.fail_fatally(path, event.failure)
            return
        owner = writer.run.get(owner_of(scope))
        if owner is not None and owner.scope is not None and owner.scope.path == scope:
            fail_attempt(writer, owner, _within(event.failure, path))


def _after_standby(writer: "Writer", node: Node, event: ev.StepCompleted | ev.StepFailed | ev.StepSkipped) -> None:
    """What stood in for a step has ended, and so does the step. What undid one has no further meaning."""
    assert node.standby_for is not None
    owner = writer.plan.nodes[node.standby_for]
    inst = writer.run.get(scope_of(event.path) + owner.id)
    if inst is None or inst.status != STANDING:
        return
    if isinstance(event, ev.StepCompleted):
        stood_in = writer.run.get(event.path)
        assert stood_in is not None, event.path
        writer.emit(ev.StepCompleted(path=inst.path, attempt=inst.attempt, output=stood_in.output, degraded=True))
        return
    assert inst.failure is not None, inst.path
    why = event.failure.code if isinstance(event, ev.StepFailed) else "skipped"
    causes = (*inst.failure.causes, f"fallback {event.path}: {why}")[:CAUSES_MAX]
    fail_step(writer, inst.path, msgspec.structs.replace(inst.failure, causes=causes))


def _within(failure: Failure, path: str) -> Failure:
    """A failure as what is around it sees it."""
    return msgspec.structs.replace(failure, causes=(f"step {path}", *failure.causes)[:CAUSES_MAX])


def _fail_whole(writer: "Writer", iteration: str, failure: Failure) -> None:
    whole = writer.run.get(whole_of(iteration))
    if whole is not None and whole.status == TURNING:
        writer.fail_step(whole.path, _within(failure, iteration))


def _after_item(writer: "Writer", owner: str, index: int) -> None:
    inst = writer.run.get(owner)
    if inst is None or inst.status != FANNED or inst.fan is None:
        return
    foreach = node_of(writer.plan, owner).foreach
    assert foreach is not None
    if inst.fan.failed and not foreach.continue_on_error:
        writer.fail_step(owner, _item_failure(inst))
        return
    if inst.fan.ended:
        _store_part(writer, inst, index // names.ITEMS_PART_MAX)
    if inst.fan.done == inst.fan.count:
        complete_foreach(writer, owner)


def _store_part(writer: "Writer", inst: Inst, part: int) -> None:
    """The results of a part go to a blob once all its items have ended: what a long list costs is its window."""
    assert inst.fan is not None
    items = part_range(inst.fan, part)
    if inst.fan.ended[part] == len(items):
        data = encode(fan_results(writer.run, inst.path, items))
        stored = Part(ref=writer.store_blob(data), size=len(data), count=len(items))
        writer.emit(ev.ItemsStored(path=inst.path, first=items.start, results=stored))


def _item_failure(inst: Inst) -> Failure:
    assert inst.fan is not None
    index, result = min((i, r) for i, r in inst.fan.results.items() if r.failure is not None)
    found = result.failure
    assert found is not None
    message = f"{inst.path}[{index}]: {found.message}"
    causes = (f"item {index}", *found.causes)[:CAUSES_MAX]
    return Failure(code=found.code, message=message, retryable=found.retryable, causes=causes)


def complete_foreach(writer: "Writer", path: str) -> None:
    """All items have ended and the failed ones are tolerated: the list of results is the output."""
    inst = writer.run.get(path)
    assert inst is not None and inst.fan is not None
    degraded = inst.fan.failed > 0 or inst.fan.degraded
    if inst.fan.parts:
        parts = tuple(inst.fan.parts[part] for part in range(len(inst.fan.parts)))
        size = sum(part.size for part in parts)
        output = Value(parts=parts, size=size, count=inst.fan.count, form="items")
        writer.emit(ev.StepCompleted(path=path, output=output, degraded=degraded))
        return
    data = encode(fan_results(writer.run, path, range(inst.fan.count)))
    if len(data) > names.VALUE_BYTES_MAX:
        message = f"{path}: the results take {len(data)} bytes; at most {names.VALUE_BYTES_MAX} are allowed"
        writer.fail_step(path, Failure(code="too_large", message=message))
        return
    output = writer.store_bytes(data, form="items")
    writer.emit(ev.StepCompleted(path=path, output=output, degraded=degraded))


def fail_attempt(writer: "Writer", inst: Inst, failure: Failure) -> None:
    """Ask somebody, schedule another attempt, or let the step fail."""
    path, plan, run = inst.path, writer.plan, writer.run
    if asks(plan, path, failure):
        ask_outcome(writer, inst, failure)
        return
    policy = retry_policy(plan, path)
    delay = retry_delay_ms(policy, run=run.run, path=path, attempt=inst.attempt, failure=failure)
    if delay is not None and writer.now_ms + delay.delay_ms < step_deadline_ms(run, plan, path):
        if inst.scope is not None:
            cancel_inside(writer, path)
        writer.emit(
            ev.TimerSet(
                path=path,
                timer="retry",
                due_ms=writer.now_ms + delay.delay_ms,
                attempt=inst.attempt,
                delay_ms=delay.delay_ms,
                jitter=delay.jitter,
                claim_seq=_claim_over(inst, failure),
                failure=failure,
            )
        )
        return
    writer.fail_step(path, failure)


def _claim_over(inst: Inst, failure: Failure) -> int:
    """The claim that the next attempt may follow: one whose holder reported, or whose outcome may stay unknown."""
    reported = inst.report is not None and inst.claim_attempt == inst.attempt
    return inst.claim_seq if reported or failure.code == "outcome_unknown" else inst.claim_base


def cancel_inside(writer: "Writer", path: str) -> None:
    """Say of what is under way inside of an instance that it is stopped, as far as the decision holds it."""
    found = [active for active in writer.run.active if is_inside(active, path)]
    for other in sorted(found, key=len, reverse=True):
        if writer.crowded:
            return
        writer.emit(ev.StepCancelled(path=other))


def fail_step(writer: "Writer", path: str, failure: Failure) -> None:
    """The instance ends badly, with all of it that is still in flight. An evaluation takes its asker along."""
    inst = writer.run.get(path)
    if inst is not None and (inst.scope or inst.fan or inst.turns):
        cancel_inside(writer, path)
    attempt = 0 if inst is None else inst.attempt
    if _has_fallback(writer, path) and (inst is None or inst.status != STANDING):
        writer.emit(ev.FallbackStarted(path=path, attempt=attempt, failure=failure))
        return
    writer.emit(ev.StepFailed(path=path, attempt=attempt, failure=failure, tolerated=tolerates(writer, path)))
    if "?" not in path:
        return
    asker = asker_of(path)
    if not asker:
        writer.fail_fatally(path, failure)
    elif path.endswith("/?outputs") and (owner := writer.run.get(asker)) is not None:
        fail_attempt(writer, owner, failure)
    else:
        fail_step(writer, asker, failure)


def _has_fallback(writer: "Writer", path: str) -> bool:
    if "?" in path or part_of(path) is not None:
        return False
    return node_of(writer.plan, path).fallback is not None


def tolerates(writer: "Writer", path: str) -> bool:
    """A failure of this instance does not fail what is around it by itself."""
    if "?" in path:
        return True  # its asker fails next, and that counts
    node = node_of(writer.plan, path)
    if part_of(path) is not None:
        return node.foreach is not None and node.foreach.continue_on_error
    return node.on_error_continue or node.standby_for is not None  # whom it stands in for fails next
