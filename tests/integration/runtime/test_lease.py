"""Partition leases over a real nats-server, one connection a member."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.conftest import Connect, until

from headrace.contracts import names, subjects
from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SeededEntropy
from headrace.runtime.eventlog import Broker, Stored
from headrace.runtime.lease import Leases, rendezvous
from headrace.runtime.memory import MemoryBroker, MemoryServer
from headrace.runtime.streams import stream_specs
from headrace.runtime.supervisor import Supervisor

ALL = frozenset(range(names.PARTITIONS))


class Seat:
    """A member: its leases, what its callbacks were told, and the task that a kill cancels."""

    def __init__(self, leases: Leases, held: set[int], calls: list[tuple[str, int]]) -> None:
        self.leases, self.held, self.calls = leases, held, calls
        self.task: asyncio.Task[None] | None = None

    @property
    def owned(self) -> frozenset[int]:
        return self.leases.owned

    async def kill(self) -> None:
        """Stop renewing and deciding at this instant, without a word."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait((self.task,), timeout=5)


Join = Callable[..., Awaitable[Seat]]


@asynccontextmanager
async def table(connect: Callable[[str], Awaitable[Broker]]) -> AsyncIterator[Join]:
    """Members that meet on one broker, each with a connection of its own."""
    broker = await connect("admin")
    for spec in stream_specs():
        if spec.name == subjects.LEASES:
            await broker.ensure_stream(spec)
    async with Supervisor(SystemClock()) as supervisor:

        async def one(instance: str, *, lost_takes_s: float = 0.0) -> Seat:
            held: set[int] = set()
            calls: list[tuple[str, int]] = []

            async def on_gained(part: int) -> None:
                calls.append(("gained", part))
                held.add(part)

            async def on_lost(part: int) -> None:
                await asyncio.sleep(lost_takes_s)
                calls.append(("lost", part))
                held.discard(part)

            leases = Leases(
                await connect(instance),
                instance=instance,
                clock=SystemClock(),
                entropy=SeededEntropy(1),
                on_gained=on_gained,
                on_lost=on_lost,
            )
            seat = Seat(leases, held, calls)
            seat.task = supervisor.spawn(leases.run(), f"lease.{instance}")
            return seat

        yield one
        assert not supervisor.crashes, supervisor.crashes


@pytest.fixture
async def join(connect_broker: Connect) -> AsyncIterator[Join]:
    """`await join("a")` gives a member over a real nats-server."""
    async with table(connect_broker) as one:
        yield one


@pytest.fixture(params=["jetstream", "memory"])
async def join_any(request: pytest.FixtureRequest, connect_broker: Connect) -> AsyncIterator[Join]:
    """The same over either broker."""
    server, clock = MemoryServer(SystemClock()), SystemClock()

    async def in_memory(_: str) -> Broker:
        return MemoryBroker(server, clock)

    async with table(connect_broker if request.param == "jetstream" else in_memory) as one:
        yield one


def dealt(*seats: Seat) -> bool:
    """Every partition has exactly one owner, who is the one that hashing names."""
    live = [seat.leases.instance for seat in seats]
    return all(
        seat.owned == {part for part in ALL if rendezvous(live, part) == seat.leases.instance} == seat.held
        for seat in seats
    )


async def test_members_share_all_partitions_and_no_two_own_one(join_any: Join) -> None:
    """Disjoint in the steady state, and a newcomer gets its share without anybody waiting for a time-out."""
    first = await join_any("a")
    await until(lambda: dealt(first), within_s=2)
    second, third = await join_any("b"), await join_any("c")

    await until(lambda: dealt(first, second, third), within_s=2)

    assert first.leases.members == ("a", "b", "c")
    await until(lambda: first.leases.unclaimed == frozenset(), within_s=2)


async def test_an_old_owner_lets_go_before_the_new_one_begins(join_any: Join) -> None:
    """`on_lost` has returned before the partition is anybody else's; until then it is nobody's."""
    first = await join_any("a", lost_takes_s=0.3)
    await until(lambda: dealt(first), within_s=2)
    second = await join_any("b")

    overlaps: list[frozenset[int]] = []
    async with asyncio.timeout(5):
        while not dealt(first, second):
            overlaps.append(frozenset(first.held & second.held))
            assert not first.owned & second.owned
            await asyncio.sleep(0.005)

    assert not frozenset().union(*overlaps)


async def test_otp_s10_a_dead_members_partitions_are_taken_over_in_time(join_any: Join) -> None:
    """kill -9 of an owner: everything has a new one well within five seconds."""
    first, second = await join_any("a"), await join_any("b")
    await until(lambda: dealt(first, second), within_s=3)

    await second.kill()

    await until(lambda: dealt(first), within_s=3.5)
    assert first.leases.members == ("a",)


async def test_a_clean_stop_hands_over_at_once(join_any: Join) -> None:
    """A rolling update moves partitions without waiting for silence."""
    first, second = await join_any("a"), await join_any("b")
    await until(lambda: dealt(first, second), within_s=3)

    began_s = asyncio.get_running_loop().time()
    await second.leases.stop()
    await until(lambda: dealt(first), within_s=3)

    assert asyncio.get_running_loop().time() - began_s < names.LEASE_SILENT_S
    assert second.held == set()
    assert not second.leases.may_decide()
    assert second.task is not None
    await asyncio.wait_for(second.task, 2)


