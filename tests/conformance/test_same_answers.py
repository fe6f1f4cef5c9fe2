"""The in-memory broker and nats-server give the same answer to everything, error kinds included.

One random sequence of operations is run on both, and every reply is compared. Without this the simulator, which is
built on the in-memory broker, would prove nothing.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.simulation.faultless import connection_to, faultless_server

from headrace.contracts.errors import HeadraceError
from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Broker, Consumer, ConsumerSpec, Delivery, Expected, StreamSpec, Tail
from headrace.runtime.jetstream import connect
from headrace.runtime.memory import MemoryBroker, MemoryServer

SUBJECTS = st.sampled_from(["a.x", "a.y", "b.x", "b.y.z"])
FILTERS = st.sampled_from(["a.x", "a.>", "*.x", ">", "b.*", "b.*.z", "c.>"])
FILTER_LISTS = st.sampled_from([(), ("a.>",), ("a.x", "b.x"), ("*.x",), ("a.>", "b.>")])
KINDS = st.sampled_from(["log", "log", "log", "bucket", "blob", "full", "work"])
IDS = st.sampled_from(["", "", "1", "2"])
VERBS = st.sampled_from(["ack", "ack", "nak", "term"])
WAIT_S = 1.0
NOTHING_S = 0.02


def specs(base: str) -> list[StreamSpec]:
    """One stream of each kind; `base` makes the subjects of this example its own."""
    return [
        StreamSpec(f"{base}_log", (f"{base}.log.>",)),
        StreamSpec(f"{base}_bucket", (f"{base}.bucket.>",), max_msgs_per_subject=1, deny_delete=False),
        StreamSpec(f"{base}_blob", (f"{base}.blob.>",), max_msgs_per_subject=1, discard_new_per_subject=True),
        StreamSpec(f"{base}_full", (f"{base}.full.>",), max_bytes=700, discard_new=True),
        StreamSpec(f"{base}_work", (f"{base}.work.>",), retention="workqueue"),
    ]


@dataclass
class Side:
    """One of the two brokers and what is open there."""

    broker: Broker
    tail: Tail | None = None
    shares: dict[str, Consumer] = field(default_factory=dict)
    held: dict[str, list[Delivery]] = field(default_factory=lambda: {"log": [], "work": []})


class World:
    """Both brokers, for the whole test: starting a server for each example would take most of the time."""

    def __init__(self, directory: Path, *, simulated: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory, self.simulated = directory, simulated
        self.examples = 0

    async def open(self) -> None:
        """Start and connect."""
        clock = SystemClock()
        self.nats = NatsServer(self.directory, clock=clock)
        await self.nats.start()
        self.real = await connect(self.nats.url, name="same", clock=clock, deadline_s=5.0)
        if self.simulated:
            self.memory: MemoryBroker = connection_to(faultless_server(clock), clock)
        else:
            self.memory = MemoryBroker(MemoryServer(clock), clock)

    async def close(self) -> None:
        """Disconnect and stop."""
        await self.real.close()
        await self.memory.close()
        await self.nats.stop()


class SameAnswers(RuleBasedStateMachine):
    """Each rule is one operation on both brokers."""

    world: World

    @initialize()
    def open(self) -> None:
        self.world.examples += 1
        self.base = f"e{self.world.examples}"
        self.count = 0
        self.sides = (Side(self.world.memory), Side(self.world.real))

        async def prepare(side: Side) -> None:
            for spec in specs(self.base):
                await side.broker.ensure_stream(spec)
            for kind in ("log", "work"):
                stream = f"{self.base}_{kind}"
                filters = (f"{self.base}.{kind}.a.>",) if kind == "log" else (f"{self.base}.{kind}.>",)
                await side.broker.ensure_consumer(ConsumerSpec(stream, "Q", filters, max_ack_pending=3))
                side.shares[kind] = await side.broker.consume(stream, "Q", in_flight_max=5)

        self.both(prepare)

    @rule(kind=KINDS, subject=SUBJECTS, msg_id=IDS, size=st.sampled_from([0, 1, 200]))
    def append(self, kind: str, subject: str, msg_id: str, size: int) -> None:
        """Without expectation."""
        self.same(lambda side: side.broker.append(self.subject(kind, subject), b"x" * size, msg_id=msg_id))
        self.positions(kind)

    @rule(
        kind=KINDS, subject=SUBJECTS, msg_id=IDS, scope=FILTERS, right=st.booleans(), wrong=st.integers(0, 3),
        headers=st.sampled_from([None, {"H": "1"}]),
    )  # fmt: skip
    def append_expecting(
        self,
        kind: str,
        subject: str,
        msg_id: str,
        scope: str,
        right: bool,
        wrong: int,
        headers: dict[str, str] | None,
    ) -> None:
        """With the sequence that is there, or with some other."""
        stream, scope = f"{self.base}_{kind}", self.subject(kind, scope)

        async def act(side: Side) -> Any:
            last = await side.broker.last(stream, scope)
            seq = (last.seq if last else 0) if right else wrong
            return await side.broker.append(
                self.subject(kind, subject),
                b"y",
                msg_id=msg_id,
                expected=Expected(seq, scope),
                headers=headers,
            )

        self.same(act)
        self.positions(kind)

    @rule(kind=KINDS, scope=FILTERS)
    def last(self, kind: str, scope: str) -> None:
        """The newest match."""
        self.same(lambda side: side.broker.last(f"{self.base}_{kind}", self.subject(kind, scope)))

    @rule(kind=KINDS, seq=st.integers(0, 12))
    def get(self, kind: str, seq: int) -> None:
        """One message."""
        self.same(lambda side: side.broker.get(f"{self.base}_{kind}", seq))

    @rule(kind=KINDS, subject=SUBJECTS, expecting=st.booleans(), elsewhere=SUBJECTS)
    def append_again(self, kind: str, subject: str, expecting: bool, elsewhere: str) -> None:
        """What is sent twice because the acknowledgement was lost, and an id that is used for something else."""
        self.count += 1

        async def act(side: Side) -> Any:
            scope = self.subject(kind, subject)
            last = await side.broker.last(f"{self.base}_{kind}", scope)
            expected = Expected(last.seq if last else 0, scope) if expecting else None
            outcomes = []
            for again in (subject, subject, elsewhere):
                append = side.broker.append(self.subject(kind, again), b"z", msg_id=f"n{self.count}", expected=expected)
                outcomes.append(await answer(append))
            return outcomes

        self.same(act)
        self.positions(kind)

    @rule(kind=st.sampled_from(["log", "work"]), subjects=st.lists(SUBJECTS, min_size=3, max_size=6))
    def append_many(self, kind: str, subjects: list[str]) -> None:
        """In flight together; more than the queue gives out at a time."""

        async def act(side: Side) -> Any:
            futures = [await side.broker.publish(self.subject(kind, one), b"m") for one in subjects]
            return [await future for future in futures]

        self.same(act)

    @rule(kind=KINDS, filters=FILTER_LISTS, start_seq=st.integers(1, 8))
    def read(self, kind: str, filters: tuple[str, ...], start_seq: int) -> None:
        """Everything that matches."""
        wanted = [self.subject(kind, one) for one in filters]

        async def act(side: Side) -> Any:
            stream = f"{self.base}_{kind}"
            return [seen(one) async for one in side.broker.read(stream, wanted, start_seq=start_seq)]

        if kind != "work":
            self.same(act)

    @precondition(lambda self: self.sides[0].tail is None)
    @rule(kind=KINDS, filters=FILTER_LISTS, start_seq=st.integers(1, 8), newest=st.booleans())
    def begin_tail(self, kind: str, filters: tuple[str, ...], start_seq: int, newest: bool) -> None:
        """From a sequence, or from the newest of each subject."""
        wanted = [self.subject(kind, one) for one in filters]

        async def act(side: Side) -> Any:
            side.tail = await side.broker.tail(
                f"{self.base}_{kind}", wanted, start_seq=start_seq, last_per_subject=newest
            )

        self.same(act)

    @precondition(lambda self: self.sides[0].tail is not None)
    @rule()
    def follow_tail(self) -> None:
        """Everything until nothing comes any more."""

        async def act(side: Side) -> Any:
            assert side.tail is not None
            messages = []
            while not side.tail.caught_up:
                messages += await side.tail.batch(max_count=3, wait_s=WAIT_S)
            while batch := await side.tail.batch(max_count=3, wait_s=NOTHING_S):
                messages += batch
            return [seen(one) for one in messages]

        self.same(act)

    @precondition(lambda self: self.sides[0].tail is not None)
    @rule()
    def end_tail(self) -> None:
        """Then another may begin."""

        async def act(side: Side) -> Any:
            assert side.tail is not None
            await side.tail.stop()
            side.tail = None

        self.same(act)

    @rule(kind=st.sampled_from(["log", "work"]), verbs=st.lists(VERBS, max_size=4))
    def work(self, kind: str, verbs: list[str]) -> None:
        """Take all that the queue gives now, end the oldest that are held, one by one."""
        self.same(lambda side: self.take(side, kind))
        for verb in verbs:
            self.same(lambda side, verb=verb: self.end(side, kind, verb))  # type: ignore[misc]  # bound now
            self.same(lambda side: self.settled(side, kind))
        self.same(lambda side: self.take(side, kind))

    async def take(self, side: Side, kind: str) -> Any:
        """What came, with the count of deliveries."""
        taken: list[Delivery] = []
        while batch := await side.shares[kind].batch(max_count=5, wait_s=NOTHING_S):
            taken += batch
        side.held[kind] += taken
        side.held[kind].sort(key=lambda one: one.stored.seq)
        return sorted((seen(one.stored), one.deliveries) for one in taken)

    async def end(self, side: Side, kind: str, verb: str) -> Any:
        """Which one it was."""
        if not side.held[kind]:
            return None
        delivery = side.held[kind].pop(0)
        await (delivery.term("why") if verb == "term" else delivery.nak() if verb == "nak" else delivery.ack())
        return delivery.stored.seq

    def teardown(self) -> None:
        if not hasattr(self, "sides"):
            return

        async def act(side: Side) -> None:
            for share in side.shares.values():
                await share.stop()
            if side.tail is not None:
                await side.tail.stop()

        self.both(act)
        for spec in specs(self.base):
            self.world.loop.run_until_complete(self.world.real._link.api(f"STREAM.DELETE.{spec.name}"))

    def positions(self, kind: str) -> None:
        """First and last are equal."""
        self.same(lambda side: side.broker.position(f"{self.base}_{kind}"))

    async def settled(self, side: Side, kind: str) -> Any:
        """The queue's state, once the broker has dealt with what was told it."""
        stream, before = f"{self.base}_{kind}", None
        for _ in range(200):
            state = (await side.broker.consumer_state(stream, "Q"), await side.broker.position(stream))
            inside = len(side.shares[kind]._buffer)  # type: ignore[attr-defined]  # fetched and not handed out
            if state[0].ack_pending == len(side.held[kind]) + inside and state == before:
                break
            before = state
            await asyncio.sleep(0.003)
        queue, position = state
        return (queue.delivered_seq, queue.pending, queue.ack_pending, position)

    def subject(self, kind: str, rest: str) -> str:
        """Of a stream of this example."""
        return f"{self.base}.{kind}.{rest}"

    def both(self, act: Callable[[Side], Coroutine[Any, Any, None]]) -> None:
        """Run on both, one after the other."""
        for side in self.sides:
            self.world.loop.run_until_complete(act(side))

    def same(self, act: Callable[[Side], Awaitable[Any]]) -> None:
        """Run on both and compare what comes back or is raised."""

        memory, real = (self.world.loop.run_until_complete(answer(act(side))) for side in self.sides)
        assert memory == real, f"memory: {memory}\n  real: {real}"


