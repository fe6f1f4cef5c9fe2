"""What expressions see: dotted names → values, taken from a run's state.

Pure. Every value that may be read never changes once it can be read (outputs of ended steps, inputs, the item),
so that rendering again after a crash gives the same bytes.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from headrace.contracts import names
from headrace.contracts.codec import inline, plain
from headrace.contracts.envelope import ItemResult, Value
from headrace.contracts.errors import ExpressionError
from headrace.pipeline.evaluation import NOW
from headrace.pipeline.plan import Node, Plan
from headrace.runtime.values import COMPOSED
from headrace_scheduler.paths import scope_of
from headrace_scheduler.records import FAILED, SKIPPED, STANDING, SUCCEEDED, Inst, Run

Bindings = dict[str, Value]
_NO_EVENT: Final = inline({})
"""Somebody, or another run, started it: `event.?data.orValue(x)` is x, and `event.data` says that there is none."""
_STATUS: Final = {SUCCEEDED: "succeeded", FAILED: "failed", STANDING: "failed", SKIPPED: "skipped"}


def bind(run: Run, plan: Plan, path: str, reads: Iterable[str], optional: frozenset[str], *, now_ms: int) -> Bindings:
    """The values of `reads` for a step instance; optional ones that do not exist are left out.

    Args:
        now_ms: What `now()` gives: the instant of the decision that this is evaluated for.

    Raises:
        ExpressionError: a needed value does not exist, e.g. the output of a step that failed.
    """
    bindings: Bindings = {}
    for name in sorted(reads):
        if name == "secrets":
            continue  # a reference stays one until an executor resolves it
        value = inline(now_ms) if name == NOW else _lookup(run, plan, path, name)
        if value is not None:
            bindings[name] = value
        elif name not in optional:
            message = f"{path}: `{name}` has no value here"
            raise ExpressionError(message)
    return bindings


def _lookup(run: Run, plan: Plan, path: str, name: str) -> Value | None:
    root, _, rest = name.partition(".")
    match root:
        case "steps":
            step, _, attribute = rest.rpartition(".")
            inst = find_step(run, path, step)
            return None if inst is None else _step_attribute(inst, attribute)
        case "inputs":
            return run.inputs
        case "vars":
            return inline(dict(plan.vars))
        case "event":
            return _NO_EVENT if run.event is None else run.event
        case "run":
            return inline({"id": run.run, "started_at": run.created_ms, "attempt": run.attempt, "labels": run.labels})
    loop, _, depth = root.partition("_")
    around = int(depth or 0)
    if loop in ("item", "index"):
        return _of_item(run, path, around, loop)
    return _of_iteration(run, path, around, loop) if loop in ("carry", "iteration") else None


def find_step(run: Run, path: str, step: str) -> Inst | None:
    """The instance that a step's id means at a path: in the scope around it, or in the nearest one further out."""
    scope = scope_of(path)
    while True:
        inst = run.get(scope + step)
        if inst is not None or not scope:
            return inst
        scope = scope_of(scope[:-1])


def _around(path: str, mark: str, depth: int) -> tuple[str, int, int] | None:
    """The whole, the number, and where the part ends, of the part that has `depth` of its sort around it."""
    start = -1
    for _ in range(depth + 1):
        start = path.find(mark, start + 1)
        if start < 0:
            return None
    stop = path.index("]" if mark == "[" else ")", start)
    return path[:start], int(path[start + 1 : stop]), stop + 1


def _of_item(run: Run, path: str, depth: int, what: str) -> Value | None:
    found = _around(path, "[", depth)
    if found is None:
        return None
    owner, index, _ = found
    if what == "index":
        return inline(index)
    fan = None if (inst := run.get(owner)) is None else inst.fan
    if fan is None:
        return None
    if fan.items is None:
        return Value(ref=fan.ref, index=index)
    return Value(json=fan.items[index])


def _of_iteration(run: Run, path: str, depth: int, what: str) -> Value | None:
    found = _around(path, "(", depth)
    if found is None:
        return None
    owner, number, stop = found
    if what == "iteration":
        return inline(number)
    living = run.get(path[:stop])
    if living is not None and living.carry is not None and path[stop : stop + 1] != "?":
        return living.carry
    whole = run.get(owner)
    return None if whole is None or whole.turns is None else whole.turns.carry


def _step_attribute(inst: Inst, attribute: str) -> Value | None:
    match attribute:
        case "output":
            return inst.output if inst.status == SUCCEEDED else None
        case "status":
            return inline(_STATUS[inst.status]) if inst.status in _STATUS else None
        case "attempts":
            return inline(inst.attempt)
        case "items":
            return _items_of(inst)
        case "usage":
            return None if inst.usage is None else inline(msgspec.to_builtins(inst.usage))
        case "error":
            return None if inst.failure is None else inline(msgspec.to_builtins(inst.failure))
    return None


def _items_of(inst: Inst) -> Value | None:
    """How each item of an ended `foreach` ended; None for one that failed as a whole, and for every other step."""
    if inst.status != SUCCEEDED or inst.output is None or inst.output.form != "items":
        return None
    return msgspec.structs.replace(inst.output, form="results")


def is_small(bindings: Mapping[str, Value]) -> bool:
    """True when the scheduler itself may evaluate over these: nothing by reference, no long list."""
    for value in bindings.values():
        if value.ref or value.parts:
            return False
        if value.form in COMPOSED and any(item.value and item.value.ref for item in _items(value)):
            return False
    return True


def has_long_list(bindings: Mapping[str, Value]) -> bool:
    """True when there is a list with more items than the scheduler evaluates over itself, at any depth."""
    return any(_is_long(value) for value in bindings.values())


def _is_long(value: Value) -> bool:
    if not isinstance(value.json, msgspec.Raw):
        return False
    if value.form in COMPOSED:
        return len(_items(value)) > names.SCHEDULER_ITEMS_MAX
    # A list has a comma less than items, so that nearly every value is told without looking inside.
    return bytes(value.json).count(b",") >= names.SCHEDULER_ITEMS_MAX and _holds_long_list(plain(value.json))


def _holds_long_list(value: Any) -> bool:
    match value:
        case list():
            return len(value) > names.SCHEDULER_ITEMS_MAX or any(_holds_long_list(item) for item in value)
        case dict():
            return any(_holds_long_list(item) for item in value.values())
    return False


def _items(value: Value) -> list[ItemResult]:
    assert isinstance(value.json, msgspec.Raw)
    return msgspec.json.decode(value.json, type=list[ItemResult])


def materialise(bindings: Mapping[str, Value]) -> dict[str, Any]:
    """Plain JSON values; only for bindings that are small."""
    values: dict[str, Any] = {}
    for name, value in bindings.items():
        assert isinstance(value.json, msgspec.Raw), name
        values[name] = COMPOSED[value.form](_items(value), {}) if value.form in COMPOSED else plain(value.json)
    return values


def needed(node: Node, path: str, run: Run, plan: Plan) -> Inst | None:
    """The skipped step because of which an instance of `node` is skipped too, or None."""
    if not node.needs and not node.outer:
        return None
    scope = scope_of(path)
    for index in node.needs:
        if index in node.optional:
            continue
        inst = run.get(scope + plan.nodes[index].id)
        if inst is not None and inst.status == SKIPPED:
            return inst
    for index in node.outer:
        inst = find_step(run, path, plan.nodes[index].id)
        if inst is not None and inst.status == SKIPPED:
            return inst
    return None
