"""Fixtures of real parts: a nats-server of each test's own, and connections to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import SystemClock
from headrace.runtime.jetstream import JetStreamBroker, connect

Connect = Callable[..., Awaitable[JetStreamBroker]]


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A running nats-server with an empty store: `url`, `start`, `stop`, `kill`, `pause`, `resume`."""
    server = NatsServer(tmp_path / "nats", clock=SystemClock())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def connect_broker(nats_server: NatsServer) -> AsyncIterator[Connect]:
    """`await connect_broker("name")` gives a connection of its own; all are closed after the test."""
    opened: list[JetStreamBroker] = []

    async def open_one(name: str = "test", *, deadline_s: float = 5.0) -> JetStreamBroker:
        broker = await connect(nats_server.url, name=name, clock=SystemClock(), deadline_s=deadline_s)
        opened.append(broker)
        return broker

    yield open_one
    for broker in opened:
        await broker.close()


@pytest.fixture
async def broker(connect_broker: Connect) -> JetStreamBroker:
    """One connection to the test's nats-server."""
    return await connect_broker("test")


async def until(condition: Callable[[], object], *, within_s: float = 5.0, what: str = "") -> None:
    """Return when `condition()` is true; fail with its last value after `within_s`. Coroutines are awaited."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return
        if loop.time() > deadline_s:
            pytest.fail(f"{what or condition} still {value!r} after {within_s} s")
        await asyncio.sleep(0.01)