async def answer(asking: Awaitable[Any]) -> Any:
    """What comes back, or the name of what is raised."""
    try:
        return seen(await asking)
    except HeadraceError as error:
        return type(error).__name__


def seen(result: Any) -> Any:
    """What must be equal: everything but the time."""
    if hasattr(result, "headers"):
        return (result.stream, result.seq, result.subject, result.body, tuple(sorted(result.headers.items())))
    return result


def _run(examples: int, steps: int, *phases: Phase, simulated: bool = False) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), simulated=simulated)
        SameAnswers.world = world
        world.loop.run_until_complete(world.open())
        try:
            run_state_machine_as_test(
                SameAnswers,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    database=None,
                    phases=(Phase.generate, *phases),
                ),
            )
        finally:
            world.loop.run_until_complete(world.close())
            world.loop.close()


def test_memory_and_nats_server_answer_alike() -> None:
    """Appends with ids and expectations, looks, reads, tails, work queues; every reply is compared.

    A failure is not shrunk here, which would take minutes: the slow twin does that.
    """
    _run(25, 25)


def test_the_simulated_broker_and_nats_server_answer_alike() -> None:
    """Without faults the simulator's broker is the real one: otherwise the simulator proves nothing."""
    _run(25, 25, simulated=True)


@pytest.mark.slow
def test_memory_and_nats_server_answer_alike_at_length() -> None:
    """The same, longer."""
    _run(400, 50, Phase.shrink)
