"""`for_loop` as a bounded map, `while_loop` as a loop that carries its variables; both over a group of steps."""

from collections.abc import Callable
from typing import Any, Final

from headrace.pipeline.importer.ids import field, slug
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.outputs import ListOutput, Members, Output, ValueOutput
from headrace.pipeline.importer.scope import Loop, Scope
from headrace.pipeline.importer.sources import list_source
from headrace.pipeline.importer.unit import Made, Step, duration

Body = Callable[[Step, list[Section], Scope], tuple[dict[str, Any], dict[str, tuple[str, Output]]]]
"""Converts the steps of a body: new steps, and outputs by old name with their new keys."""
_MAX_PARALLEL: Final = 5
_MAX_ITERATIONS: Final = 100
_ITERATIONS_MAX: Final = 10_000


def for_loop(step: Step, body: Body) -> Made:
    """`for_loop`: one group of steps an item."""
    key, _ = step.old.first("iterator", "as")
    old_name = step.old.required(key) if key else "item"
    source_key, _ = step.old.first("data_source", "over")
    if not source_key:
        step.refuse("E1502", "", "`data_source` is missing", "refused as well")
    if source_key == "over":
        step.note("N1564", "over", "`over` names the list", "documented, but without effect")
    items = list_source(step, source_key, understood=False)
    taken = {loop.name for loop in step.scope.loops}
    name = slug(old_name, "item")
    while name in taken or name == "item_x":
        name = f"{name}_inner" if name in taken else "item"
    modifiers: dict[str, Any] = {"foreach": f"${{{{ {items} }}}}", "as": name}
    modifiers["max_parallel"] = _parallel(step)
    modifiers["on_item_error"] = _item_errors(step)
    modifiers |= _limits(step)
    _conditions(step)
    if modifiers["as"] == "item":
        del modifiers["as"]
    scope = step.scope.body((*step.at, "steps"), Loop(old_name, name))
    inner, members = _inner(step, body, scope)
    outputs = {key: _whole(output) for key, output in members.values()}
    item = Members("", members)
    return Made({step.id: {**modifiers, "steps": inner, "outputs": outputs}}, ListOutput(step.expression, item))


def _inner(step: Step, body: Body, scope: Scope) -> tuple[dict[str, Any], dict[str, tuple[str, Output]]]:
    sections = step.old.sections("steps") or []
    if not sections:
        step.refuse("E1502", "", f"step `{step.name}` has no `steps`", "refused as well")
    if any(section.value.get("type") in ("data_transform", "file_ops", "pipeline") for section in sections):
        step.note("N1557", "steps", "every type of step works in a loop", "an error for this type of step")
    step.note("N1557", "steps", "conditions, files and templates in the body work at each turn", "ignored in a body")
    return body(step, sections, scope)


def _whole(output: Output) -> str:
    return f"${{{{ {output.read(()).cel} }}}}"


def _parallel(step: Step) -> int:
    parallel, most = step.old.flag("parallel"), step.old.whole("max_parallel")
    if parallel is not True:
        if most is not None:
            step.note("N1557", "max_parallel", "one at a time, because `parallel` is not set", "ignored")
        return 1
    width = min(max(most or _MAX_PARALLEL, 1), 10_000)
    where = "max_parallel" if most is not None else "parallel"
    now = f"at most {width} items at a time"
    step.note("N1557", where, now, "the size of a chunk: 1 gave 20 at once, 10 gave 2; and only for 11 to 500 items")
    return width


def _item_errors(step: Step) -> str:
    breaks = step.old.flag("break_on_error")
    if breaks is False:
        before = "ignored in parallel, and over 500 items"
        step.note("N1557", "break_on_error", "`on_item_error: continue`: `output.failed` says which", before)
        return "continue"
    step.note("N1557", "", "a failed item fails the step", "the step succeeded whatever its items did")
    return "fail"


def _limits(step: Step) -> dict[str, Any]:
    seconds = step.old.number("timeout_seconds")
    known = {
        "batch_size": "the loop is a window over the list, and costs the same for any size",
        "memory_limit": "only items in flight are held",
        "ordered_results": "results keep the order of the list",
    }
    for key, why in known.items():
        if key in step.old:
            step.old.taken.add(key)
            step.note("N1555", key, f"`{key}` is dropped: {why}", "over 500 items another loop with other rules")
    if not seconds:
        return {}
    step.note("N1554", "timeout_seconds", f"the whole loop ends after {duration(seconds * 1000)}", "ignored")
    return {"deadline": duration(seconds * 1000)}