async def test_a_member_that_cannot_renew_owns_nothing_before_others_take_over(
    join: Join, nats_server: NatsServer
) -> None:
    """The owner stops first: with the broker away nobody decides, and nobody is suspected when it is back.

    What nobody else has claimed stays in hand meanwhile: to let go of it would be to read it all again, by a process
    that could not renew because it has too much to do.
    """
    first, second = await join("a"), await join("b")
    await until(lambda: dealt(first, second), within_s=3)
    before = {seat.leases.instance: len(seat.calls) for seat in (first, second)}

    nats_server.pause()
    await until(lambda: not first.owned and not second.owned, within_s=3)
    await asyncio.sleep(3)  # longer than any silence that makes a member suspect
    nobody_decides = not first.leases.may_decide(min(first.held)) and not second.leases.may_decide(min(second.held))
    nats_server.resume()

    await until(lambda: dealt(first, second), within_s=5)
    assert nobody_decides
    for seat in (first, second):
        assert seat.calls[before[seat.leases.instance] :] == []


async def test_a_claim_that_was_answered_late_is_not_taken_for_the_newest(join: Join) -> None:
    """What the tail has shown since stands, so that the partition can be claimed when its new owner dies."""
    first = await join("a")
    await until(lambda: dealt(first), within_s=3)
    append, answer = first.leases._broker.append, asyncio.Event()

    async def answered_late(subject: str, *args: object, **more: object) -> object:
        done = await append(subject, *args, **more)  # type: ignore[arg-type]  # passed through as it came
        if "claim" in subject:
            await answer.wait()
        return done

    first.leases._broker.append = answered_late  # type: ignore[method-assign,assignment]  # a slow way back
    second = await join("b")
    theirs = {part for part in ALL if rendezvous(("a", "b"), part) == "b"}
    await until(lambda: second.held == theirs, within_s=0.9)  # less than a lease's write may take
    answer.set()
    await until(lambda: dealt(first, second), within_s=3)

    await second.kill()

    await until(lambda: first.owned == ALL == first.held, within_s=5)


async def test_a_claim_that_the_tail_skipped_is_found_when_another_fails_because_of_it(join: Join) -> None:
    """Consumers have been seen to skip: who loses against a claim that it never saw reads what stands there."""
    first = await join("a")
    await until(lambda: dealt(first), within_s=3)
    see = first.leases._see

    def skip(stored: Stored) -> None:
        if ".claim." not in stored.subject:
            see(stored)

    first.leases._see = skip  # type: ignore[method-assign]  # a consumer that skips claims
    second = await join("b")
    await until(lambda: dealt(first, second), within_s=3)
    first.leases._see = see  # type: ignore[method-assign]

    await second.kill()

    await until(lambda: first.owned == ALL == first.held, within_s=5)


async def test_a_restarted_broker_costs_no_partition(join: Join, nats_server: NatsServer) -> None:
    """After kill -9 of the broker the members find each other again and own what they owned."""
    first, second = await join("a"), await join("b")
    await until(lambda: dealt(first, second), within_s=3)

    nats_server.kill()
    await nats_server.start()

    await asyncio.sleep(2)  # longer than a lease, so that what is owned then was renewed since
    await until(lambda: dealt(first, second), within_s=8)


async def test_a_frozen_member_finds_itself_without_partitions(join: Join) -> None:
    """It wakes, its lease is long over, and what others took stays theirs until they hand it back."""
    first, second = await join("a"), await join("b")
    await until(lambda: dealt(first, second), within_s=3)
    frozen = asyncio.Event()
    append = second.leases._broker.append  # the member's only way to say that it lives

    async def hang(*args: object, **more: object) -> object:
        await frozen.wait()
        return await append(*args, **more)  # type: ignore[arg-type]  # passed through as it came

    second.leases._broker.append = hang  # type: ignore[method-assign]  # a connection that is stuck
    await until(lambda: first.owned == ALL, within_s=4)
    woke_with = second.owned
    frozen.set()
    second.leases._broker.append = append  # type: ignore[method-assign]  # and comes free

    await until(lambda: dealt(first, second), within_s=4)
    assert woke_with == frozenset()


async def test_a_partition_that_a_member_cannot_read_goes_to_another(join_any: Join) -> None:
    """A member that meets events of a newer release gives the partition up rather than stall its runs."""
    first, second = await join_any("a"), await join_any("b")
    await until(lambda: dealt(first, second), within_s=3)
    part = min(second.owned)

    second.leases.decline(part)

    await until(lambda: part in first.owned and part not in second.owned, within_s=2)
    await asyncio.sleep(0.6)  # one renewal more: it must not come back
    assert part in first.held


async def test_a_process_restarted_after_a_while_owns_everything_at_once(join: Join) -> None:
    """A record that is old by the broker's clock belongs to nobody alive: nobody waits for its silence."""
    first = await join("a")
    await until(lambda: dealt(first), within_s=2)
    await first.kill()
    await asyncio.sleep(3.2)  # longer than STALE_S

    second = await join("b")

    await until(lambda: dealt(second), within_s=0.5)


async def test_the_clock_learns_the_brokers_time_from_renewals(join: Join) -> None:
    """Wall clocks decide nothing: a clock that began an hour wrong is right after the first renewal."""
    seat = await join("a")
    clock = seat.leases._clock
    assert isinstance(clock, SystemClock)
    right_ms = clock.now_ms()
    await until(lambda: dealt(seat), within_s=2)
    clock._offset_ms += 3_600_000

    await until(lambda: abs(clock._offset_ms - (right_ms - clock.monotonic_s() * 1000)) < 10_000, within_s=2)
