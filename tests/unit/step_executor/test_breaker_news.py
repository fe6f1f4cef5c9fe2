"""Transitions of breakers travel as events; replicas take them for hints, and only a new one for its own state."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.conftest import until

from headrace.contracts import codec, subjects
from headrace.contracts.events import BreakerClosed, BreakerOpened
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SeededEntropy
from headrace.runtime.memory import MemoryBroker, MemoryServer
from headrace.runtime.streams import migrate
from headrace_step_executor.breaker_news import BreakerNews
from headrace_step_executor.breakers import AsyncBreaker, OpenError
from headrace_step_executor.guards import Guards, Target
from headrace_step_executor.providers.registry import Providers

TARGET = Target("one", "", "m")


@asynccontextmanager
async def replica(server: MemoryServer, name: str) -> AsyncIterator[tuple[AsyncBreaker, MemoryBroker]]:
    """The breaker of a process that tells and hears."""
    clock = SystemClock()
    broker = MemoryBroker(server, clock)
    guards = Guards(Providers(clock, environ={}, read_roots=()), clock, SeededEntropy(1), places=4)
    news = BreakerNews(broker, guards, clock, instance=name, tenant="default")
    tasks = [asyncio.create_task(news.hear()), asyncio.create_task(news.tell())]
    await until(lambda: news.caught_up)
    try:
        yield guards.breaker(TARGET), broker
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await broker.close()


async def _bad() -> None:
    raise ZeroDivisionError


async def _good() -> None:
    pass


async def fail(breaker: AsyncBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(ZeroDivisionError):
            await breaker.call(_bad, counts=lambda _error: True)


async def test_otp_s13_a_peer_hears_a_hint_and_a_new_replica_takes_over_what_is_open() -> None:
    """The peer stays closed until it fails twice itself; the process that starts later asks nobody before its time."""
    clock = SystemClock()
    server = MemoryServer(clock)
    maker = MemoryBroker(server, clock)
    await migrate(maker)
    async with replica(server, "a") as (first, broker), replica(server, "b") as (second, _):
        await fail(first, 5)
        await until(lambda: second.hinted)
        assert second.state == "closed"
        stored = await broker.last(subjects.SYSTEM, subjects.BREAKERS_ALL)
        assert stored is not None
        assert stored.subject == f"hr.sys.breaker.{TARGET.name}"
        message = codec.decode(stored.body)
        assert isinstance(message, BreakerOpened)
        assert (message.data.instance, message.data.provider, message.data.trips) == ("a", "one", 1)
        assert message.data.cause == "ZeroDivisionError: "
        async with replica(server, "c") as (third, _):
            with pytest.raises(OpenError):
                await third.call(_good, counts=lambda _error: True)
            assert 0 < third.due_in_s <= 36
        await fail(second, 2)
        assert second.state == "open"
    await maker.close()


async def test_a_close_ends_the_hint() -> None:
    """What was trouble there is none any more."""
    clock = SystemClock()
    server = MemoryServer(clock)
    maker = MemoryBroker(server, clock)
    await migrate(maker)
    async with replica(server, "a") as (first, broker), replica(server, "b") as (second, _):
        first.restore(open_s=0.0, cause="x", trips=1)
        second.hint(60)
        for _ in range(2):
            await first.call(_good, counts=lambda _error: True)
        await until(lambda: not second.hinted)
        stored = await broker.last(subjects.SYSTEM, subjects.BREAKERS_ALL)
        assert stored is not None
        assert isinstance(codec.decode(stored.body), BreakerClosed)
    await maker.close()
