"""Two schedulers, three executors, one nats-server: kill or freeze any of them, every run completes, each step once.

`ack_wait` stays 30 s throughout: taking over must not depend on it.
"""

import asyncio
import random
from pathlib import Path

import pytest

from headrace.contracts import codec, names, subjects
from headrace.contracts import events as ev
from headrace.runtime.lease import Claim
from tests.chaos.cluster import RUNS, Cluster, Process, once_each

WORK = """
pipeline: work
outputs: {r: "${{ steps.e.output.value }}"}
steps:
  a: {tool: chaos.work, with: {ms: 40, value: 1}}
  b: {tool: chaos.work, with: {ms: 40, value: "${{ steps.a.output.value }}"}}
  c: {tool: chaos.work, with: {ms: 40, value: "${{ steps.a.output.value }}"}}
  d: {foreach: "${{ [1, 2, 3] }}", tool: chaos.work, with: {ms: 20, value: "${{ item }}"}}
  e: {needs: [c, d], tool: chaos.work, with: {ms: 40, value: "${{ steps.b.output.value }}"}}
"""
STEPS = 8
"""Instances of a run that an executor carries out and that end: a, b, c, d[0], d[1], d[2], e; and d itself."""
RUNS_COUNT = 200


async def all_up(cluster: Cluster) -> tuple[list[Process], list[Process]]:
    """Two schedulers and three executors that have caught up and share the partitions."""
    schedulers = [cluster.spawn("scheduler") for _ in range(2)]
    executors = [cluster.spawn("step-executor") for _ in range(3)]
    await cluster.put(WORK)

    async def dealt() -> bool:
        return len(set((await holders(cluster)).values())) == 2

    await wait_for(dealt, within_s=15)
    return schedulers, executors


async def wait_for(condition, *, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.05)


async def holders(cluster: Cluster) -> dict[int, str]:
    """Partition → instance that holds its claim."""
    found: dict[int, str] = {}
    async for stored in cluster.broker.read(subjects.LEASES, (subjects.kv(subjects.LEASES, "claim.*"),)):
        found[int(stored.subject.rpartition(".")[2])] = codec.decode_as(Claim, stored.body).holder
    return found


def instance_of(process: Process) -> str:
    """The instance's name, from its first log line."""
    for line in process.log.read_text().splitlines():
        if '"instance":"' in line:
            return line.split('"instance":"')[1].split('"')[0]
    pytest.fail(f"{process.log} names no instance")


async def check_whole(cluster: Cluster, runs: int) -> None:
    """Every run completed, each of its steps once, and what was executed twice was known to be offered twice."""
    messages = await cluster.messages()
    ends = once_each(messages)
    assert len(ends) == runs * STEPS
    offers = {
        (message.runid, message.data.path, message.data.attempt): message.data.offer
        for _, message in messages
        if isinstance(message, ev.StepOrdered)
    }
    attempts = {(run, path): 0 for run, path in ends}
    for (run, path, _), offer in offers.items():
        attempts[(run, path)] = attempts.get((run, path), 0) + offer
    for key, calls in cluster.calls().items():
        run, _, path = key.partition("/")
        assert calls <= max(1, attempts.get((run, path), 1)) + 1, f"{key} was called {calls} times"


@pytest.mark.timeout(120)
async def test_a_killed_executor_is_noticed_and_its_work_goes_on_within_2500_ms(tmp_path: Path) -> None:
    """Its orders are offered again by the owner, to executors that live."""
    async with Cluster(tmp_path) as cluster:
        _, executors = await all_up(cluster)
        await cluster.start("work", [f"r{number}" for number in range(RUNS_COUNT)])
        await asyncio.sleep(0.8)
        killed_ms = cluster.clock.now_ms()
        executors[0].kill()
        await cluster.until_completed(RUNS_COUNT, within_s=60)
        offered = [
            stored.time_ms - killed_ms
            for stored, message in await cluster.messages()
            if isinstance(message, ev.StepOrdered) and message.data.offer == 2
        ]
        assert offered, "the killed executor held nothing: the test shows nothing"
        assert max(offered) <= 2_500, sorted(offered)
        await check_whole(cluster, RUNS_COUNT)


@pytest.mark.timeout(120)
async def test_a_killed_schedulers_partitions_are_taken_over_within_5_s(tmp_path: Path) -> None:
    """The other one claims every partition of the dead, and goes on deciding."""
    async with Cluster(tmp_path) as cluster:
        schedulers, _ = await all_up(cluster)
        dead = instance_of(schedulers[0])
        await cluster.start("work", [f"r{number}" for number in range(RUNS_COUNT)])
        await asyncio.sleep(0.8)
        killed_ms = cluster.clock.now_ms()
        schedulers[0].kill()
        await cluster.until_completed(RUNS_COUNT, within_s=60)

        async def none_left() -> bool:
            return dead not in (await holders(cluster)).values()

        await wait_for(none_left, within_s=10)
        claimed_ms = [
            stored.time_ms
            async for stored in cluster.broker.read(subjects.LEASES, (subjects.kv(subjects.LEASES, "claim.*"),))
        ]
        assert max(claimed_ms) - killed_ms <= 5_000
        await check_whole(cluster, RUNS_COUNT)


@pytest.mark.timeout(180)
async def test_any_of_them_killed_at_random_moments(tmp_path: Path) -> None:
    """Processes are killed and started again while 200 runs are under way; seed printed."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    async with Cluster(tmp_path) as cluster:
        schedulers, executors = await all_up(cluster)
        await cluster.start("work", [f"r{number}" for number in range(RUNS_COUNT)])
        for _ in range(5):
            await asyncio.sleep(draw.uniform(0.1, 1.2))
            group = draw.choice((schedulers, executors))
            victim = group.pop(draw.randrange(len(group)))
            victim.kill()
            group.append(cluster.spawn(victim.kind))
        await cluster.until_completed(RUNS_COUNT, within_s=90)
        await check_whole(cluster, RUNS_COUNT)


@pytest.mark.timeout(180)
async def test_a_scheduler_frozen_for_20_s_changes_nothing_wrongly_when_it_wakes(tmp_path: Path) -> None:
    """A zombie's decision fails the sequence check; whatever else it publishes is ignored by every reader."""
    async with Cluster(tmp_path) as cluster:
        schedulers, _ = await all_up(cluster)
        await cluster.start("work", [f"r{number}" for number in range(RUNS_COUNT)])
        await asyncio.sleep(0.5)
        schedulers[0].stop()
        await cluster.until_completed(RUNS_COUNT, within_s=60)
        await cluster.start("work", [f"s{number}" for number in range(RUNS_COUNT)])
        await asyncio.sleep(20)
        await cluster.until_completed(2 * RUNS_COUNT, within_s=60)
        before = (await cluster.broker.position(RUNS)).last_seq
        schedulers[0].go_on()
        await asyncio.sleep(names.LEASE_SILENT_S + 1)
        await cluster.start("work", [f"t{number}" for number in range(20)])
        await cluster.until_completed(2 * RUNS_COUNT + 20, within_s=60)
        print("messages after waking:", (await cluster.broker.position(RUNS)).last_seq - before)
        await check_whole(cluster, 2 * RUNS_COUNT + 20)
