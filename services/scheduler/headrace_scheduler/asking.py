"""Questions about a step before it begins, or about a loop between iterations: evaluated here when small, else by an
executor, whose answer is kept until whoever asked begins or ends. Pure.
"""

from typing import Any, NamedTuple

import msgspec

from headrace.contracts import events as ev
from headrace.contracts.codec import plain
from headrace.contracts.envelope import Value
from headrace.contracts.errors import ExpressionError
from headrace.pipeline.expressions import Expression, Template, evaluate, render
from headrace_scheduler.budgets import hold
from headrace_scheduler.deadlines import attempt_window_ms
from headrace_scheduler.draft import Writer
from headrace_scheduler.orders import Content, content_for, evaluable_here
from headrace_scheduler.records import SUCCEEDED
from headrace_scheduler.values import bind, materialise


class Answer(NamedTuple):
    """An evaluated value, which may be null. `held` is set when an executor evaluated it, and may be a reference."""

    value: Any
    held: Value | None = None

    def stored(self, writer: Writer) -> Value:
        """The value, for an event."""
        return writer.store(self.value) if self.held is None else self.held

    def at_hand(self, path: str, what: str) -> Any:
        """The value itself; for what is never large."""
        if self.held is not None and self.held.ref:
            message = f"{path}: {what} takes {self.held.size} bytes, which is too large"
            raise ExpressionError(message, code="too_large")
        return self.value


def ask(writer: Writer, path: str, question: Expression | Template) -> Answer | None:
    """What an executor found, or evaluate here, or order the evaluation at `path` (once) and give None.

    Raises:
        ExpressionError: a value is missing, or the expression has none.
    """
    answer = answered(writer, path)
    if answer is not None or writer.run.get(path) is not None:
        return answer
    bindings = bind(writer.run, writer.plan, path, question.reads, question.optional, now_ms=writer.now_ms)
    if not evaluable_here(bindings, question):
        order_evaluation(writer, path)
        return None
    values = materialise(bindings)
    return Answer(evaluate(question, values) if isinstance(question, Expression) else render(question, values))


def answered(writer: Writer, path: str) -> Answer | None:
    """What an executor found when it was asked."""
    asked = writer.run.get(path)
    if asked is None or asked.status != SUCCEEDED or asked.output is None:
        return None
    held = asked.output
    return Answer(plain(held.json) if isinstance(held.json, msgspec.Raw) else None, held)


def order_evaluation(writer: Writer, path: str) -> None:
    """Have an executor evaluate it, when there is room."""
    if writer.room():
        schedule_content(
            writer, path, attempt=1, content=content_for(writer.run, writer.plan, path, now_ms=writer.now_ms)
        )


def schedule_content(writer: Writer, path: str, *, attempt: int, content: Content, cache_key: str = "") -> None:
    """Offer an attempt to the executors, when its queue and its budgets have room.

    Raises:
        ExpressionError: no budget will ever have room for it.
    """
    held = hold(writer, path, content)
    if held.waits or not writer.take(content.queue):
        return
    not_after_ms, due_ms = attempt_window_ms(writer.run, writer.plan, path, at_ms=writer.now_ms)
    writer.emit(
        ev.StepScheduled(
            path=path,
            attempt=attempt,
            queue=content.queue,
            input_sha=content.sha,
            not_after_ms=not_after_ms,
            due_ms=due_ms,
            cache_key=cache_key,
            reserved=held.amount,
        )
    )
    writer.add_order(path, content)


def is_true(path: str, word: str, value: Any) -> bool:
    """The verdict of a condition.

    Raises:
        ExpressionError: `type_mismatch`, it is neither true nor false.
    """
    if not isinstance(value, bool):
        message = f"{path}: `{word}` gave {type(value).__name__}, not a boolean; there is no truthiness"
        raise ExpressionError(message, code="type_mismatch")
    return value
