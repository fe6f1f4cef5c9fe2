"""Until when an attempt may begin, and when it is over for the engine. Pure."""

from typing import Final

from headrace.contracts import names
from headrace.pipeline.plan import Plan, RetryPolicy, node_of
from headrace_scheduler.paths import OUTPUTS, whole_of
from headrace_scheduler.records import Run

GRACE_MS: Final = 5_000
"""Between an executor's own deadline and the engine's: its report of the timeout should win."""
_EVALUATION: Final = RetryPolicy()


def timeout_ms(plan: Plan, path: str) -> int:
    """How long one attempt of an instance may take."""
    return names.ATTEMPT_TIMEOUT_MS if "?" in path else node_of(plan, path).timeout_ms


def retry_policy(plan: Plan, path: str) -> RetryPolicy:
    """How often an instance is tried."""
    return _EVALUATION if "?" in path else node_of(plan, path).retry


def step_deadline_ms(run: Run, plan: Plan, path: str, *, now_ms: int = 0) -> int:
    """The instant at which all attempts of an instance are over; those of a part with those of its whole.

    Args:
        now_ms: When it begins, for one that has not begun.
    """
    inst = run.get(path)
    if inst is not None and inst.deadline_ms:
        return inst.deadline_ms
    if path.endswith(OUTPUTS):
        return now_ms + names.STEP_DEADLINE_MS
    allowed_ms = node_of(plan, path).deadline_ms
    if "?" in path:
        return now_ms + min(names.STEP_DEADLINE_MS, allowed_ms)
    whole = run.get(whole_of(path)) if path[-1] in "])" else None
    return whole.deadline_ms if whole is not None and whole.deadline_ms else now_ms + allowed_ms


def attempt_window_ms(run: Run, plan: Plan, path: str, *, at_ms: int) -> tuple[int, int]:
    """For an order that goes out at `at_ms`: after when nobody may begin it, and when it is over."""
    not_after_ms = at_ms + names.SCHEDULE_TO_START_MS
    due_ms = min(
        not_after_ms + timeout_ms(plan, path) + GRACE_MS,
        step_deadline_ms(run, plan, path, now_ms=at_ms),
        run.end_ms,
    )
    return min(not_after_ms, due_ms), due_ms
