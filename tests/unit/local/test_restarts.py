"""When a dead child is started again, and when it is set aside."""

from headrace.local.restarts import CRASH_WINDOW_S, CRASHES_MAX, RESTART_MAX_S, Restarts


def test_pauses_double_and_the_fifth_death_within_a_minute_is_the_last() -> None:
    """0.1, 0.2, 0.4, 0.8 s, then nothing more."""
    restarts = Restarts()
    assert [restarts.pause_s(10.0 + number) for number in range(CRASHES_MAX)] == [0.1, 0.2, 0.4, 0.8, None]


def test_deaths_long_ago_do_not_count() -> None:
    """A child that dies once an hour is started again for ever, at once."""
    restarts = Restarts()
    pauses = {restarts.pause_s(number * (CRASH_WINDOW_S + 1)) for number in range(100)}
    assert pauses == {0.1}
    assert max(pauses) < RESTART_MAX_S
