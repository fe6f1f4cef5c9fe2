"""A run and its concurrency key: which it is, asking for it, and letting go of it."""

from typing import TYPE_CHECKING, Any, Final

from headrace.contracts import ids, names, pseudo
from headrace.contracts.errors import DataError
from headrace.pipeline.evaluation import NOW
from headrace.pipeline.expressions import render
from headrace.pipeline.plan import Plan
from headrace_scheduler import pseudo_messages
from headrace_scheduler.records import Run

if TYPE_CHECKING:  # the partition calls these functions; naming its type back is no dependency
    from headrace_scheduler.entries import Entry
    from headrace_scheduler.partition import Partition

KEY_CHARS_MAX: Final = 1_024
"""A key is a name of something, not a document."""
ASK_EVERY_S: Final = 5.0
"""Until it has heard. As everything that a partition publishes and does not see in the log."""
GRACE_MS: Final = names.STEP_DEADLINE_MS
"""What a run may take after its deadline until it has ended. A grant that expires is the last resort, for runs that
have stalled: whoever has ended says so, and whoever has vanished is looked for."""


def key_text(plan: Plan, inputs: dict[str, Any], event: dict[str, Any] | None = None, *, now_ms: int) -> str:
    """The text of a run's key; empty where the pipeline has none.

    Raises:
        ExpressionError: it cannot be made, e.g. reads `event` and nothing triggered the run.
        DataError: it is empty, or longer than KEY_CHARS_MAX.
    """
    if plan.concurrency is None:
        return ""
    values: dict[str, Any] = {"inputs": inputs, "vars": dict(plan.vars), NOW: now_ms}
    if event is not None:
        values["event"] = event
    made = render(plan.concurrency.key, values)
    text = made if isinstance(made, str) else pseudo_messages.as_text(made)
    if not 1 <= len(text) <= KEY_CHARS_MAX:
        message = f"limits.concurrency.key: a key has 1 to {KEY_CHARS_MAX} characters, not {len(text)}"
        raise DataError(message)
    return text


async def follow(partition: "Partition", entry: "Entry") -> None:
    """Ask until there is an answer; when the run has ended, say so, once: whoever misses it looks for itself."""
    run, plan = entry.run, entry.plan
    if not run.key or plan.concurrency is None:
        return
    now_s = partition.shared.clock.monotonic_s()
    what = "released" if run.ended else "asked"
    last_s = entry.published.get((f"!key {what}", 0, 0))
    if last_s is not None and (run.ended or now_s - last_s < ASK_EVERY_S):
        return
    if not run.ended and (run.key_answer or run.status == "stalled"):
        return
    entry.published[(f"!key {what}", 0, 0)] = now_s
    if not run.ended:
        entry.asks += 1
    data: pseudo.KeyAsk | pseudo.KeyRelease = pseudo.KeyRelease(run=run.run)
    if not run.ended:
        limit = plan.concurrency
        expires_ms = run.deadline_ms + GRACE_MS
        data = pseudo.KeyAsk(
            run=run.run, max=limit.max, on_excess=limit.on_excess, expires_ms=expires_ms, offer=entry.asks
        )
    await partition.publisher.send(
        pseudo_messages.key_told(
            ids.key_id(run.tenant, run.pipeline, run.key),
            data,
            tenant=run.tenant,
            pipeline=run.pipeline,
            cause=run.decision_id,
            source=partition.shared.source,
            now_ms=partition.shared.clock.now_ms(),
        )
    )


def is_waiting(run: Run) -> bool:
    """It has asked and not heard: what was said may be lost."""
    return bool(run.key) and not run.key_answer and not run.ended
