"""The only clock and the only source of chance."""

from headrace.contracts.instants import rfc3339
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SeededEntropy, SystemEntropy


def test_the_brokers_time_is_learnt_and_never_runs_backwards() -> None:
    """A wall clock that is wrong decides nothing."""
    clock = SystemClock()
    hour_ms = 3_600_000
    before = clock.now_ms()
    clock.learn(before + hour_ms)
    ahead = clock.now_ms()
    assert ahead >= before + hour_ms
    assert abs(clock.wall_error_ms + hour_ms) < 5_000
    clock.learn(before)
    assert clock.now_ms() >= ahead


def test_instants_are_shown_in_utc_with_microseconds() -> None:
    """As CloudEvents want them."""
    assert rfc3339(1_764_072_000_123) == "2025-11-25T12:00:00.123000Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"


def test_a_seed_draws_the_same_again() -> None:
    """Seeded draws repeat; the system's differ; both stay in their range."""
    first, second = SeededEntropy(7), SeededEntropy(7)
    assert [first.bits(80), first.jitter()] == [second.bits(80), second.jitter()]
    system = SystemEntropy()
    assert system.bits(128) != system.bits(128)
    assert 0 <= system.jitter() < 1
    assert 0 <= first.bits(8) < 256
