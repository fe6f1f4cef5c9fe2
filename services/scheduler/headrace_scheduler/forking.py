"""What a new run takes over from another one, and why not more. Pure.

One rule for `rerun` and `fork`: a step of the run's own scope is taken over when it had ended there in a way that lets
the pipeline go on, its definition means the same, nothing that it reads has changed, and all that it needs is taken
over too; containers are taken over whole. The step that was named and what depends on it are never taken over. What the
named step needs, directly or not, has to be taken over, or the fork is refused: nobody asked for that to be done again.
What stands beside is taken over where it can be, and done again where it cannot.

Whoever did a step undoes it. So a step that would be undone is taken over only from a run that completed: any other has
undone it, or may yet.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from headrace.contracts import events as ev
from headrace.contracts.errors import DataError, NotFoundError
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import ROOT, Node, Plan, static_path
from headrace.pipeline.sameness import leaves_files, meaning, reads, undoes
from headrace_scheduler.instances import end
from headrace_scheduler.records import ENDED, FAILED, SKIPPED, SUCCEEDED, Inst, Run
from headrace_scheduler.refusal import RefusedError

NAMED_MAX: Final = 20
"""Steps and inputs that a reason names; more help nobody."""


PREFIX_CHANGED: Final = "prefix_changed"
"""What comes before the named step cannot be shared as it was."""


@dataclass(slots=True)
class Fork:
    """A run, the plan that it had, the plan that the new one has, and what the two are started with."""

    run: Run
    old: Plan
    new: Plan
    old_inputs: dict[str, Any]
    new_inputs: dict[str, Any]
    changed: dict[str, frozenset[str]] = field(init=False)
    """Names whose value differs, of `inputs` and `vars`."""

    def __post_init__(self) -> None:
        self.changed = {
            "inputs": _differing(self.old_inputs, self.new_inputs),
            "vars": _differing(dict(self.old.vars), dict(self.new.vars)),
        }


def _differing(one: dict[str, Any], other: dict[str, Any]) -> frozenset[str]:
    missing = object()
    return frozenset(name for name in one | other if one.get(name, missing) != other.get(name, missing))


def taken_over(fork: Fork, step: str) -> tuple[ev.Taken, ...]:
    """The steps that the new run takes over, in the order of their numbers.

    Raises:
        NotFoundError: the new run's pipeline has no such step.
        DataError: it has, and nothing can begin there.
        RefusedError: `prefix_changed`, with every reason.
    """
    plan = fork.new
    at = _named(plan, step)
    before, after = _before(plan, at), _after(plan, at)
    why = {node.index: _why_not(fork, node) for node in _own(plan)}
    reasons = [(node, why[node.index]) for node in _own(plan) if node.index in before and why[node.index]]
    if reasons:
        raise RefusedError(tuple(_reason(at, node, text) for node, text in reasons))
    anew = after | {index for index, text in why.items() if text}
    for index in sorted(anew):
        anew |= _after(plan, plan.nodes[index])
    found = []
    for node in _own(plan):
        inst = fork.run.get(node.id)
        if node.index not in anew and inst is not None:
            found.append(_taken(inst))
            found += _standby(fork, node)
    return tuple(found)


def _own(plan: Plan) -> list[Node]:
    """Steps of the run's own scope that run by themselves."""
    return [plan.nodes[index] for index in plan.blocks[ROOT].nodes if plan.nodes[index].standby_for is None]


def _named(plan: Plan, step: str) -> Node:
    node = plan.by_id.get(step)
    if node is None:
        found = plan.by_id.get(static_path(step))
        if found is None:
            known = ", ".join(one.id for one in _own(plan)[:NAMED_MAX])
            message = f"no step {step[:80]!r} in pipeline `{plan.pipeline}`; it has {known}"
            raise NotFoundError(message)
        node = found
    if node.block != ROOT or step != node.id:
        outer = node.path.partition("/")[0].partition(":")[0]
        message = f"{step}: items, iterations and steps inside are taken over with what is around them; name `{outer}`"
        raise DataError(message)
    if node.standby_for is not None:
        message = f"`{step}` only stands in for `{plan.nodes[node.standby_for].id}`, or undoes it; name that"
        raise DataError(message)
    return node


