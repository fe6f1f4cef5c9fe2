"""The breaker: one test for each of pybreaker's traps, its windows, and what it costs."""

import asyncio
import contextlib
import time
from typing import Any, Final

import pytest

from headrace_step_executor.breakers import (
    OPEN_MAX_S,
    RAMP_S,
    RATE_CALLS_MIN,
    AsyncBreaker,
    Change,
    OpenError,
)

OVERHEAD_US_MAX: Final = 20
"""Issue 4's figure for one call through a closed breaker, measured in CPU time of this thread."""
REFUSAL_MS_MAX: Final = 5


class Stage:
    """A breaker on a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s, self.changes = 1_000.0, list[Change]()
        self.breaker = AsyncBreaker("b", now_s=lambda: self.now_s, jitter=lambda: 0.5, changed=self.changes.append)

    async def good(self) -> str:
        return await self.breaker.call(_good, counts=_counts)

    async def bad(self) -> None:
        with pytest.raises(ZeroDivisionError):
            await self.breaker.call(_bad, counts=_counts)

    async def open(self) -> None:
        for _ in range(5):
            await self.bad()
        assert self.breaker.state == "open"

    async def half_open(self) -> None:
        await self.open()
        self.now_s += self.breaker.due_in_s


async def _good() -> str:
    return "good"


async def _bad() -> str:
    raise ZeroDivisionError("bad")


def _counts(error: Exception) -> bool:
    return isinstance(error, ZeroDivisionError)


# --- the seven traps ----------------------------------------------------------------------------------


async def test_trap_1_the_call_is_guarded_and_not_the_making_of_its_coroutine() -> None:
    """Failures of an `async def` count, and successes are not invented."""
    stage = Stage()
    await stage.open()
    with pytest.raises(OpenError):
        await stage.good()


async def test_trap_2_calls_run_side_by_side() -> None:
    """No lock is held over a call: all of them are inside at the same time."""
    stage, inside, everybody = Stage(), 0, asyncio.Event()

    async def meet() -> None:
        nonlocal inside
        inside += 1
        if inside == 6:
            everybody.set()
        async with asyncio.timeout(5):
            await everybody.wait()

    await asyncio.gather(*(stage.breaker.call(meet, counts=_counts) for _ in range(6)))
    assert inside == 6


async def test_trap_3_half_open_admits_one_of_twenty_callers() -> None:
    """The others are refused at once; two probes that succeed, one after the other, close it."""
    stage, gate, made = Stage(), asyncio.Event(), 0
    await stage.half_open()

    async def probe() -> None:
        nonlocal made
        made += 1
        async with asyncio.timeout(5):
            await gate.wait()

    tasks = [asyncio.create_task(stage.breaker.call(probe, counts=_counts)) for _ in range(20)]
    await asyncio.sleep(0)
    gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert made == 1
    assert sum(isinstance(outcome, OpenError) for outcome in outcomes) == 19
    assert stage.breaker.state == "half-open"
    await stage.good()
    assert stage.breaker.state == "closed"


async def test_trap_4_a_cancellation_is_no_outcome() -> None:
    """Neither a failure, nor a success that closes a half-open one; it stays a CancelledError; the place is free."""
    stage = Stage()

    async def cancelled() -> None:
        task = asyncio.create_task(stage.breaker.call(lambda: asyncio.sleep(60), counts=_counts))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for _ in range(10):
        await cancelled()
    assert stage.breaker.state == "closed"
    await stage.half_open()
    for _ in range(3):
        await cancelled()
        assert stage.breaker.state == "half-open"
    assert await stage.good() == "good"


async def test_trap_5_the_call_that_trips_it_gives_its_own_error() -> None:
    """And whoever is refused afterwards hears until when, and why."""
    stage = Stage()
    await stage.open()  # every error of it was the call's own
    with pytest.raises(OpenError) as refused:
        await stage.good()
    assert refused.value.after_s == pytest.approx(30)
    assert refused.value.cause == "ZeroDivisionError: bad"


async def test_trap_6_only_the_given_clock_counts_and_late_failures_prolong_nothing() -> None:
    """Calls that were under way when it opened change neither the window nor the half-open state."""
    stage, gate = Stage(), asyncio.Event()

    async def late() -> None:
        async with asyncio.timeout(5):
            await gate.wait()
        raise ZeroDivisionError

    tasks = [asyncio.create_task(stage.breaker.call(late, counts=_counts)) for _ in range(3)]
    await asyncio.sleep(0)
    await stage.open()
    stage.now_s += 29.0
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert stage.breaker.due_in_s == pytest.approx(1.0)
    stage.now_s += 1.0
    assert await stage.good() == "good"
    assert [change.state for change in stage.changes] == ["open", "half-open"]


async def test_trap_7_a_failure_rate_opens_it_and_stop_iteration_is_a_failure() -> None:
    """Half of twenty calls, with successes in between; an error that generators swallow counts as any other."""
    stage = Stage()
    for _ in range(RATE_CALLS_MIN // 2 - 1):
        await stage.good()
        await stage.bad()
    assert stage.breaker.state == "closed"
    await stage.good()
    await stage.bad()
    assert stage.breaker.state == "open"

    async def stops() -> None:
        raise StopAsyncIteration

    other = Stage()
    for _ in range(5):
        with pytest.raises(StopAsyncIteration):
            await other.breaker.call(stops, counts=lambda _error: True)
    assert other.breaker.state == "open"


# --- windows ------------------------------------------------------------------------------------------


async def test_what_says_nothing_about_health_breaks_a_row_of_failures() -> None:
    """A refusal of the request is an answer."""
    stage = Stage()

    async def refused() -> None:
        raise ValueError

    for _ in range(4):
        await stage.bad()
    for _ in range(50):
        with pytest.raises(ValueError):  # noqa: PT011 it is the one raised above
            await stage.breaker.call(refused, counts=_counts)
    for _ in range(4):
        await stage.bad()
    assert stage.breaker.state == "closed"


async def test_it_stays_open_twice_as_long_with_every_probe_that_fails_up_to_five_minutes() -> None:
    """One probe an interval; closing forgets the past."""
    stage = Stage()
    await stage.open()
    waits = [stage.breaker.due_in_s]
    for _ in range(5):
        stage.now_s += stage.breaker.due_in_s
        await stage.bad()
        waits.append(stage.breaker.due_in_s)
    assert waits == [30, 60, 120, 240, OPEN_MAX_S, OPEN_MAX_S]
    stage.now_s += stage.breaker.due_in_s
    await stage.good()
    await stage.good()
    stage.now_s += RAMP_S
    await stage.open()
    assert stage.breaker.due_in_s == pytest.approx(30)


async def test_failures_outside_the_window_are_forgotten() -> None:
    """The rate is that of the last minute."""
    stage = Stage()
    for _ in range(9):
        await stage.bad()
        await stage.good()
    stage.now_s += 61
    for _ in range(12):
        await stage.good()
        await stage.good()
        await stage.bad()
    assert stage.breaker.state == "closed"


async def test_a_peers_hint_makes_two_failures_enough_until_it_is_old() -> None:
    """It opens nothing by itself."""
    stage = Stage()
    stage.breaker.hint(60)
    await stage.good()
    await stage.bad()
    assert stage.breaker.state == "closed"
    await stage.bad()
    assert stage.breaker.state == "open"
    other = Stage()
    other.breaker.hint(60)
    other.now_s += 60
    for _ in range(4):
        await other.bad()
    assert other.breaker.state == "closed"


async def test_otp_s13_an_open_breaker_is_restored_after_a_restart() -> None:
    """It goes on being open for the rest of its time, and tells nobody again."""
    stage = Stage()
    stage.breaker.restore(open_s=20, cause="timeout: x", trips=2)
    with pytest.raises(OpenError, match="timeout: x"):
        await stage.good()
    assert stage.changes == []
    stage.now_s += 20
    await stage.bad()
    assert stage.breaker.due_in_s == pytest.approx(120)


async def test_after_closing_calls_climb_back() -> None:
    """A quarter more a second than before the trouble, for a minute; then as many as come."""
    stage = Stage()
    for _ in range(600):  # ten a second for a minute
        stage.now_s += 0.1
        await stage.good()
    await stage.half_open()
    await stage.good()
    await stage.good()
    made = 0
    for _ in range(1000):  # a hundred a second for ten
        stage.now_s += 0.01
        with contextlib.suppress(OpenError):
            await stage.good()
            made += 1
    assert 100 <= made <= 150
    stage.now_s += RAMP_S
    for _ in range(1000):
        await stage.good()


# --- what it costs ------------------------------------------------------------------------------------


async def test_a_closed_breaker_costs_20_microseconds_and_an_open_one_answers_in_5_ms() -> None:
    """The best of several rounds: other work on this machine is not the breaker's."""
    stage, count = Stage(), 2_000

    async def spent_s(call: Any) -> float:
        began_s = time.thread_time()
        for _ in range(count):
            await call()
        return time.thread_time() - began_s

    costs = []
    for _ in range(5):
        bare_s = await spent_s(_good)
        costs.append((await spent_s(stage.good) - bare_s) / count * 1e6)
    print(f"{min(costs):.1f} µs a call")
    assert min(costs) <= OVERHEAD_US_MAX
    await stage.open()

    async def refused() -> None:
        with pytest.raises(OpenError):
            await stage.good()

    assert min([await spent_s(refused) for _ in range(3)]) / count * 1e3 <= REFUSAL_MS_MAX
