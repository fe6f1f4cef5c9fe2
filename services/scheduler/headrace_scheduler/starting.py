"""What may start: ready steps in their order, items of open windows, iterations, and what follows an evaluation.
Pure.
"""

from bisect import bisect_left
from typing import Any, Final

from headrace.contracts import events as ev
from headrace.contracts import ids, names
from headrace.contracts.errors import ExpressionError
from headrace.contracts.failure import Failure
from headrace.pipeline.durations import instant_ms, parse_duration_ms
from headrace.pipeline.expressions import Expression, render
from headrace.pipeline.plan import Node, node_of
from headrace_scheduler.approvals import request_approval
from headrace_scheduler.asking import ask, is_true, schedule_content
from headrace_scheduler.caching import digest_to_try
from headrace_scheduler.containers import finish_scope, next_item, next_iteration, open_loop, open_scope, open_window
from headrace_scheduler.deadlines import step_deadline_ms
from headrace_scheduler.draft import Writer
from headrace_scheduler.emitting import start_emit
from headrace_scheduler.orders import content_for, evaluable_here
from headrace_scheduler.paths import evaluation
from headrace_scheduler.records import FANNED, INSIDE, ORDERED, STANDING, TURNING, Inst, Place
from headrace_scheduler.signals import await_signal
from headrace_scheduler.values import bind, materialise, needed

HOLDERS: Final = frozenset({FANNED, TURNING, INSIDE, STANDING})


def start(writer: Writer) -> None:
    """Start as much as limits allow. What ends at once may let others begin, which are taken up in the same pass."""
    while writer.goes_on:
        said = len(writer.events)
        _start_ready(writer)
        holders = [path for path in writer.run.active if (inst := writer.run.get(path)) and inst.status in HOLDERS]
        for path in holders:
            _move_on(writer, path)
        if not holders or len(writer.events) == said:
            return


def _start_ready(writer: Writer) -> None:
    """In one order over both lists; where the run has no room, the longer one is not looked at."""
    if not writer.run.ready and not writer.run.lined:
        return
    tried = set[str]()
    ready, lined = _Line(writer.run.ready, tried), _Line(writer.run.lined, tried)
    while writer.goes_on:
        place, other = ready.head(), lined.head() if writer.room() else None
        if other is not None and (place is None or other < place):
            tried.add(other[3])
            _begin_step(writer, writer.plan.nodes[other[1]], other[3])
        elif place is not None:
            tried.add(place[3])
            _start_step(writer, writer.plan.nodes[place[1]], place[3])
        else:
            return


class _Line:
    """Sorted places, of which each is tried once, though the list changes meanwhile."""

    def __init__(self, places: list[Place], tried: set[str]) -> None:
        self.places, self.tried = places, tried
        self._position = 0
        """All before it have been tried."""
        self._head: Place | None = None

    def head(self) -> Place | None:
        """The first that was not tried."""
        if self._head is not None:
            position = bisect_left(self.places, self._head)
            self._position = 0 if position > self._position else position  # something has come before it
        for position in range(self._position, len(self.places)):
            place = self.places[position]
            if place[3] not in self.tried:
                self._position, self._head = position, place
                return place
        if self.places:  # what comes after the last of them, or before it, is found from there
            self._position, self._head = len(self.places) - 1, self.places[-1]
        return None


def _start_step(writer: Writer, node: Node, path: str) -> None:
    """One ready step: skip it, or begin it."""
    if path[-1] in "])":
        _start_part(writer, node, path)
        return
    cause = needed(node, path, writer.run, writer.plan)
    if cause is not None:
        writer.emit(ev.StepSkipped(path=path, reason=f"it needs `{cause.path}`, which was skipped"))
        return
    _begin_step(writer, node, path)


def _begin_step(writer: Writer, node: Node, path: str) -> None:
    """Open the window or the loop of a step that its needs do not skip, or start its only instance."""
    is_single = node.foreach is None and node.loop is None
    if is_single and node.kind in ORDERED and (not writer.room() or writer.refuses(node.queue)):
        return  # before anything is evaluated: a long line of ready steps must not cost more the longer it is
    try:
        if node.when is not None and not _reads_item(node, node.when) and not _passes(writer, path, node.when):
            return
        if is_single:
            start_instance(writer, node, path)
        elif node.loop is not None:
            open_loop(writer, node, path)
        else:
            open_window(writer, node, path)
    except ExpressionError as error:
        writer.fail_step(path, error.failure())


def _reads_item(node: Node, expression: Expression) -> bool:
    return node.foreach is not None and bool(expression.reads & {node.foreach.item_name, node.foreach.index_name})


def _passes(writer: Writer, path: str, condition: Expression) -> bool:
    """False when it is skipped, or when it is not known yet whether it is."""
    verdict = ask(writer, evaluation(path, "when"), condition)
    if verdict is None:
        return False
    if is_true(path, "when", verdict.value):
        return True
    writer.emit(ev.StepSkipped(path=path, reason="its condition is false"))
    return False


