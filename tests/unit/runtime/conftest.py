"""A broker in memory with all streams, and a supervisor."""

from collections.abc import AsyncIterator

import pytest

from headrace.runtime.clock import SystemClock
from headrace.runtime.memory import MemoryBroker, MemoryServer
from headrace.runtime.streams import stream_specs
from headrace.runtime.supervisor import Supervisor


@pytest.fixture
async def memory() -> AsyncIterator[MemoryBroker]:
    """A connection to a broker in memory."""
    clock = SystemClock()
    broker = MemoryBroker(MemoryServer(clock), clock)
    for spec in stream_specs():
        await broker.ensure_stream(spec)
    yield broker
    await broker.close()


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """A running supervisor."""
    async with Supervisor(SystemClock()) as running:
        yield running
