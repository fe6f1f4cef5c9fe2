"""How long it takes until what the dead held goes on, in virtual time: at every phase, and however busy the others are.

The same clauses stand with real processes in tests/chaos; there they are tried at one moment, here at hundreds.
"""

import asyncio

import pytest

from headrace.contracts import codec, subjects
from headrace.contracts import events as ev
from headrace.runtime.eventlog import Stored
from headrace.runtime.lease import Claim
from headrace.runtime.lease_records import BURY_AFTER_S, BURY_EVERY_S
from headrace_scheduler.handback import AFTER_DEATH_S
from tests.simulation import workload
from tests.simulation.faults import listed
from tests.simulation.host import EPOCH_MS, Host
from tests.simulation.workload import Asked
from tests.simulation.world import Story, World, ask, begin, simulate

RUNS = 24
LONG = workload.pipeline("long", {"call": workload.call(ms=60_000) | {"timeout": "100s"}})
BEGAN_S = 5.0
WATCHED_S = 20.0
HAND_BACK_MS = 2_500
SCHEDULERS, EXECUTORS = (0, 1), (2, 3)
"""Places among the hosts."""


def start_runs(world: World) -> None:
    """Many at once."""
    for number in range(RUNS):
        ask(world, Asked(0.0, "run-start", f"r{number}", f"{LONG.name}@{LONG.digest}"))


async def busy(host: Host) -> None:
    """So much to do that it comes to anything but its work a fifth of the time."""
    while True:
        host.freeze(1.0)
        await asyncio.sleep(1.25)


def killed(*, victim: int, at_s: float, slow: tuple[int, ...] = ()) -> Story:
    """Everybody is up, runs have begun `at_s` ago, and one is killed for good. From then on some are busy."""

    async def story(world: World) -> None:
        begin(world, (LONG,))
        await asyncio.sleep(BEGAN_S)
        start_runs(world)
        await asyncio.sleep(at_s)
        world.hosts[victim].crash(restart_s=1e6)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(busy(world.hosts[host])) for host in slow]
            await asyncio.sleep(WATCHED_S if slow else 2 * HAND_BACK_MS / 1000)
            for task in tasks:
                task.cancel()

    return story


def nobody_for(seconds: float) -> Story:
    """All executors are killed, and one comes after a while."""

    async def story(world: World) -> None:
        begin(world, (LONG,))
        await asyncio.sleep(BEGAN_S)
        start_runs(world)
        await asyncio.sleep(1.0)
        for place in EXECUTORS:
            world.hosts[place].crash(restart_s=seconds if place == EXECUTORS[0] else 1e6)
        await asyncio.sleep(seconds + WATCHED_S)

    return story


def offered_again_ms(history: list[Stored], *, since_ms: float) -> list[float]:
    """When orders were offered a second time."""
    found = []
    for stored in history:
        message = codec.decode(stored.body)
        if isinstance(message, ev.StepOrdered) and message.data.offer == 2:
            found.append(stored.time_ms - since_ms)
    return found


def hand_back_ms(seed: int, *, at_s: float, slow: tuple[int, ...] = ()) -> float:
    """How long it took until the last order that a killed executor held was offered again."""
    record = simulate(seed, faults=listed({}), story=killed(victim=EXECUTORS[0], at_s=at_s, slow=slow))
    took = offered_again_ms(record.history["HR_RUNS_0"], since_ms=EPOCH_MS + (BEGAN_S + at_s) * 1000)
    assert took, "it held nothing, or nobody noticed"
    return max(took)


def test_orders_of_a_killed_executor_are_offered_again_within_2500_ms() -> None:
    """Whenever it dies: also just after a round, and while rounds go on because of a takeover."""
    took = {tenth: hand_back_ms(tenth, at_s=1.0 + tenth / 10) for tenth in range(12)}
    assert max(took.values()) <= HAND_BACK_MS, took


@pytest.mark.parametrize("slow", [EXECUTORS[1:], SCHEDULERS, (*SCHEDULERS, *EXECUTORS[1:])], ids=str)
def test_those_who_are_busy_delay_the_hand_back_and_do_not_prevent_it(slow: tuple[int, ...]) -> None:
    """An executor that answers late is waited for; a question is not asked afresh before it can be answered."""
    took = {tenth: hand_back_ms(1, at_s=1.0 + tenth / 10, slow=slow) for tenth in (0, 5)}
    assert max(took.values()) <= 4 * HAND_BACK_MS, took


def test_orders_wait_for_the_first_executor_that_comes_and_not_for_a_sweep() -> None:
    """Nobody was there to be offered anything for longer than rounds go on after a death."""
    away_s = AFTER_DEATH_S + 5
    record = simulate(1, faults=listed({}), story=nobody_for(away_s))
    took = offered_again_ms(record.history["HR_RUNS_0"], since_ms=EPOCH_MS + (BEGAN_S + 1.0 + away_s) * 1000)
    assert len(took) >= RUNS
    assert max(took) <= HAND_BACK_MS, took


def test_records_of_members_that_left_are_removed_and_nobody_loses_a_partition_by_it() -> None:
    """However often a scheduler was started: in the end there are the records of those who live."""

    async def story(world: World) -> None:
        begin(world, (LONG,))
        for _ in range(5):
            await asyncio.sleep(5.0)
            world.hosts[SCHEDULERS[1]].crash(restart_s=0.5)
        await asyncio.sleep(BURY_AFTER_S + BURY_EVERY_S + 5.0)
        world.hosts[SCHEDULERS[0]].freeze(BURY_AFTER_S + BURY_EVERY_S + 5.0)  # its record goes, and it comes back
        await asyncio.sleep(BURY_AFTER_S + BURY_EVERY_S + 10.0)

    record = simulate(1, faults=listed({}), story=story)
    records = record.history[subjects.LEASES]
    members = [stored.subject.rpartition(".")[2] for stored in records if ".member." in stored.subject]
    holders = {codec.decode_as(Claim, stored.body).holder for stored in records if ".claim." in stored.subject}
    assert len(members) == len(SCHEDULERS), members
    assert holders == set(members)
    assert record.complaints == []
