"""The connection outlives what its callers give up."""

import asyncio

from tests.conftest import Connect

from headrace.contracts import names, subjects
from headrace.local.nats_server import NatsServer
from headrace.runtime.eventlog import BusMessage, StreamSpec
from headrace.runtime.jetstream import JetStreamBroker


async def test_a_subscription_given_up_half_way_leaves_the_connection_hearing(broker: JetStreamBroker) -> None:
    """A service is stopped while it subscribes: the answer that nobody awaits any more must harm nobody else."""

    async def hear(_: BusMessage) -> None:
        return

    for steps in range(1, 8):
        task = asyncio.get_running_loop().create_task(broker.subscribe("hr.live.presence.x", hear))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,), timeout=1)

    async with asyncio.timeout(2):
        await broker.ensure_stream(StreamSpec(subjects.TOOLS, ("hr.tool.>",)))


async def test_what_is_asked_after_a_subscription_is_heard(connect_broker: Connect) -> None:
    """`subscribe` returns when the server knows: another connection's request finds the listener."""
    here, there = await connect_broker("here"), await connect_broker("there")

    async def answer(message: BusMessage) -> None:
        await message.respond(b"yes")

    for index in range(50):
        await here.subscribe(f"hr.api.x.verb{index}", answer, queue="x")
        assert await there.request(f"hr.api.x.verb{index}", b"", timeout_s=1) == b"yes"


async def test_otp_s8_closing_does_not_wait_for_a_frozen_broker(
    nats_server: NatsServer, connect_broker: Connect
) -> None:
    """Megabytes that it does not read are in the way: the connection is given up at its deadline."""
    broker = await connect_broker("closing")
    nats_server.pause()
    try:
        for _ in range(60):
            await broker.send("hr.live.r.a", bytes(100_000))
        async with asyncio.timeout(3 * names.REQUEST_DEADLINE_S):
            await broker.close()
        assert not broker.connected
    finally:
        nats_server.resume()
