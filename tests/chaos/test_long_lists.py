"""A map over more items than one part holds, whose scheduler is killed in the middle, twice.

HEADRACE_LONG_LIST items; each round of the soak takes other moments.
"""

import os
import random
from pathlib import Path

import msgspec
import pytest

from headrace.client.values import resolve
from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.envelope import Value
from tests.benchmarks.scale import mapped
from tests.chaos.cluster import RUNS, STARTED_S, Cluster, once_each
from tests.conftest import until

ITEMS = int(os.environ.get("HEADRACE_LONG_LIST", "2300"))
"""Two full parts and one that is not."""
KILLS = 2
COMPLETED_S = 500


@pytest.mark.slow
async def test_a_long_list_survives_the_death_of_its_scheduler(tmp_path: Path) -> None:
    """Whoever takes over reads a snapshot or the log, stores the same parts, and gives every result once."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with Cluster(tmp_path) as cluster:
        schedulers = [cluster.spawn("scheduler")]
        for _ in range(2):
            cluster.spawn("step-executor")
        await cluster.put(mapped())
        await cluster.start("mapped", ["r1"], xs=list(range(ITEMS)))
        moments = sorted(chance.randrange(ITEMS // 10, ITEMS) for _ in range(KILLS))
        for moment in moments:

            async def is_there(moment: int = moment) -> bool:
                info = await cluster.broker.last(RUNS, "hr.evt.>")
                return info is not None and info.seq >= moment * 2  # an item is three messages

            await until(is_there, within_s=STARTED_S * 4, what=f"{moment} items")
            schedulers[-1].kill()
            schedulers.append(cluster.spawn("scheduler"))
        await cluster.until_completed(1, within_s=COMPLETED_S)
        messages = await cluster.messages()
        ends = once_each(messages)
        assert sum(path.startswith("each[") for _, path in ends) == ITEMS
        decisions: list[ev.RunDecided] = []
        for _, message in messages:
            if isinstance(message, ev.RunDecided) and message.data.version == len(decisions) + 1:
                decisions.append(message)  # one of a lost race counts for nobody
        stored = [event for one in decisions for event in one.data.events if isinstance(event, ev.ItemsStored)]
        assert sorted(event.first for event in stored) == list(range(0, ITEMS, names.ITEMS_PART_MAX))
        parts = tuple(event.results for event in sorted(stored, key=lambda event: event.first))
        whole = await resolve(cluster.broker, "default", Value(parts=parts, form="items", count=ITEMS))
        assert [item["value"] for item in whole["items"]] == list(range(1, ITEMS + 1))
        (outputs,) = (event.outputs for event in decisions[-1].data.events if isinstance(event, ev.RunCompleted))
        assert isinstance(outputs.json, msgspec.Raw)
        assert msgspec.json.decode(outputs.json)["counts"]["succeeded"] == ITEMS
