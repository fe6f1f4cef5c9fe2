"""Child runs: started, stopped and reported by the owner of the partition that parent and child share.

Everything here derives from state, so that a crash needs no repair: what is missing is published again under
the same id.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from headrace.contracts import events as ev
from headrace.contracts import names, subjects
from headrace.contracts.canonical import blake2b_hex
from headrace.contracts.codec import encode
from headrace.contracts.errors import ExpressionError, RetryableError, TerminalError, UnknownOutcomeError
from headrace.runtime.eventlog import Expected
from headrace_scheduler import child_inputs, concurrency, messages
from headrace_scheduler.records import CHILD, Inst, Run

if TYPE_CHECKING:  # the partition calls these functions; naming its type back is no dependency
    from headrace_scheduler.entries import Entry
    from headrace_scheduler.partition import Partition

log = logging.getLogger("headrace.scheduler")

CREATE_WITHIN_S: Final = 2 * names.PUBLISH_DEADLINE_S
"""With inputs of the largest size, which are read and perhaps stored again."""


async def follow(partition: "Partition", entry: "Entry") -> None:
    """Start children that should exist, stop those that should not, tell the parent when this one has ended; ask the
    concurrency key, or let go of it."""
    run = entry.run
    await concurrency.follow(partition, entry)
    for path in list(run.active):
        inst = run.get(path)
        if inst is not None and inst.status == CHILD and inst.report is None and not run.ended:
            await _ensure_child(partition, run, inst)
    if _stops_children(run):
        for child in of_parent(partition, run.run):
            await _ensure_stopped(partition, child)
    if run.parent:
        await _report(partition, run)


def _stops_children(run: Run) -> bool:
    """All of them: those that undo something begin later, and are stopped one by one when nobody waits for them."""
    return run.ended or (run.status == "cancelling" and not run.undo_began)


def of_parent(partition: "Partition", parent: str) -> list[str]:
    """Children of a run that are in this owner's hands."""
    return [run_id for run_id in partition.kin.get(parent, {}) if run_id in partition.entries]


def is_awaited(partition: "Partition", entry: "Entry") -> bool:
    """True while the parent has not taken note of this ended child."""
    return bool(entry.run.parent) and _waiting(partition, entry.run) is not None


def is_unsettled(partition: "Partition", entry: "Entry") -> bool:
    """True while something that `follow` published has not shown in the log. It may have been lost."""
    run = entry.run
    if concurrency.is_waiting(run):
        return True
    if not run.ended and any(
        inst is not None
        and inst.begun is not None
        and inst.status == CHILD
        and inst.begun.child not in partition.entries
        for inst in map(run.get, run.active)
    ):
        return True
    if _stops_children(run):
        return any(not partition.entries[child].run.ended for child in of_parent(partition, run.run))
    return bool(run.parent) and _is_orphan(partition, run)


def _is_orphan(partition: "Partition", child: Run) -> bool:
    """True when no instance waits for this child any more."""
    parent = partition.entries.get(child.parent)
    waiting = None if parent is None else parent.run.get(child.parent_path)
    return waiting is None or waiting.child != child.run or waiting.status != CHILD


def _waiting(partition: "Partition", child: Run) -> Inst | None:
    """The parent's instance that waits for this child, if it still does."""
    parent = partition.entries.get(child.parent)
    if parent is None or parent.run.ended:
        return None
    inst = parent.run.get(child.parent_path)
    if inst is None or inst.status != CHILD or inst.child != child.run or inst.report is not None:
        return None
    return inst


async def _ensure_child(partition: "Partition", parent: Run, inst: Inst) -> None:
    """Publish the child's first decision unless the child is known."""
    begun = inst.begun
    assert begun is not None, inst.path
    if begun.child in partition.entries or _was_published(partition, parent, inst, "start"):
        return
    if not begun.inputs.ref:
        await _create(partition, parent, inst, begun)
        return
    # They are loaded beside the partition, which goes on meanwhile.
    partition.shared.supervisor.spawn(_create_in_time(partition, parent, inst, begun), "scheduler.child")


