"""The streams these services need, and services started in this process as the harness does it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from headrace.contracts import subjects
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.eventlog import Broker, StreamSpec
from headrace.runtime.harness import Hosted, Service
from headrace.runtime.supervisor import Supervisor

Start = Callable[..., Awaitable[Hosted]]

STREAMS = (
    StreamSpec(name=subjects.TOOLS, subjects=("hr.tool.>",)),
    StreamSpec(name=subjects.SESSIONS, subjects=("hr.ses.>",)),
    StreamSpec(name=subjects.SYSTEM, subjects=("hr.sys.>",)),
    StreamSpec(name="HR_RUNS_0", subjects=("hr.evt.>",)),
    StreamSpec(name=subjects.LEASES, subjects=("$KV.hr-leases.>",), max_msgs_per_subject=1, deny_delete=False),
)


@pytest.fixture
async def streams(broker: Broker) -> Broker:
    """A connection to a server on which the streams exist."""
    for spec in STREAMS:
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
