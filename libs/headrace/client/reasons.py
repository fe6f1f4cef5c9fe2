"""A reason: what `headrace explain` says in one sentence, and the events that prove it."""

from dataclasses import dataclass
from typing import Final

from headrace.runtime.clock import rfc3339

REASONS_MAX: Final = 50
"""A screen; whoever wants to know more asks about one step."""


@dataclass(slots=True, frozen=True)
class Reason:
    """Why something is as it is.

    `code` is stable. What is over: completed, failed, failing, skipped, cancelled, cancelling, retried, undone,
    stalled, not_begun. What a run may be held up by (P7): approval, signal, timer, pause, blocked, budget, breaker,
    concurrency, no_executor. How it goes on by itself: attempt, retry, evaluation, child, items, iteration, scope,
    fallback, needs, ready, standby. `more` when there are too many.
    """

    code: str
    path: str
    """The step instance; empty for the run."""
    text: str
    events: tuple[int, ...]
    """Stream sequences, in the order of cause and effect."""
    run: str = ""
    """Another run that it is about: the child that a step waits for, or whose reason this is."""


def instant(ms: int) -> str:
    """`2026-11-25T12:00:00Z`, for sentences."""
    return f"{rfc3339(ms)[:19]}Z"