def _needs(plan: Plan, node: Node) -> tuple[int, ...]:
    """With those of the step that stands in for it."""
    standby = None if node.fallback is None else node.fallback.node
    return node.needs if standby is None else (*node.needs, *plan.nodes[standby].needs)


def _before(plan: Plan, node: Node) -> set[int]:
    found: set[int] = set()
    pending = list(_needs(plan, node))
    while pending:
        index = pending.pop()
        if index not in found:
            found.add(index)
            pending += _needs(plan, plan.nodes[index])
    return found


def _after(plan: Plan, node: Node) -> set[int]:
    """It, and what depends on it."""
    needing: dict[int, list[int]] = {}
    for other in _own(plan):
        for need in _needs(plan, other):
            needing.setdefault(need, []).append(other.index)
    found, pending = set[int](), [node.index]
    while pending:
        index = pending.pop()
        if index not in found:
            found.add(index)
            pending += needing.get(index, [])
    return found


def _reason(at: Node, node: Node, text: str) -> Failure:
    message = f"`{node.id}` comes before `{at.id}` and cannot be shared: {text}; begin at `{node.id}` instead"
    return Failure(code=PREFIX_CHANGED, message=message)


def _why_not(fork: Fork, node: Node) -> str:
    """Why a step by itself cannot be taken over; empty when it can."""
    known = fork.old.by_id.get(node.path)
    inst = None if known is None else fork.run.get(known.id)
    if known is None or inst is None or known.standby_for is not None:
        return "the run has no such step"
    if meaning(fork.old, known) != meaning(fork.new, node):
        return "its definition has changed"
    for root, changed in fork.changed.items():
        read = reads(fork.new, node, root)
        affected = sorted(changed if read is None else changed & read)
        if affected:
            return f"it reads {', '.join(f'`{root}.{name}`' for name in affected[:NAMED_MAX])}, which changes"
    return _state(fork, known, inst)


def _state(fork: Fork, node: Node, inst: Inst) -> str:
    if inst.status not in ENDED:
        return "it has not ended in that run"
    if inst.status not in (SUCCEEDED, SKIPPED) and not (inst.status == FAILED and node.on_error_continue):
        return f"it was {inst.status}" if inst.status != FAILED else "it failed"
    if inst.status == SUCCEEDED and fork.run.status != "completed" and undoes(fork.old, node):
        return "that run has undone it, or may yet: only a run that completed leaves it done"
    if inst.status == SUCCEEDED and leaves_files(fork.old, node):
        return "it may have written files, and they lie in that run's workspace"
    return ""


def _taken(inst: Inst) -> ev.Taken:
    return ev.Taken(
        path=inst.path,
        status=inst.status,
        attempt=inst.attempt,
        output=inst.output,
        failure=inst.failure,
        usage=None if inst.usage is None else msgspec.to_builtins(inst.usage),
        degraded=inst.degraded,
    )


def _standby(fork: Fork, node: Node) -> list[ev.Taken]:
    """How the step that stood in for it ended: outputs of the pipeline may read that."""
    standby = None if node.fallback is None else node.fallback.node
    inst = None if standby is None else fork.run.get(fork.new.nodes[standby].id)
    return [_taken(inst)] if inst is not None and inst.status in (SUCCEEDED, FAILED) else []


# --- fold --------------------------------------------------------------------------------------


def take_over(run: Run, plan: Plan, event: ev.RunForked) -> None:
    """The steps have ended, as they did in the other run, and this run never undoes them."""
    for one in event.taken:
        inst = run.edit(one.path)
        inst.attempt = one.attempt
        end(run, plan, one.path, one.status, output=one.output, failure=one.failure, degraded=one.degraded)
        inst.usage = None if one.usage is None else msgspec.convert(one.usage, ev.Usage)
    run.undo = []
