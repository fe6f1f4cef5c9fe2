"""Steps that hold others: windows of `foreach`, loops, groups and cases. How they open, move on and end. Pure."""

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.errors import ExpressionError
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Node, node_of
from headrace_scheduler import ends
from headrace_scheduler.asking import Answer, answered, ask, is_true, order_evaluation
from headrace_scheduler.deadlines import step_deadline_ms
from headrace_scheduler.draft import Writer
from headrace_scheduler.orders import evaluable_here, outputs_of, outputs_template, render_outputs
from headrace_scheduler.paths import OUTPUTS, evaluation
from headrace_scheduler.records import NULL, Inst
from headrace_scheduler.values import bind

# --- foreach -----------------------------------------------------------------------------------


def open_window(writer: Writer, node: Node, path: str) -> None:
    """Ask for the list, and open the window over it."""
    assert node.foreach is not None, path
    answer = ask(writer, evaluation(path, "items"), node.foreach.items)
    if answer is None:
        return
    held = answer.held
    if held is not None and held.ref:
        if held.count < 0:
            message = f"{path}: `foreach` gave a large value that is not a list"
            raise ExpressionError(message, code="type_mismatch")
        items, count = held, held.count
    else:
        if not isinstance(answer.value, list):
            message = f"{path}: `foreach` gave {type(answer.value).__name__}, not a list"
            raise ExpressionError(message, code="type_mismatch")
        items, count = answer.stored(writer), len(answer.value)
    if count > names.FOREACH_ITEMS_MAX:
        message = f"{path}: `foreach` over {count} items; at most {names.FOREACH_ITEMS_MAX} are allowed"
        raise ExpressionError(message, code="limit_exceeded")
    writer.emit(ev.ForeachStarted(path=path, items=items, count=count))
    if count == 0:
        ends.complete_foreach(writer, path)


def next_item(writer: Writer, inst: Inst) -> str | None:
    """The item that the window may take in, or None."""
    foreach = node_of(writer.plan, inst.path).foreach
    assert inst.fan is not None and foreach is not None, inst.path
    if inst.fan.cursor >= inst.fan.count or inst.fan.in_flight >= foreach.max_parallel or not writer.room():
        return None
    return f"{inst.path}[{inst.fan.cursor}]"


# --- while, until ------------------------------------------------------------------------------


def open_loop(writer: Writer, node: Node, path: str) -> None:
    """Evaluate what the first iteration is given."""
    assert node.loop is not None, path
    if node.loop.start is None:
        writer.emit(ev.LoopStarted(path=path, carry=NULL))
        return
    answer = ask(writer, evaluation(path, "start"), node.loop.start)
    if answer is not None:
        writer.emit(ev.LoopStarted(path=path, carry=answer.stored(writer)))


def next_iteration(writer: Writer, inst: Inst) -> str | None:
    """The iteration that begins now, or None: one lives, its condition is not known yet, or the loop has ended."""
    path, turns = inst.path, inst.turns
    loop = node_of(writer.plan, path).loop
    assert turns is not None and loop is not None, path
    if turns.living:
        return None
    iteration = f"{path}({turns.done})"
    if not loop.is_until or turns.done > 0:
        word, asker = ("until", f"{path}({turns.done - 1})") if loop.is_until else ("while", iteration)
        verdict = ask(writer, evaluation(asker, word), loop.condition)
        if verdict is None:
            return None
        if is_true(path, word, verdict.value) == loop.is_until:
            _complete_loop(writer, inst)
            return None
    if turns.done < loop.max_iterations:
        return iteration
    if loop.ok_on_limit:
        _complete_loop(writer, inst)
    else:
        message = f"{path}: {turns.done} iterations, and it would go on; at most {loop.max_iterations} are allowed"
        writer.fail_step(path, Failure(code="limit_exceeded", message=message))
    return None


def _complete_loop(writer: Writer, inst: Inst) -> None:
    assert inst.turns is not None
    writer.emit(ev.StepCompleted(path=inst.path, output=inst.turns.carry, degraded=inst.turns.degraded))


# --- groups, switch ----------------------------------------------------------------------------


def open_scope(writer: Writer, node: Node, path: str, *, attempt: int) -> None:
    """Begin an attempt of a group, or of the first case that holds."""
    case = 0 if node.kind == "steps" else _choose(writer, node, path, attempt)
    if case is None:
        return
    if case < 0:
        writer.emit(ev.StepSkipped(path=path, reason="none of its cases holds"))
        return
    due_ms = min(
        writer.now_ms + node.timeout_ms,
        step_deadline_ms(writer.run, writer.plan, path, now_ms=writer.now_ms),
        writer.run.end_ms,
    )
    writer.emit(ev.ScopeStarted(path=path, attempt=attempt, due_ms=due_ms, case=case))


def _choose(writer: Writer, node: Node, path: str, attempt: int) -> int | None:
    """The first case that holds, −1 for none, None while an executor is asked."""
    for number, index in enumerate(node.blocks):
        condition = writer.plan.blocks[index].when
        if condition is None:
            return number
        verdict = ask(writer, evaluation(path, f"case{number}", attempt), condition)
        if verdict is None:
            return None
        if is_true(path, "when", verdict.value):
            return number
    return -1


def finish_scope(writer: Writer, inst: Inst) -> None:
    """All steps of the scope have ended well, or were tolerated: its outputs are what the step gives."""
    scope = inst.scope
    assert scope is not None, inst.path
    if not outputs_of(writer.run, writer.plan, scope.path):
        output = NULL
    else:
        answer = ask_outputs(writer, scope.path)
        if answer is None:
            return
        output = answer.stored(writer)
    writer.emit(ev.StepCompleted(path=inst.path, attempt=inst.attempt, output=output, degraded=scope.degraded))


def ask_outputs(writer: Writer, scope: str) -> Answer | None:
    """The outputs of a scope whose steps have ended; None while an executor evaluates them."""
    path, run = scope + OUTPUTS, writer.run
    answer = answered(writer, path)
    if answer is not None or run.get(path) is not None:
        return answer
    outputs = outputs_of(run, writer.plan, scope)
    template = outputs_template(run, scope, outputs)
    bindings = bind(run, writer.plan, path, template.reads, template.optional, now_ms=writer.now_ms)
    if evaluable_here(bindings, template):
        return Answer(render_outputs(run, scope, outputs, bindings))
    if run.status == "running":
        order_evaluation(writer, path)
    return None
