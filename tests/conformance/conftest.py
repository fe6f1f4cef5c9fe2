"""The brokers that the suite is run against. Another implementation joins by one more parameter of `backend`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.simulation.faultless import connection_to, faultless_server

from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Broker
from headrace.runtime.jetstream import connect
from headrace.runtime.memory import MemoryBroker, MemoryServer

ConnectAny = Callable[[], Awaitable[Broker]]


@pytest.fixture(params=["memory", "jetstream", "simulated"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConnectAny]:
    """`await backend()` gives another connection to one empty broker."""
    clock = SystemClock()
    opened: list[Broker] = []
    nats = NatsServer(tmp_path / "nats", clock=clock) if request.param == "jetstream" else None
    memory = MemoryServer(clock)
    simulated = faultless_server(clock) if request.param == "simulated" else None
    if nats is not None:
        await nats.start()

    async def open_one() -> Broker:
        broker: Broker
        if nats is not None:
            broker = await connect(nats.url, name="conformance", clock=clock, deadline_s=5.0)
        elif simulated is not None:
            broker = connection_to(simulated, clock)
        else:
            broker = MemoryBroker(memory, clock)
        opened.append(broker)
        return broker

    yield open_one
    for broker in opened:
        await broker.close()
    if nats is not None:
        await nats.stop()


@pytest.fixture
async def broker(backend: ConnectAny) -> Broker:
    """One connection."""
    return await backend()
