"""The plan's own defaults are those of the table of names."""

from headrace.contracts import names
from headrace.pipeline.plan import Foreach, RetryPolicy


def test_defaults_come_from_one_place() -> None:
    """A number stands once."""
    policy = RetryPolicy()
    assert (policy.attempts, policy.initial_ms, policy.max_ms) == (
        names.RETRY_ATTEMPTS,
        names.RETRY_INITIAL_MS,
        names.RETRY_MAX_MS,
    )
    assert Foreach.__dataclass_fields__["max_parallel"].default == names.FOREACH_MAX_PARALLEL
