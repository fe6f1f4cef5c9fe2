"""Until when an attempt may begin, and when it is over for the engine. Pure."""

from typing import Final

from headrace.contracts import names
from headrace.pipeline.plan import Plan, node_of

GRACE_MS: Final = 5_000
"""Between an executor's own deadline and the engine's: its report of the timeout should win."""
OUTPUTS: Final = "?outputs"
"""The evaluation of a run's outputs, which belongs to no step."""


def timeout_ms(plan: Plan, path: str) -> int:
    """How long one attempt of an instance may take."""
    return names.ATTEMPT_TIMEOUT_MS if path == OUTPUTS else node_of(plan, path).timeout_ms


def step_deadline_ms(plan: Plan, path: str, *, first_ms: int) -> int:
    """The instant at which all attempts of an instance that began at `first_ms` are over."""
    return first_ms + (names.STEP_DEADLINE_MS if path == OUTPUTS else node_of(plan, path).deadline_ms)


def attempt_window_ms(plan: Plan, path: str, *, run_deadline_ms: int, first_ms: int, at_ms: int) -> tuple[int, int]:
    """For an order that goes out at `at_ms`: after when nobody may begin it, and when it is over."""
    not_after_ms = at_ms + names.SCHEDULE_TO_START_MS
    due_ms = min(
        not_after_ms + timeout_ms(plan, path) + GRACE_MS,
        step_deadline_ms(plan, path, first_ms=first_ms),
        run_deadline_ms,
    )
    return min(not_after_ms, due_ms), due_ms
