"""The simulated broker with no faults on an ordinary event loop: what the conformance suite holds to the real one."""

import asyncio
import contextvars
from dataclasses import dataclass

from headrace.runtime.clock import Clock
from tests.simulation.broker import SimBroker, SimServer
from tests.simulation.faults import listed
from tests.simulation.loop import Process


@dataclass(slots=True)
class _Client:
    """A place that nothing happens to."""

    clock: Clock
    name: str = "client"
    starts: int = 1
    process: Process | None = None

    def crash(self, *, restart_s: float) -> None:
        raise AssertionError(restart_s)

    def freeze(self, seconds: float) -> None:
        raise AssertionError(seconds)


def faultless_server(clock: Clock) -> SimServer:
    """A server on the running loop. Every hop takes up to half a millisecond."""
    return SimServer(asyncio.get_running_loop(), clock, listed({}), seed=0, latency_s=(0.0, 0.0005))


def connection_to(server: SimServer, clock: Clock) -> SimBroker:
    """A connection to it."""
    return server.connection(_Client(clock), contextvars.copy_context())