async def _create_in_time(partition: "Partition", parent: Run, inst: Inst, begun: ev.ChildStarted) -> None:
    """When it does not come about, the child is missing, and is begun again."""
    try:
        async with asyncio.timeout(CREATE_WITHIN_S):
            await _create(partition, parent, inst, begun)
    except (RetryableError, UnknownOutcomeError, TimeoutError) as error:
        log.warning("child.waits", extra={"run_id": begun.child, "why": f"{type(error).__name__}: {error}"})


async def _create(partition: "Partition", parent: Run, inst: Inst, begun: ev.ChildStarted) -> None:
    """The child's first decision, or the word that there will be none."""
    source, now_ms, attempt = partition.shared.source, inst.scheduled_ms, begun.attempt
    try:
        plan = await partition.shared.plans.get(parent.tenant, begun.defdigest)
        complete = await child_inputs.completed(partition.shared, plan, parent.tenant, begun)
        key = concurrency.key_text(plan, complete.inputs, now_ms=now_ms)
    except (TerminalError, ExpressionError) as error:
        failed = Run(run=begun.child, tenant=parent.tenant, pipeline=begun.pipeline, defdigest=begun.defdigest)
        failed.status, failed.parent, failed.parent_path = "failed", parent.run, begun.path
        failed.failure = error.failure()
        await partition.publisher.send(
            messages.child_reported(parent, failed, attempt=attempt, source=source, now_ms=now_ms)
        )
        return
    creation = messages.Creation(
        run=begun.child,
        tenant=parent.tenant,
        pipeline=begun.pipeline,
        created=ev.RunCreated(
            defdigest=begun.defdigest,
            inputs=complete.value,
            deadline_ms=begun.due_ms,
            request=blake2b_hex(encode(begun)),
            labels=parent.labels,
            parent=parent.run,
            parent_path=begun.path,
            depth=parent.depth + 1,
            traceparent=parent.traceparent,
            tracestate=parent.tracestate,
            durability=parent.durability,
            hops=parent.hops,
            key=key,
            attempt=attempt,
            tools=partition.shared.tool_versions.pins(parent.tenant, plan),
        ),
        cause=parent.decision_id,
        source=source,
        now_ms=now_ms,
        correlation=parent.correlation,
    )
    outgoing = messages.first_decision(creation)
    prefix = subjects.run_prefix(parent.tenant, begun.pipeline, begun.child)
    await partition.publisher.send(outgoing, Expected(0, subjects.decision_scope(prefix)))


def _was_published(partition: "Partition", run: Run, inst: Inst, what: str) -> bool:
    """True when this process did it a moment ago and the log has not shown it yet."""
    entry = partition.entries[run.run]
    key = (f"{inst.path}!{what}", inst.attempt, 0)
    now_s, at_s = partition.shared.clock.monotonic_s(), entry.published.get(key)
    if at_s is not None and now_s - at_s < 5.0:  # as REPUBLISH_S: ids make a repetition harmless
        return True
    entry.published[key] = now_s
    return False


async def _ensure_stopped(partition: "Partition", child_id: str) -> None:
    child = partition.entries[child_id].run
    if child.ended or child.status == "cancelling" or child.controls:
        return
    target = messages.Target(child.tenant, child.pipeline, child.run)
    await partition.publisher.send(
        messages.control(
            target,
            "cancel",
            cause=f"{child.parent}:ended",
            reason="the parent run ended",
            source=partition.shared.source,
            now_ms=partition.shared.clock.now_ms(),
        )
    )


async def _report(partition: "Partition", child: Run) -> None:
    """An ended child is reported to the instance that waits for it; one that nobody waits for is stopped."""
    inst = _waiting(partition, child)
    if child.ended and inst is not None:
        parent = partition.entries[child.parent].run
        await partition.publisher.send(
            messages.child_reported(
                parent,
                child,
                attempt=inst.attempt,
                source=partition.shared.source,
                now_ms=partition.shared.clock.now_ms(),
            )
        )
    elif inst is None and not child.ended and _is_orphan(partition, child):
        await _ensure_stopped(partition, child.run)