def _conditions(step: Step) -> None:
    for key in ("break_condition", "continue_condition"):
        if key in step.old:
            step.old.taken.add(key)
            now = f"`{key}` is dropped: give the steps of the body a `when`, or filter the list"
            step.note("W1530", key, now, "acted only without `parallel`" if key[0] == "b" else "no effect")
    most = step.old.whole("max_iterations")
    if most is not None:
        step.note(
            "W1520", "max_iterations", "`max_iterations` is dropped: shorten the list", "documented, but without effect"
        )


def while_loop(step: Step, body: Body) -> Made:
    """`while_loop`: a group that is repeated; variables that the body sets are carried to the next turn."""
    sections = step.old.sections("steps") or []
    carried = _carried(step, sections)
    scope = step.scope.body((*step.at, "steps"))
    for name in carried:
        scope.variables[name] = field("carry", slug(name, "variable"))
    start = {slug(name, "variable"): cel for name, cel in carried.items()}
    condition_key, value = step.old.first("condition", "until")
    if not condition_key:
        step.refuse("E1502", "", "`condition` is missing", "refused as well")
    step.old.taken.add("condition")
    inner, members = _inner(step, body, scope)
    outputs = {key: _whole(output) for key, output in members.values()}
    variables = {slug(name, "variable"): scope.variables[name] for name in carried}
    outputs |= {name: f"${{{{ {cel} }}}}" for name, cel in variables.items()}
    modifiers = _loop_condition(step, condition_key, value, members, list(carried))
    modifiers |= _iterations(step)
    if start or members:
        modifiers["carry"] = {name: f"${{{{ {cel} }}}}" for name, cel in start.items()} or {}
    modifiers |= _limits(step)
    made: dict[str, Any] = {**modifiers, "steps": inner, "outputs": outputs}
    whole = f"{step.expression}.output"
    results: dict[str, tuple[str, Output]] = dict(members)
    results |= {name: (slug(name, "variable"), ValueOutput("")) for name in carried}
    names = {name: field(whole, slug(name, "variable")) for name in carried}
    return Made({step.id: made}, Members(whole, results), variables=names)


def _carried(step: Step, sections: list[Section]) -> dict[str, str]:
    """Variables that the body sets → the expression of what they are before the first turn."""
    found: dict[str, str] = {}
    for section in sections:
        if section.value.get("type") != "set_variable":
            continue
        listed = section.value.get("variables")
        names = [str(name) for name in listed] if isinstance(listed, dict) else []
        if isinstance(section.value.get("variable"), str):
            names.append(section.value["variable"])
        for name in names:
            found[name] = step.scope.variables.get(name) or "null"
            now = f"`{name}` is carried from turn to turn, and is known after the loop"
            step.notes.add("N1557", section.path, now, "what a turn set was lost at its end", at=(*step.at, "carry"))
    return found


def _loop_condition(
    step: Step, key: str, value: Any, members: dict[str, tuple[str, Output]], carried: list[str]
) -> dict[str, Any]:
    """`while`, asked before each turn; or `until` its opposite, asked after, when it reads what the body gives."""
    scope = step.scope.body((*step.at, "steps"))
    reads_body = False
    for name, (new, output) in members.items():
        scope.steps[name] = _Carried(output, field("carry", new))
        reads_body = reads_body or name in str(value)
    for name in carried:
        scope.variables[name] = field("carry", slug(name, "variable"))
    inner = Step(step.unit, scope, step.old, step.name, step.id)
    condition = inner.conditions.convert(value, step.old.at(key), at=step.at)
    step.note("N1557", key, "asked at each turn", "expanded once, and asked before the loop: a false one skipped it")
    if key == "until":
        return {"until": condition}
    if not reads_body:
        return {"while": condition}
    now = "the body runs once before the condition, which reads what the body gives"
    step.note("N1557", key, now, "false before the first turn, so the body never ran")
    return {"until": f"!({condition})"}


class _Carried:
    """What a step of the body gave in the turn before."""

    def __init__(self, output: Output, carried: str) -> None:
        self.output, self.carried = output, carried

    def read(self, path: Any, *, at: str = "", wanted: Any = None) -> Any:
        """A path of it, in `carry`."""
        return self.output.read(path, at=at or self.carried, wanted=wanted)


def _iterations(step: Step) -> dict[str, Any]:
    most = step.old.whole("max_iterations")
    count = max(1, min(most or _MAX_ITERATIONS, _ITERATIONS_MAX))
    before = "capped at 1,000; reaching it was a success" if (most or 0) > 1000 else "reaching it was a success"
    where = "max_iterations" if most is not None else ""
    step.note("N1557", where, f"reaching {count} turns fails, unless `on_limit: ok`", before)
    return {"max_iterations": count}