def _move_on(writer: Writer, path: str) -> None:
    """Move a window or a loop forward as far as limits allow; end a scope whose steps have ended."""
    while writer.goes_on:
        inst = writer.run.get(path)
        if inst is None or inst.status not in HOLDERS:
            return
        try:
            if inst.status == INSIDE:
                if inst.scope is not None and inst.scope.open == 0:
                    finish_scope(writer, inst)
                return
            if inst.status == STANDING:
                _stand_in(writer, inst)
                return
            part = next_item(writer, inst) if inst.status == FANNED else next_iteration(writer, inst)
        except ExpressionError as error:
            writer.fail_step(path, error.failure())
            return
        if part is None:
            return
        said = len(writer.events)
        _start_part(writer, node_of(writer.plan, path), part)
        if len(writer.events) == said:
            return  # no offer left on its queue


def _stand_in(writer: Writer, inst: Inst) -> None:
    """A value stands in at once; another step ends the one that it stands in for."""
    fallback = node_of(writer.plan, inst.path).fallback
    if fallback is None or fallback.value is None:
        return
    answer = ask(writer, evaluation(inst.path, "fallback"), fallback.value)
    if answer is not None:
        output = answer.stored(writer)
        writer.emit(ev.StepCompleted(path=inst.path, attempt=inst.attempt, output=output, degraded=True))


def _start_part(writer: Writer, node: Node, path: str) -> None:
    try:
        reads_item = node.when is not None and _reads_item(node, node.when)
        if reads_item and node.when is not None and not _passes(writer, path, node.when):
            return
        start_instance(writer, node, path)
    except ExpressionError as error:
        writer.fail_step(path, error.failure())


def start_instance(writer: Writer, node: Node, path: str) -> None:
    """Start one instance: by an order, a timer, a child, a scope, or at once where only a small expression is asked."""
    match node.kind:
        case "transform" if not node.artifacts:
            reads, optional = node.spec.reads, node.spec.optional
            bindings = bind(writer.run, writer.plan, path, reads, optional, now_ms=writer.now_ms)
            if evaluable_here(bindings, node.spec):
                output = writer.store(render(node.spec, materialise(bindings)))
                writer.emit(ev.StepCompleted(path=path, output=output))
            elif node.cache is not None:
                _order_unless_cached(writer, node, path)
            else:
                schedule(writer, path, attempt=1)
        case "signal":
            await_signal(writer, node, path)
        case "approval":
            request_approval(writer, node, path)
        case "tool" | "llm" if node.cache is not None:
            _order_unless_cached(writer, node, path)
        case "emit":
            start_emit(writer, node, path)
        case "wait":
            _start_wait(writer, node, path)
        case _:
            _attempt(writer, node, path, attempt=1)


def schedule(writer: Writer, path: str, *, attempt: int) -> None:
    """Begin an attempt of an instance, when the run and its queue have room."""
    try:
        if "?" in path:
            if writer.room():
                _order(writer, path, attempt=attempt)
        else:
            _attempt(writer, node_of(writer.plan, path), path, attempt=attempt)
    except ExpressionError as error:
        writer.fail_step(path, error.failure())


def _attempt(writer: Writer, node: Node, path: str, *, attempt: int) -> None:
    match node.kind:
        case "steps" | "switch":
            open_scope(writer, node, path, attempt=attempt)
        case "pipeline":
            _start_child(writer, node, path, attempt=attempt)
        case _ if writer.room():
            _order(writer, path, attempt=attempt)


def _start_wait(writer: Writer, node: Node, path: str) -> None:
    answer = ask(writer, evaluation(path, "spec"), node.spec)
    if answer is None:
        return
    spec = answer.at_hand(path, "how long to wait")
    writer.emit(ev.TimerSet(path=path, timer="wait", due_ms=_wait_until_ms(path, spec, writer.now_ms)))


def _wait_until_ms(path: str, spec: Any, now_ms: int) -> int:
    if "for" in spec:
        return now_ms + parse_duration_ms(spec["for"])
    due_ms = instant_ms(spec["until"])
    if due_ms - now_ms > names.DURATION_MS_MAX:
        message = f"{path}: waits end within 30 days"
        raise ExpressionError(message, code="limit_exceeded")
    return max(now_ms, due_ms)


def _order_unless_cached(writer: Writer, node: Node, path: str) -> None:
    digest = digest_to_try(writer, node, path)
    if digest is not None:
        _order(writer, path, attempt=1, cache_key=digest)


def _order(writer: Writer, path: str, *, attempt: int, cache_key: str = "") -> None:
    content = content_for(writer.run, writer.plan, path, now_ms=writer.now_ms)
    schedule_content(writer, path, attempt=attempt, content=content, cache_key=cache_key)


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
    inputs = ask(writer, evaluation(path, "spec", attempt), node.spec)
    if inputs is None:
        return
    place = path if attempt == 1 else f"{path}#{attempt}"
    writer.emit(
        ev.ChildStarted(
            path=path,
            attempt=attempt,
            child=ids.child_run_id(run.run, place),
            pipeline=node.child.pipeline,
            defdigest=digest,
            inputs=inputs.stored(writer),
            due_ms=min(
                writer.now_ms + node.timeout_ms,
                step_deadline_ms(run, writer.plan, path, now_ms=writer.now_ms),
                run.end_ms,
            ),
        )
    )
