"""Results that are used again, in worlds where everything dies: what is reused is what was reported, and is whole."""

import asyncio
import os
from typing import Any, Final

import pytest

from headrace.contracts import codec
from headrace.contracts import events as ev
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.decisions import Origin
from tests.simulation import faults as f
from tests.simulation import keys, schedules
from tests.simulation.check import violations
from tests.simulation.workload import Asked, remembering
from tests.simulation.world import AFTER_S, LOOK_S, Record, World, ask, begin, simulate, unfinished

COUNT: Final = int(os.environ.get("HEADRACE_SIM_SEEDS", "12"))
SEEDS: Final = [seed for seed in range(10 * COUNT) if not schedules.catch_up(seed) and keys.chosen(seed) is None][
    :COUNT
]
"""Of worlds that have neither a schedule nor a key of their own."""
RUNS: Final = 6
EVERY_S: Final = 1.7
"""Some begin before the one before has ended, some after."""
BEGAN_S: Final = 2.0
ENDS_WITHIN_S: Final = 300.0


def world(seed: int, faults: f.Faults) -> Record:
    """Six runs of one pipeline, two of them with another input, one after the other under faults."""
    shape = remembering()
    name = f"{shape.name}@{shape.digest}"
    starts = [Asked(BEGAN_S + EVERY_S * n, "run-start", f"r{n}", name, (("n", 1 + (n % 3 == 1)),)) for n in range(RUNS)]

    async def story(world: World) -> None:
        loop = world.loop
        world.asked = starts
        begin(world, [shape])
        for one in starts:
            await asyncio.sleep(max(0.0, one.at_s - loop.time()))
            ask(world, one)
        world.faults.active = False
        world.server.heal()
        for host in world.hosts:
            host.heal()
        until_s = loop.time() + ENDS_WITHIN_S
        while (left := unfinished(world)) and loop.time() < until_s:
            await asyncio.sleep(LOOK_S)
        world.unfinished = left
        await asyncio.sleep(AFTER_S)

    return simulate(seed, faults=faults, story=story)


def judged(record: Record) -> tuple[list[str], int]:
    """Everything wrong, and how many results were used again."""
    wrong, hits = violations(record), 0
    messages: list[Any] = [codec.decode(stored.body) for stored in record.history["HR_RUNS_0"]]
    reports = {one.id: one for one in messages if isinstance(one, ev.AttemptSucceeded)}
    versions: dict[str, int] = {}
    counted: set[str] = set()
    scheduled: set[tuple[str, str]] = set()
    for message in messages:
        if not isinstance(message, ev.RunDecided) or message.data.version != versions.get(message.runid, 0) + 1:
            continue
        versions[message.runid] = message.data.version
        for event in message.data.events:
            if isinstance(event, ev.StepScheduled):
                scheduled.add((message.runid, event.path))
            if not isinstance(event, ev.StepCompleted):
                continue
            counted.add(event.report)
            if event.cached is not None:
                hits += 1
                wrong += _wrong_with(event, event.cached, reports, counted)
                if (message.runid, event.path) in scheduled:
                    wrong.append(f"{message.runid} {event.path}: executed and taken from {event.cached.run}")
    return wrong, hits


def _wrong_with(event: ev.StepCompleted, origin: Origin, reports: dict[str, Any], counted: set[str]) -> list[str]:
    report = reports.get(origin.report)
    if report is None or (report.runid, report.stepid) != (origin.run, origin.path):
        return [f"{event.path}: its origin {origin} reported nothing"]
    assert event.output is not None
    data = bytes(event.output.json)  # type: ignore[arg-type]  # small, so it is inline
    found = [] if origin.report in counted else [f"{event.path}: the report {origin.report} did not count"]
    if sha256_hex(data) != origin.sha256 or data != bytes(report.data.output.json):
        found.append(f"{event.path}: {data!r} is not what {origin.run} gave")
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_used_again_is_what_was_reported(seed: int) -> None:
    """Under the faults of the seed: every run ends, and no result is made up, damaged, or of a report that lost."""
    wrong, _ = judged(world(seed, f.drawn(seed)))
    assert not wrong, f"HEADRACE_SIM_SEEDS={COUNT} pytest 'tests/simulation/test_caching.py' -k '[{seed}]'"


def test_without_faults_every_run_after_the_first_is_spared() -> None:
    """Fifteen of thirty results are used again at the least: three inputs of ten are new."""
    record = world(0, f.Faults(lambda _key, _possible: None))
    wrong, hits = judged(record)
    assert not wrong
    assert hits >= 15, hits
    assert {call.path for call in record.calls if call.run == "r5"} == set()
