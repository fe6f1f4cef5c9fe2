"""The broker's time by its stamps."""

from headrace.runtime.clock import SystemClock
from headrace_step_executor.broker_time import WINDOW_S, BrokerTime


class HandClock(SystemClock):
    """Moved by hand, with a wall clock that is a day ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s = 1000.0

    def monotonic_s(self) -> float:
        return self.at_s

    def now_ms(self) -> int:
        return 86_400_000


def test_stamps_count_and_the_wall_clock_does_not() -> None:
    """The highest stamp is the best lower bound; one that was set back by the broker holds two windows later."""
    clock = HandClock()
    time = BrokerTime(clock)
    time.seen(5_000)
    clock.at_s += 1
    time.seen(5_500)
    assert time.now_ms() == 6_000
    clock.at_s += 1
    assert time.now_ms() == 7_000
    for _ in range(3):
        clock.at_s += WINDOW_S
        time.seen(1_000)
    assert time.now_ms() <= 61_000
