"""Quotas and places: nobody calls sooner than the provider asked, and never more at a time than configured."""

import asyncio

import pytest
from tests.conftest import until

from headrace_step_executor.limits import Bulkhead, ExhaustedError, Limiter, given_back
from headrace_step_executor.providers.messages import Quota


class Now:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def test_a_429_pauses_the_key_until_retry_after() -> None:
    """Not a millisecond sooner; a shorter pause never shortens a longer one; silence counts as a second."""
    now = Now()
    limiter = Limiter(now)
    limiter.take(tokens=10)
    limiter.pause(20_000)
    limiter.pause(1_000)
    with pytest.raises(ExhaustedError) as refused:
        limiter.take(tokens=10)
    assert (refused.value.reason, refused.value.after_s) == ("rate_limited", 20.0)
    now.s += 19.999
    with pytest.raises(ExhaustedError):
        limiter.take(tokens=10)
    now.s += 0.002
    limiter.take(tokens=10)
    limiter.pause(0)
    with pytest.raises(ExhaustedError):
        limiter.take(tokens=10)


def test_what_headers_say_is_left_is_counted_down() -> None:
    """Requests and tokens; at the reset they are whole again; where nothing is said there is no limit."""
    now = Now()
    limiter = Limiter(now)
    for _ in range(1_000):
        limiter.take(tokens=1_000_000)
    limiter.hear(Quota(requests_left=2, requests_reset_ms=5_000))
    limiter.take(tokens=1)
    limiter.take(tokens=1)
    with pytest.raises(ExhaustedError, match="no requests are left") as refused:
        limiter.take(tokens=1)
    assert refused.value.after_s == pytest.approx(5)
    now.s += 5
    limiter.hear(Quota(tokens_left=100, tokens_reset_ms=7_000))
    limiter.take(tokens=150)
    with pytest.raises(ExhaustedError, match="no tokens are left"):
        limiter.take(tokens=1)
    now.s += 7
    limiter.take(tokens=1)
    limiter.hear(None)


async def test_otp_s13_never_more_calls_in_flight_than_places() -> None:
    """First come, first served; whoever is cancelled while waiting takes no place with him."""
    bulkhead, most, now, order = Bulkhead("b", 3), 0, 0, list[int]()

    async def work(number: int) -> None:
        nonlocal most, now
        await bulkhead.enter(5)
        with given_back(bulkhead):
            order.append(number)
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    tasks = [asyncio.create_task(work(number)) for number in range(9)]
    await asyncio.sleep(0)
    tasks[7].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (most, bulkhead.in_flight) == (3, 0)
    assert order == [0, 1, 2, 3, 4, 5, 6, 8]


async def test_who_finds_the_queue_full_or_waits_too_long_is_refused() -> None:
    """Twice the places may wait; the refusal says how it stands."""
    bulkhead = Bulkhead("b", 1)
    await bulkhead.enter(5)
    waiting = [asyncio.create_task(bulkhead.enter(5)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ExhaustedError, match="b: 1 calls are in flight, 2 calls wait"):
        await bulkhead.enter(5)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    with pytest.raises(ExhaustedError, match="no place came free") as refused:
        await bulkhead.enter(0.01)
    assert refused.value.reason == "bulkhead_full"
    bulkhead.leave()
    await bulkhead.enter(5)
    bulkhead.leave()
    assert bulkhead.in_flight == 0


async def test_a_hint_halves_the_places() -> None:
    """Calls in flight already go on."""
    bulkhead = Bulkhead("b", 4)
    for _ in range(4):
        await bulkhead.enter(5)
    bulkhead.narrow = True
    task = asyncio.create_task(bulkhead.enter(5))
    await asyncio.sleep(0)
    bulkhead.leave()
    bulkhead.leave()
    assert bulkhead.in_flight == 2
    bulkhead.leave()
    await until(task.done)
    assert bulkhead.in_flight == 2
