"""The streams these services need, and services started in this process as the harness does it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from headrace.contracts import subjects
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.eventlog import Broker
from headrace.runtime.harness import Hosted, Service
from headrace.runtime.streams import stream_specs
from headrace.runtime.supervisor import Supervisor

Start = Callable[..., Awaitable[Hosted]]

NEEDED = (subjects.TOOLS, subjects.SESSIONS, subjects.SYSTEM, *subjects.runs_streams())


@pytest.fixture
async def streams(broker: Broker) -> Broker:
    """A connection to a server on which the streams exist."""
    for spec in stream_specs():
        if spec.name in NEEDED:
            await broker.ensure_stream(spec)
    return broker


@pytest.fixture
async def start(streams: Broker) -> AsyncIterator[Start]:
    """`await start(ToolRegistry, broker, config=…)` gives a ready service in its life cycle; all are shut
    down."""
    async with AsyncExitStack() as stack:

        async def one(kind: Callable[..., Service], broker: Broker | None = None, **more: Any) -> Hosted:
            clock, entropy = SystemClock(), SystemEntropy()
            supervisor = await stack.enter_async_context(Supervisor(clock))
            used = broker or streams
            service = kind(used, supervisor, clock=clock, entropy=entropy, instance=f"t-{entropy.bits(32):x}", **more)
            hosted = Hosted(service, supervisor=supervisor, broker=used, clock=clock, drain_s=2.0)
            stack.push_async_callback(hosted.shut_down)
            await hosted.start()
            await hosted.wait_until_ready(within_s=10)
            return hosted

        yield one
