"""How instances begin and end: the part of the fold that moves counters, windows, loops and scopes. Pure.

An instance that ends counts down those that wait for it and the scope that it stands in. A part (an item, an iteration)
shrinks to its result in the record of its whole, and is forgotten; so are the steps of a scope that is over.
"""

from bisect import insort
from typing import Final

import msgspec

from headrace.contracts import names
from headrace.contracts.decisions import ItemsStored
from headrace.contracts.envelope import ItemResult, Value
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Block, Node, Plan, node_of
from headrace_scheduler.deadlines import step_deadline_ms
from headrace_scheduler.ledger import settle
from headrace_scheduler.paths import asker_of, is_inside, owner_of, part_of, place_of, scope_of, scope_path
from headrace_scheduler.records import (
    ACTIVE,
    CANCELLED,
    CHILD,
    FAILED,
    FANNED,
    NULL,
    ORDERED,
    READY,
    RUNNING,
    STANDING,
    SUCCEEDED,
    TURNING,
    WAITING,
    Inst,
    Run,
    Scope,
    part_range,
)
from headrace_scheduler.values import needed

_BROKEN: Final = (FAILED, CANCELLED)
"""Ends that may come while something inside is still under way."""


def open_block(run: Run, plan: Plan, block: Block, prefix: str) -> int:
    """Make the instances of a block's steps; gives how many have to end before it has ended."""
    count = 0
    for index in block.nodes:
        node = plan.nodes[index]
        inst = run.edit(prefix + node.id)
        if node.standby_for is not None:
            continue  # it begins when it is called for
        count += 1
        inst.unmet = len(node.needs)
        if inst.unmet == 0:
            make_ready(run, plan, node, inst)
    return count


def waits_for_room(run: Run, plan: Plan, node: Node, path: str) -> bool:
    """It is one order and nothing else, not even skipped: until there is room for it, nothing can happen to it."""
    if node.kind not in ORDERED or node.foreach is not None or node.loop is not None:
        return False
    return needed(node, path, run, plan) is None


def make_ready(run: Run, plan: Plan, node: Node, inst: Inst) -> None:
    """It joins those that may start."""
    inst.status = READY
    place = (-node.priority, node.index, place_of(inst.path), inst.path)
    insort(run.lined if waits_for_room(run, plan, node, inst.path) else run.ready, place)


def open_scope(run: Run, plan: Plan, path: str, case: int) -> None:
    """The steps of a group's attempt, or of a case, exist."""
    inst = run.edit(path)
    node = node_of(plan, path)
    prefix = scope_path(path, inst.attempt, case if node.kind == "switch" else -1)
    block = plan.blocks[node.blocks[case]]
    inst.scope = Scope(prefix, block.index, 0)
    inst.scope.open = open_block(run, plan, block, prefix)


def _close_scope(run: Run, plan: Plan, inst: Inst) -> None:
    scope = inst.scope
    assert scope is not None, inst.path
    inst.scope = None
    if scope.block not in plan.kept:
        for index in plan.blocks[scope.block].nodes:
            run.drop(scope.path + plan.nodes[index].id)


def begin(run: Run, plan: Plan, path: str, status: str, at_ms: int, *, queue: str = "") -> Inst:
    """Move an instance to an active status, wherever it came from."""
    if path[-1] in "])":
        if run.get(path) is None:
            _take_part(run, path)
    elif "?" in path and run.get(path) is None:
        _note_asked(run, plan, path)
    inst = run.edit(path)
    leave(run, inst)
    if inst.scope is not None:
        clear_inside(run, plan, path)
        _close_scope(run, plan, inst)
    drop_evaluations(run, path)
    inst.status = status
    inst.deadline_ms = inst.deadline_ms or step_deadline_ms(run, plan, path, now_ms=at_ms)
    inst.report = None
    run.active[path] = None
    if status in (RUNNING, CHILD):
        run.in_flight += 1
    if status == RUNNING:
        inst.queue = queue
        run.out[queue] = run.out.get(queue, 0) + 1
    return inst


