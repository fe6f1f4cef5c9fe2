"""What may start: ready steps in their order, items of open `foreach` windows, and what follows an evaluation.
Pure.
"""

from bisect import bisect_left
from typing import Any, Final, NamedTuple

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import ids, names
from headrace.contracts.codec import inline, plain
from headrace.contracts.envelope import Value
from headrace.contracts.errors import ExpressionError
from headrace.contracts.failure import Failure
from headrace.pipeline.durations import instant_ms, parse_duration_ms
from headrace.pipeline.expressions import Expression, evaluate, render
from headrace.pipeline.plan import Node, node_of
from headrace_scheduler.deadlines import attempt_window_ms
from headrace_scheduler.draft import Writer
from headrace_scheduler.orders import Content, content_for, evaluable_here
from headrace_scheduler.records import FANNED, SUCCEEDED
from headrace_scheduler.values import bind, materialise, needed

NULL: Final = Value(json=inline(None).json)
ORDERED: Final = frozenset({"tool", "llm", "pipeline"})
"""Kinds whose every attempt counts against `max_parallel`."""


def start_ready(writer: Writer) -> None:
    """Start as much as limits allow; starting may make more steps ready, which are taken up in the same pass."""
    ready = writer.run.ready
    tried: set[int] = set()
    position = 0
    while position < len(ready) and not writer.full and writer.fatal is None:
        entry = ready[position]
        if entry[1] not in tried:
            tried.add(entry[1])
            _start_step(writer, writer.plan.nodes[entry[1]], entry[2])
        if position < len(ready) and ready[position] is entry:
            position += 1
        elif bisect_left(ready, entry) > position:
            position = 0  # something that comes before it has become ready
    for path in list(writer.run.active):
        inst = writer.run.get(path)
        if inst is not None and inst.status == FANNED and writer.fatal is None:
            _start_items(writer, path)


def _start_step(writer: Writer, node: Node, path: str) -> None:
    """One ready step: skip it, open its window, or start its only instance."""
    cause = needed(node, writer.run, writer.plan)
    if cause is not None:
        writer.emit(ev.StepSkipped(path=path, reason=f"it needs `{cause.path}`, which was skipped"))
        return
    if node.foreach is None and node.kind in ORDERED and not writer.room():
        return  # before anything is evaluated: a long line of ready steps must not cost more the longer it is
    try:
        if node.when is not None and not _reads_item(node, node.when):
            verdict = _ask(writer, path, "?when", node.when)
            if verdict is None or not _passes(writer, path, verdict.value):
                return
        if node.foreach is None:
            start_instance(writer, node, path)
            return
        items = _ask(writer, path, "?items", node.foreach.items)
        if items is not None:
            _open_window(writer, path, items)
    except ExpressionError as error:
        writer.fail_step(path, error.failure())


class _Answer(NamedTuple):
    """An evaluated value, which may be null. `held` is set when an executor evaluated it, and may be a reference."""

    value: Any
    held: Value | None = None


def _ask(writer: Writer, path: str, suffix: str, expression: Expression) -> _Answer | None:
    """What an executor found, or evaluate here, or order the evaluation (once) and give None."""
    asked = writer.run.get(path + suffix)
    if asked is not None:
        if asked.status != SUCCEEDED or asked.output is None:
            return None
        held = asked.output
        return _Answer(plain(held.json) if isinstance(held.json, msgspec.Raw) else None, held)
    bindings = bind(writer.run, writer.plan, path, expression.reads, expression.optional)
    if evaluable_here(bindings, expression):
        return _Answer(evaluate(expression, materialise(bindings)))
    schedule(writer, path + suffix, attempt=1)
    return None


def _reads_item(node: Node, expression: Expression) -> bool:
    return node.foreach is not None and bool(expression.reads & {node.foreach.item_name, "index"})


def _passes(writer: Writer, path: str, value: Any) -> bool:
    """Skip on false; a condition that is neither true nor false is an error of the step."""
    if value is True:
        return True
    if value is False:
        writer.emit(ev.StepSkipped(path=path, reason="its condition is false"))
        return False
    message = f"{path}: `when` gave {type(value).__name__}, not a boolean; there is no truthiness"
    raise ExpressionError(message, code="type_mismatch")


