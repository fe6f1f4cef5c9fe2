"""Concurrency keys while their owners die by SIGKILL: never more than may be, everybody has a turn, nothing is kept."""

import random
from pathlib import Path

import pytest

from headrace.contracts import events as ev
from headrace.contracts import pseudo
from tests.chaos.cluster import Cluster
from tests.conftest import until

RUNS = 24
LIMIT = 2
TEXT = """
pipeline: keyed
limits: {concurrency: {key: one, max: 2}}
steps: {rest: {wait: {for: 150ms}}}
"""


@pytest.mark.timeout(240)
async def test_fault_kill_9_of_a_keys_owners_lets_nobody_in_and_forgets_nobody(tmp_path: Path) -> None:
    """Two schedulers that die before answering, then kills at random instants: 24 runs, two at a time, all complete."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    async with Cluster(tmp_path) as cluster:
        armed = {"HEADRACE_CRASH_FILE": str(tmp_path / "crashed")}
        living = [
            cluster.spawn("scheduler", HEADRACE_CRASH=f"before_key_answer:{draw.randrange(1, 8)}", **armed)
            for _ in range(2)
        ]
        await cluster.put(TEXT)
        await cluster.start("keyed", [f"run-{number:02d}" for number in range(RUNS)])
        await until(lambda: any(not one.alive for one in living), within_s=60, what="a scheduler died")
        living = [one if one.alive else cluster.spawn("scheduler") for one in living]
        for share in (6, 12):

            async def so_many(share: int = share) -> bool:
                return (await cluster.ended())["run-completed"] >= share

            await until(so_many, within_s=90, what=f"{share} runs")
            victim = draw.randrange(2)
            living[victim].kill()
            living[victim] = cluster.spawn("scheduler")
        await cluster.until_completed(RUNS, within_s=90)
        await until(lambda: _nothing_kept(cluster), within_s=60, what="everything freed")
        assert (tmp_path / "crashed").read_text().startswith("before_key_answer")
        assert await _most_at_once(cluster) == LIMIT


async def _nothing_kept(cluster: Cluster) -> bool:
    kept: set[str] = set()
    for message in [message for _, message in await cluster.messages()]:
        if isinstance(message, pseudo.KeyDecided):
            for event in message.data.events:
                if isinstance(event, pseudo.KeyFreed):
                    kept.discard(event.run)
                else:
                    kept.add(event.run)
    return not kept


async def _most_at_once(cluster: Cluster) -> int:
    """Runs that had begun and not ended, at the place of the log where there were most."""
    living: set[str] = set()
    most = 0
    for message in [message for _, message in await cluster.messages()]:
        if isinstance(message, ev.RunDecided):
            for event in message.data.events:
                if isinstance(event, ev.TimerSet):
                    living.add(message.runid)
                elif isinstance(event, ev.RunCompleted):
                    living.discard(message.runid)
            most = max(most, len(living))
    return most
