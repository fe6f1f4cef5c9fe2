"""Whether and when another attempt follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import failure

from headrace.contracts import names
from headrace.pipeline.plan import RetryPolicy
from headrace_scheduler.retry import retry_delay_ms

POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(2, 100),
    initial_ms=st.integers(1, 60_000),
    max_ms=st.integers(1, 3_600_000),
)


@given(POLICIES, st.integers(1, 99), st.text(max_size=10))
def test_a_delay_lies_between_nothing_and_the_ceiling(policy: RetryPolicy, attempt: int, path: str) -> None:
    """Full jitter up to min(max, initial · 2^(attempt − 1)); none after the last attempt."""
    delay = retry_delay_ms(policy, run="r", path=path, attempt=attempt, failure=failure())
    if attempt >= policy.attempts:
        assert delay is None
        return
    assert delay is not None and 0 <= delay.jitter < 1
    ceiling_ms = min(policy.max_ms, policy.initial_ms * 2 ** (attempt - 1))
    assert 0 <= delay.delay_ms < max(1, ceiling_ms)
    assert delay.delay_ms == int(delay.jitter * ceiling_ms)


@given(st.integers(1, 10_000_000), st.integers(1, 4))
def test_what_the_other_side_asked_for_is_a_floor(after_ms: int, attempt: int) -> None:
    """Plus up to a tenth; beyond ten minutes it is not believed."""
    policy = RetryPolicy(initial_ms=1, max_ms=1)
    delay = retry_delay_ms(policy, run="r", path="p", attempt=attempt, failure=failure(retry_after_ms=after_ms))
    assert delay is not None
    floor_ms = min(after_ms, names.RETRY_AFTER_MS_MAX)
    assert floor_ms <= delay.delay_ms <= floor_ms * 1.1


def test_the_draw_is_the_same_in_every_process_and_differs_by_place() -> None:
    """Golden: a hash of what it is for, so that two owners set the same timer, and steps that fail together spread."""
    draws = {
        key: retry_delay_ms(RetryPolicy(), run=key[0], path=key[1], attempt=key[2], failure=failure())
        for key in (("r", "a", 1), ("r", "a", 2), ("r", "b", 1), ("q", "a", 1))
    }
    assert len({delay.jitter for delay in draws.values() if delay is not None}) == 4
    first = draws["r", "a", 1]
    assert first is not None and first.delay_ms == 363


def test_draws_are_spread_evenly() -> None:
    """A thousand items that fail at once do not come back at once."""
    draws = [retry_delay_ms(RetryPolicy(), run="r", path=f"f[{n}]", attempt=1, failure=failure()) for n in range(1_000)]
    tenths = [0] * 10
    for delay in draws:
        assert delay is not None
        tenths[int(delay.jitter * 10)] += 1
    assert min(tenths) > 60 and max(tenths) < 140


@pytest.mark.parametrize(
    ("on", "code", "retryable", "tried"),
    [
        ((), "unavailable", True, True),
        ((), "denied", False, False),
        (("denied",), "denied", False, True),
        (("denied",), "unavailable", True, False),
        (("denied",), "outcome_unknown", True, True),
        (("outcome_unknown",), "outcome_unknown", False, False),
    ],
)
def test_who_decides(on: tuple[str, ...], code: str, retryable: bool, tried: bool) -> None:
    """The policy's list where there is one, else the failure; an unknown outcome is `on_unknown`'s alone."""
    policy = RetryPolicy(on=on)
    delay = retry_delay_ms(policy, run="r", path="p", attempt=1, failure=failure(code=code, retryable=retryable))
    assert (delay is not None) is tried