def _as_list(path: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        message = f"{path}: `foreach` gave {type(value).__name__}, not a list"
        raise ExpressionError(message, code="type_mismatch")
    return value


def _open_window(writer: Writer, path: str, answer: _Answer) -> None:
    held = answer.held
    if held is not None and held.ref:
        if held.count < 0:
            message = f"{path}: `foreach` gave a large value that is not a list"
            raise ExpressionError(message, code="type_mismatch")
        items, count = held, held.count
    else:
        values = _as_list(path, answer.value)
        items, count = held or writer.store(values), len(values)
    if count > names.FOREACH_ITEMS_MAX:
        message = f"{path}: `foreach` over {count} items; at most {names.FOREACH_ITEMS_MAX} are allowed"
        raise ExpressionError(message, code="limit_exceeded")
    writer.emit(ev.ForeachStarted(path=path, items=items, count=count))
    if count == 0:
        writer.complete_foreach(path)


def _start_items(writer: Writer, path: str) -> None:
    """Move the window of a `foreach` forward as far as limits allow."""
    node = node_of(writer.plan, path)
    assert node.foreach is not None
    while not writer.full and writer.fatal is None:
        inst = writer.run.get(path)
        if inst is None or inst.fan is None or inst.fan.cursor >= inst.fan.count:
            return
        if inst.fan.in_flight >= node.foreach.max_parallel or not writer.room():
            return
        item = f"{path}[{inst.fan.cursor}]"
        cursor = inst.fan.cursor
        _start_item(writer, node, item)
        after = writer.run.get(path)
        if after is None or after.fan is None or after.fan.cursor == cursor:
            return  # no offer left on its queue, or the whole has ended


def _start_item(writer: Writer, node: Node, path: str) -> None:
    try:
        if node.when is not None and _reads_item(node, node.when):
            bindings = bind(writer.run, writer.plan, path, node.when.reads, node.when.optional)
            if not evaluable_here(bindings, node.when):
                message = (
                    f"{path}: a condition over an item that is held by reference is not supported; use a transform"
                )
                raise ExpressionError(message)
            if not _passes(writer, path, evaluate(node.when, materialise(bindings))):
                return
        start_instance(writer, node, path)
    except ExpressionError as error:
        writer.fail_step(path, error.failure())


def start_instance(writer: Writer, node: Node, path: str) -> None:
    """Start one instance: by an order, a timer, a child, or at once where only a small expression is asked."""
    match node.kind:
        case "wait":
            _start_wait(writer, node, path)
        case "pipeline":
            _start_child(writer, node, path, attempt=1)
        case "transform" if not node.artifacts:
            bindings = bind(writer.run, writer.plan, path, node.spec.reads, node.spec.optional)
            if evaluable_here(bindings, node.spec):
                output = writer.store(render(node.spec, materialise(bindings)))
                writer.emit(ev.StepCompleted(path=path, output=output))
            else:
                schedule(writer, path, attempt=1)
        case _:
            schedule(writer, path, attempt=1)


def schedule(writer: Writer, path: str, *, attempt: int) -> None:
    """Offer an attempt to the executors, when the run and its queue have room."""
    if path.partition("?")[1] == "":
        node = node_of(writer.plan, path)
        if node.kind == "pipeline":
            try:
                _start_child(writer, node, path, attempt=attempt)
            except ExpressionError as error:
                writer.fail_step(path, error.failure())
            return
    if not writer.room():
        return
    try:
        content = content_for(writer.run, writer.plan, path)
    except ExpressionError as error:
        writer.fail_step(path, error.failure())
        return
    schedule_content(writer, path, attempt=attempt, content=content)


def schedule_content(writer: Writer, path: str, *, attempt: int, content: Content) -> None:
    """As `schedule`, with what the attempt is given at hand."""
    if not writer.take(content.queue):
        return
    inst = writer.run.get(path)
    first_ms = inst.first_ms if inst is not None and inst.first_ms else writer.now_ms
    not_after_ms, due_ms = attempt_window_ms(
        writer.plan, path, run_deadline_ms=writer.run.deadline_ms, first_ms=first_ms, at_ms=writer.now_ms
    )
    writer.emit(
        ev.StepScheduled(
            path=path,
            attempt=attempt,
            queue=content.queue,
            input_sha=content.sha,
            not_after_ms=not_after_ms,
            due_ms=due_ms,
        )
    )
    writer.add_order(path, content)


def _start_wait(writer: Writer, node: Node, path: str) -> None:
    bindings = bind(writer.run, writer.plan, path, node.spec.reads, node.spec.optional)
    if not evaluable_here(bindings, node.spec):
        message = f"{path}: how long to wait cannot be read from a value held by reference"
        raise ExpressionError(message)
    spec = render(node.spec, materialise(bindings))
    writer.emit(ev.TimerSet(path=path, timer="wait", due_ms=_wait_until_ms(path, spec, writer.now_ms)))


def _wait_until_ms(path: str, spec: Any, now_ms: int) -> int:
    if "for" in spec:
        return now_ms + parse_duration_ms(spec["for"])
    due_ms = instant_ms(spec["until"])
    if due_ms - now_ms > names.DURATION_MS_MAX:
        message = f"{path}: waits end within 30 days"
        raise ExpressionError(message, code="limit_exceeded")
    return max(now_ms, due_ms)


def _start_child(writer: Writer, node: Node, path: str, *, attempt: int) -> None:
    run = writer.run
    assert node.child is not None, path
    if run.depth >= names.NESTING_MAX:
        message = f"{path}: child runs nest at most {names.NESTING_MAX} deep"
        writer.fail_step(path, Failure(code="nesting_limit", message=message))
        return
    digest = node.child.digest or writer.definitions.get(node.child.pipeline, "")
    if not digest:
        message = f"{path}: no definition of `{node.child.pipeline}` is registered"
        writer.fail_step(path, Failure(code="not_found", message=message))
        return
    if not writer.room():
        return
    bindings = bind(run, writer.plan, path, node.spec.reads, node.spec.optional)
    if not evaluable_here(bindings, node.spec):
        message = (
            f"{path}: inputs of a child run cannot be made from a value held by reference; pass the value itself on"
        )
        raise ExpressionError(message)
    inst = run.get(path)
    first_ms = inst.first_ms if inst is not None and inst.first_ms else writer.now_ms
    due_ms = min(writer.now_ms + node.timeout_ms, first_ms + node.deadline_ms, run.deadline_ms)
    place = path if attempt == 1 else f"{path}#{attempt}"
    writer.emit(
        ev.ChildStarted(
            path=path,
            attempt=attempt,
            child=ids.child_run_id(run.run, place),
            pipeline=node.child.pipeline,
            defdigest=digest,
            inputs=writer.store(render(node.spec, materialise(bindings))),
            due_ms=due_ms,
        )
    )
