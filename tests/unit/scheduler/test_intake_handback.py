"""Commands in the hands of a dead scheduler come again within seconds, and not while somebody alive works on them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from tests.simulation.host import SimClock
from tests.simulation.loop import SimLoop

from headrace.contracts import names, subjects
from headrace.runtime.eventlog import Delivery
from headrace.runtime.memory import MemoryBroker, MemoryServer
from headrace.runtime.streams import consumer_specs, stream_specs
from headrace_scheduler.intake_handback import LOOK_EVERY_S, LOOK_FOR_S, STANDS_S, IntakeHandBack

T = TypeVar("T")
QUEUES = {
    "command": (subjects.COMMANDS, subjects.INTAKE_CONSUMER, subjects.command("default", "run-start")),
    "trigger": (subjects.TRIGGERS, subjects.TRIGGER_CONSUMER, "hr.trig.default.came"),
}


@dataclass(slots=True)
class Stage:
    """A broker with both queues, and a hand-back that believes what it is told."""

    clock: SimClock
    server: MemoryServer
    members: tuple[str, ...] = ("dead", "living")
    may_act: bool = True
    handback: IntakeHandBack = field(init=False)

    def __post_init__(self) -> None:
        for stream in stream_specs():
            self.server.ensure_stream(stream)
        for durable in consumer_specs({}):
            self.server.ensure_consumer(durable)
        self.handback = IntakeHandBack(
            self.broker(), clock=self.clock, members=lambda: self.members, may_act=lambda: self.may_act
        )

    def broker(self) -> MemoryBroker:
        return MemoryBroker(self.server, self.clock)

    async def taken(self, queue: str, count: int) -> list[Delivery]:
        """So many messages, delivered to one who says nothing more."""
        stream, durable, subject = QUEUES[queue]
        broker = self.broker()
        for number in range(count):
            await broker.append(subject, b"{}", msg_id=str(number))
        consumer = await broker.consume(stream, durable, in_flight_max=count)
        found = await consumer.batch(max_count=count, wait_s=1)
        assert len(found) == count
        await consumer.stop_fetching()
        return found

    async def delivered(self, queue: str, *, within_s: float) -> int:
        """How many somebody alive gets within this time."""
        stream, durable, _ = QUEUES[queue]
        consumer = await self.broker().consume(stream, durable, in_flight_max=100)
        until_s, found = self.clock.monotonic_s() + within_s, 0
        while (left_s := until_s - self.clock.monotonic_s()) > 0:
            for delivery in await consumer.batch(max_count=100, wait_s=left_s):
                await delivery.ack()
                found += 1
        await consumer.stop_fetching()
        return found


def in_virtual_time(story: Callable[[Stage], Awaitable[T]]) -> T:
    """Tell it on a loop of its own, on which an hour takes no time, with the hand-back running."""
    loop = SimLoop()

    async def told() -> T:
        clock = SimClock(loop)
        stage = Stage(clock, MemoryServer(clock))
        looking = loop.create_task(stage.handback.run())
        try:
            return await story(stage)
        finally:
            looking.cancel()
            await asyncio.wait((looking,))

    try:
        return loop.run_until_complete(told())
    finally:
        loop.close()


@pytest.mark.parametrize("queue", QUEUES)
def test_what_a_dead_scheduler_had_in_hand_is_delivered_again_within_seconds(queue: str) -> None:
    """Long before ack_wait."""

    async def story(stage: Stage) -> tuple[int, int]:
        await stage.clock.sleep(LOOK_FOR_S + 1)  # the members have long been the same
        await stage.taken(queue, 3)
        while_it_lives = await stage.delivered(queue, within_s=5)
        stage.members = ("living",)
        return while_it_lives, await stage.delivered(queue, within_s=STANDS_S + 3 * LOOK_EVERY_S)

    assert in_virtual_time(story) == (0, 3)


def test_nothing_is_delivered_again_while_somebody_works_its_way_through() -> None:
    """The floor moves, though slowly: one acknowledgement in three quarters of the patience."""

    async def story(stage: Stage) -> int:
        found = await stage.taken("command", 10)
        stage.members = ("living",)
        for delivery in found:
            await stage.clock.sleep(STANDS_S * 0.75)
            await delivery.ack()
        return stage.handback.redelivered

    assert in_virtual_time(story) == 0


def test_a_holder_that_is_slow_is_not_given_everything_again_and_again() -> None:
    """Five times in 40 s at most: 1, 2, 4, 8 and 16 s apart."""

    async def story(stage: Stage) -> int:
        stream, durable, subject = QUEUES["command"]
        consumer = await stage.broker().consume(stream, durable, in_flight_max=100)
        await stage.broker().append(subject, b"{}", msg_id="slow")
        stage.members = ("living",)
        until_s = stage.clock.monotonic_s() + 2 * LOOK_FOR_S
        while stage.clock.monotonic_s() < until_s:
            await consumer.batch(max_count=100, wait_s=1)  # and never ends any
        return stage.handback.redelivered

    assert in_virtual_time(story) == 5


def test_one_scheduler_acts_for_all() -> None:
    """Whoever does not own the first partition only looks on; whoever comes to own it looks at what there is."""

    async def story(stage: Stage) -> tuple[int, int]:
        stage.may_act = False
        await stage.taken("command", 2)
        stage.members = ("living",)
        before = await stage.delivered("command", within_s=names.ACK_WAIT_S / 3)
        stage.may_act = True
        return before, await stage.delivered("command", within_s=STANDS_S + 3 * LOOK_EVERY_S)

    assert in_virtual_time(story) == (0, 2)
