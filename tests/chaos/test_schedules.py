"""Schedules while their owners die by SIGKILL, at the worst instants and at any: each missed instant has one run."""

import random
from collections import Counter
from pathlib import Path

import pytest

from headrace.contracts import events as ev
from headrace.contracts import ids, pseudo
from tests.chaos.cluster import Cluster
from tests.conftest import until
from tests.engine import deployed_ago

HOUR = 3_600_000
MISSED = 60
TEXT = """
pipeline: hourly
triggers: [{cron: "MINUTE * * * *", catch_up: all}]
steps: {rest: {wait: {for: 1ms}}}
"""
SCHEDULE = ids.schedule_id("default", "hourly", 0)
POINTS = ("before_decision", "between_firing_and_start")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("point", POINTS)
async def test_fault_kill_9_of_a_schedules_owner_fires_each_instant_once(tmp_path: Path, point: str) -> None:
    """Given sixty missed hours and three schedulers that die on the way, then sixty runs exist, each once."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    async with Cluster(tmp_path) as cluster:
        minute = (cluster.clock.now_ms() // 60_000 + 30) % 60
        await deployed_ago(cluster.broker, TEXT.replace("MINUTE", str(minute)), ago_ms=MISSED * HOUR)
        dying = [
            cluster.spawn(
                "scheduler",
                HEADRACE_CRASH=f"{point}:{draw.randrange(1, 12)}",
                HEADRACE_CRASH_FILE=str(tmp_path / "crashed"),
            )
            for _ in range(3)
        ]
        await until(lambda: any(not process.alive for process in dying), within_s=60, what="a scheduler died")
        cluster.spawn("scheduler")
        await cluster.until_completed(MISSED, within_s=90)
        assert (tmp_path / "crashed").read_text().splitlines()[0] == point
        messages = [message for _, message in await cluster.messages()]
    created = Counter(
        message.runid
        for message in messages
        if isinstance(message, ev.RunDecided) and isinstance(message.data.events[0], ev.RunCreated)
    )
    decided = [message.data for message in messages if isinstance(message, pseudo.TriggerDecided)]
    fired = [event.due_ms for data in decided for event in data.events if isinstance(event, pseudo.TriggerFired)]
    assert [data.version for data in decided] == list(range(1, len(decided) + 1))
    assert len(fired) == len(set(fired)) == MISSED and fired == sorted(fired)
    assert created == Counter({ids.scheduled_run_id(SCHEDULE, due_ms): 1 for due_ms in fired})