def _note_asked(run: Run, plan: Plan, path: str) -> None:
    """An evaluation is made for an instance, which waits for it. A part that waits has its place in the window."""
    asker = asker_of(path)
    if not asker:
        return
    run.asked[asker] = (*run.asked.get(asker, ()), path)
    if asker[-1] in "])" and run.get(asker) is None:
        _take_part(run, asker)
        make_ready(run, plan, node_of(plan, asker), run.edit(asker))


def drop_evaluations(run: Run, path: str) -> None:
    """What was evaluated for an instance has been used."""
    if run.asked:
        for asked in run.asked.pop(path, ()):
            inst = run.get(asked)
            if inst is not None:
                leave(run, inst)
            run.drop(asked)


def leave(run: Run, inst: Inst) -> None:
    """Undo what the present status counts."""
    if inst.status == READY:
        # Steps leave in the order of their list, so that one of the first is nearly always the one.
        for places in (run.ready, run.lined):
            for number, place in enumerate(places):
                if place[3] == inst.path:
                    del places[number]
                    return
    elif inst.status in ACTIVE:
        settle(run, inst)
        run.active.pop(inst.path, None)
        run.reported.pop(inst.path, None)
        run.unordered.pop(inst.path, None)
        if inst.status in (RUNNING, CHILD):
            run.in_flight -= 1
        if inst.status == RUNNING:
            run.out[inst.queue] -= 1


def stand_in(run: Run, plan: Plan, path: str, at_ms: int) -> Inst:
    """A step has failed, and its fallback begins."""
    inst = begin(run, plan, path, STANDING, at_ms)
    if inst.fan is not None or inst.turns is not None:
        clear_inside(run, plan, path)
        inst.fan = inst.turns = None
    fallback = node_of(plan, path).fallback
    if fallback is not None and fallback.node is not None:
        call_standby(run, plan, path, fallback.node)
    return inst


def call_standby(run: Run, plan: Plan, path: str, node: int) -> None:
    """The step that stands in for, or undoes, the one at `path` may begin."""
    standby = plan.nodes[node]
    make_ready(run, plan, standby, run.edit(scope_of(path) + standby.id))


def clear_inside(run: Run, plan: Plan, path: str) -> None:
    """Nothing inside of an instance is under way any more. Their ends say so as far as a decision holds them."""
    for asker in [asker for asker in run.asked if is_inside(asker, path)]:
        drop_evaluations(run, asker)
    found = [active for active in run.active if is_inside(active, path)]
    found += [entry[3] for entry in (*run.ready, *run.lined) if is_inside(entry[3], path)]
    for other in sorted(found, key=len, reverse=True):  # what is deepest first
        inst = run.edit(other)
        leave(run, inst)
        inst.status = CANCELLED
        if inst.scope is not None:
            _close_scope(run, plan, inst)
        if other[-1] in "])" and not _is_kept(plan, other):
            run.drop(other)


def _take_part(run: Run, path: str) -> None:
    """An item or an iteration takes its place; items do so in order, iterations one at a time."""
    owner, number = part_of(path) or ("", 0)
    whole = run.edit(owner)
    if whole.fan is not None:
        assert number == whole.fan.cursor, (path, whole.fan.cursor)
        whole.fan.cursor += 1
        whole.fan.in_flight += 1
        run.edit(path)
        return
    assert whole.turns is not None and number == whole.turns.done, path
    drop_evaluations(run, owner)
    whole.turns.living = True
    run.edit(path).carry = whole.turns.carry


