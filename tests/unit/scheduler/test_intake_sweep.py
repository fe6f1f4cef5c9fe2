"""Commands that a work queue skipped are found in its stream, and only then is the queue made afresh."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.simulation.host import SimClock
from tests.simulation.loop import SimLoop

from headrace.contracts import subjects
from headrace.runtime.eventlog import Delivery
from headrace.runtime.memory import MemoryBroker, MemoryServer
from headrace.runtime.streams import consumer_specs, stream_specs
from headrace_scheduler.intake_sweep import LOOK_EVERY_S, IntakeSweep

QUEUE = (subjects.COMMANDS, subjects.INTAKE_CONSUMER)
Harm = Callable[[MemoryServer], None]


async def delivered_after(harm: Harm, *, looks: int, acknowledge: bool = False) -> tuple[int, int]:
    """(commands delivered after the harm, times that the queue was made afresh) when the sweep has looked so often."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    clock = SimClock(loop)
    server = MemoryServer(clock)
    for spec in stream_specs():
        server.ensure_stream(spec)
    for consumer_spec in consumer_specs({}):
        server.ensure_consumer(consumer_spec)
    broker = MemoryBroker(server, clock)
    await broker.append(subjects.command("default", "run-start"), b"{}", msg_id="one")
    if acknowledge:
        consumer = await broker.consume(*QUEUE, in_flight_max=1)
        for delivery in await consumer.batch(max_count=1, wait_s=1):
            await delivery.ack()
        await consumer.stop()
    harm(server)
    sweep = IntakeSweep(broker, subjects.INTAKE_CONSUMER, clock=clock, may_act=lambda: True)
    sweeping = loop.create_task(sweep.run())
    await clock.sleep(looks * LOOK_EVERY_S + 1)
    sweeping.cancel()
    found: list[Delivery] = []
    if QUEUE in server.queues:
        consumer = await broker.consume(*QUEUE, in_flight_max=10)
        found = await consumer.batch(max_count=10, wait_s=1)
    return len(found), sweep.made_afresh


def in_virtual_time(work: Awaitable[tuple[int, int]]) -> tuple[int, int]:
    """Run it on a loop of its own, on which an hour takes no time."""
    loop = SimLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def skip(server: MemoryServer) -> None:
    """The durable believes that everything was done."""
    server.queues[QUEUE].amnesia(server.streams[subjects.COMMANDS].last_seq + 1)


def test_a_skipped_command_is_delivered_after_two_looks() -> None:
    """Within a minute of being lost."""
    assert in_virtual_time(delivered_after(skip, looks=2)) == (1, 1)


def test_one_look_is_not_enough() -> None:
    """The acknowledgement may be under way."""
    assert in_virtual_time(delivered_after(skip, looks=1)) == (0, 0)


def test_a_removed_queue_is_made_again() -> None:
    """And delivers what the stream holds."""
    assert in_virtual_time(delivered_after(lambda server: server.delete_consumer(*QUEUE), looks=2)) == (1, 1)


def test_a_queue_with_nothing_lost_stays_as_it_is() -> None:
    """Neither when a command waits to be delivered nor when all are done."""
    assert in_virtual_time(delivered_after(lambda server: None, looks=4)) == (1, 0)
    assert in_virtual_time(delivered_after(lambda server: None, looks=4, acknowledge=True)) == (0, 0)
