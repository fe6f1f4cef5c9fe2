"""Whether and when another attempt follows. Pure: the draw is a hash of what it is for, and is recorded in the
event.
"""

from typing import NamedTuple

from headrace.contracts import names
from headrace.contracts.canonical import blake2b_hex
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import RetryPolicy


class Delay(NamedTuple):
    """How long to wait, and the draw from [0, 1) that it was made with."""

    delay_ms: int
    jitter: float


def retry_delay_ms(policy: RetryPolicy, *, run: str, path: str, attempt: int, failure: Failure) -> Delay | None:
    """The wait after `attempt` (counted from 1) failed, or None when no further attempt follows.

    Full jitter: uniformly from 0 to min(max, initial · 2^(attempt − 1)), so that many failures at once spread out. What
    the other side asked for (`retry_after_ms`) is a floor, plus up to a tenth.
    """
    assert attempt >= 1, attempt
    if attempt >= policy.attempts or not _is_retried(policy, failure):
        return None
    draw = int(blake2b_hex(f"{run}/{path}/{attempt}".encode(), digest_bytes=6), 16) / 2**48
    ceiling_ms = min(policy.max_ms, policy.initial_ms * 2 ** min(attempt - 1, 30))
    delay_ms = int(draw * ceiling_ms)
    if failure.retry_after_ms > 0:
        floor_ms = min(failure.retry_after_ms, names.RETRY_AFTER_MS_MAX)
        delay_ms = max(delay_ms, floor_ms + int(draw * floor_ms / 10))
    return Delay(delay_ms, draw)


def _is_retried(policy: RetryPolicy, failure: Failure) -> bool:
    if failure.code == "outcome_unknown":
        return failure.retryable  # `on_unknown` has decided it, whatever `on` lists
    if policy.on:
        return failure.code in policy.on
    return failure.retryable