def end(
    run: Run,
    plan: Plan,
    path: str,
    status: str,
    *,
    output: Value | None = None,
    failure: Failure | None = None,
    degraded: bool = False,
) -> None:
    """An instance is terminal: keep its result, shrink it, and count down who waits for it."""
    part = part_of(path)
    if part is not None and run.get(path) is None:
        if (whole := run.get(part[0])) is None or whole.status not in (FANNED, TURNING):
            return  # the whole has ended; its parts' ends are for the record
        _take_part(run, path)
    inst = run.edit(path)
    was = inst.status
    if output is not None and type(run.insts) is dict:  # a draft is gone before its messages are
        output = _kept(output)
    leave(run, inst)
    if status in _BROKEN and (inst.scope or inst.fan or inst.turns):
        clear_inside(run, plan, path)
    if inst.scope is not None:
        _close_scope(run, plan, inst)
    drop_evaluations(run, path)
    if part is not None:
        _end_part(run, part, ItemResult(status=status, value=output, failure=failure), degraded=degraded)
        if not _is_kept(plan, path):
            run.drop(path)
            return
    inst.usage = None if inst.report is None else inst.report.usage
    inst.status, inst.output, inst.failure, inst.report, inst.begun = status, output, failure, None, None
    inst.degraded, inst.turns = degraded, None
    if inst.fan is not None:
        _shrink_fan(plan, inst)
    if part is None and "?" not in path:
        _count_down(run, plan, inst, undone=was != STANDING)


def store_items(run: Run, event: ItemsStored) -> None:
    """The results of a part of a long list lie in a blob from here on."""
    inst = run.get(event.path)
    if inst is None or inst.fan is None:
        return  # the whole has ended; what its parts say is for the record
    fan = run.edit(event.path).fan
    assert fan is not None
    part = event.first // names.ITEMS_PART_MAX
    fan.parts[part] = event.results
    for index in part_range(fan, part):
        fan.results.pop(index, None)


def _kept(value: Value) -> Value:
    """A value that outlives the message it came in: raw JSON is a view, which keeps all of its message's bytes."""
    return msgspec.structs.replace(value, json=value.json.copy()) if isinstance(value.json, msgspec.Raw) else value


def _shrink_fan(plan: Plan, inst: Inst) -> None:
    """Forget the window; the list stays where steps may have to be undone, which read their item."""
    if inst.fan is not None and _is_kept(plan, inst.path):
        inst.fan.results, inst.fan.ended, inst.fan.parts = {}, [], {}
    else:
        inst.fan = None


def _is_kept(plan: Plan, path: str) -> bool:
    return bool(plan.kept) and not plan.kept.isdisjoint(node_of(plan, path).blocks)


def _count_down(run: Run, plan: Plan, inst: Inst, *, undone: bool) -> None:
    node = node_of(plan, inst.path)
    if node.standby_for is not None:
        if run.undo and run.undo_began and plan.nodes[node.standby_for].compensate == node.index:
            run.undo.pop()
        return
    scope = scope_of(inst.path)
    holder: Run | Scope = run
    if scope:
        owner = run.edit(owner_of(scope))
        if owner.scope is None or owner.scope.path != scope:
            return
        holder = owner.scope
    holder.open -= 1
    holder.degraded = holder.degraded or inst.degraded or inst.status == FAILED
    if node.compensate is not None and undone and inst.status == SUCCEEDED:
        run.undo.append(inst.path)
    if inst.status == CANCELLED:
        return  # with what is around it: nothing follows
    for dependent in node.dependents:
        other = plan.nodes[dependent]
        waiting = run.edit(scope + other.id)
        waiting.unmet -= 1
        if waiting.unmet == 0 and waiting.status == WAITING:
            make_ready(run, plan, other, waiting)


def _end_part(run: Run, part: tuple[str, int], result: ItemResult, *, degraded: bool) -> None:
    owner, index = part
    inst = run.edit(owner)
    if inst.status == FANNED and inst.fan is not None:
        inst.fan.results[index] = result
        inst.fan.in_flight -= 1
        inst.fan.done += 1
        if inst.fan.ended:
            inst.fan.ended[index // names.ITEMS_PART_MAX] += 1
        inst.fan.degraded = inst.fan.degraded or degraded
        if result.status == FAILED:
            inst.fan.failed += 1
    elif inst.turns is not None:
        inst.turns.carry = NULL if result.value is None else result.value
        inst.turns.done += 1
        inst.turns.living = False
        inst.turns.degraded = inst.turns.degraded or degraded
