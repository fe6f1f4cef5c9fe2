"""S6: the owning scheduler is killed at every place of a run of 20 steps, and at random instants."""

import asyncio
import contextvars
import functools
import os
import random
import sys
from typing import Any, Final

import pytest

from headrace.contracts import codec
from headrace.contracts import events as ev
from tests.simulation import faults as f
from tests.simulation.check import violations
from tests.simulation.workload import CHAIN, Asked, chain
from tests.simulation.world import Record, World, ask, begin, simulate, unfinished

INSTANTS: Final = int(os.environ.get("HEADRACE_SIM_KILLS", "30"))
"""`make simulate` kills 1,000 times."""
SEED: Final = 1
RUN: Final = "r0"
BEGAN_S: Final = 2.0
"""When the run is asked for: partitions have owners by then."""
RESTART_S: Final = 1.0
ENDS_WITHIN_S: Final = 60.0
"""Virtual; a takeover takes five."""
OWNER: Final = "scheduler-0"
"""Of this run's partition, in this seed, as the undisturbed world shows."""
PASSED: Final = {"publish decision": ("crash-before",), "tailed HR_RUNS_0": ("crash-on",)}
"""Before each decision is sent, and when each message of the run is about to be read: between every two of them."""


def world(faults: f.Faults, *, kill_at_s: float | None = None) -> Record:
    """The chain, once, with these faults; its owner may be killed at an instant, too."""
    shape = chain(CHAIN)
    start = Asked(BEGAN_S, "run-start", RUN, f"{shape.name}@{shape.digest}", (("n", 1),))

    async def story(world: World) -> None:
        loop = world.loop
        world.asked = [start]
        begin(world, [shape])
        if kill_at_s is not None:
            (owner,) = (host for host in world.hosts if host.name == OWNER)
            crash = functools.partial(owner.crash, restart_s=RESTART_S)
            loop.call_later(kill_at_s, crash, context=contextvars.Context())
        await asyncio.sleep(BEGAN_S)
        ask(world, start)
        while (left := unfinished(world)) and loop.time() < BEGAN_S + ENDS_WITHIN_S:
            await asyncio.sleep(0.5)
        world.unfinished = left
        await asyncio.sleep(1.5)

    return simulate(SEED, faults=faults, settled=True, story=story)


def results(record: Record) -> list[tuple[str, Any, int]]:
    """(step, result, attempt) in the order in which steps were completed."""
    messages: list[Any] = [codec.decode(stored.body) for stored in record.history["HR_RUNS_0"]]
    reports = {one.id: one.data.output for one in messages if isinstance(one, ev.AttemptSucceeded)}
    found, version = [], 0
    for message in messages:
        if isinstance(message, ev.RunDecided) and message.data.version == version + 1:
            version += 1
            for event in message.data.events:
                if isinstance(event, ev.StepCompleted) and event.path.startswith("s"):
                    found.append((event.path, codec.plain(reports[event.report].json)["v"], event.attempt))
    return found


@functools.cache
def undisturbed() -> tuple[list[tuple[str, Any, int]], list[tuple[f.Key, str]], float]:
    """Its results, the places where its owner can be killed, and when it ended."""
    places: list[tuple[f.Key, str]] = []

    def look(key: f.Key, possible: tuple[str, ...]) -> None:
        if key.actor == OWNER:
            places.extend((key, kind) for kind in PASSED.get(key.site, ()) if kind in possible)

    record = world(f.Faults(look))
    assert violations(record) == []
    assert results(record) == [(f"s{number}", number + 1, 1) for number in range(CHAIN)]
    decisions = [key for key, kind in places if kind == "crash-before"]
    assert len(decisions) > CHAIN, f"{OWNER} owns another partition"
    assert len(places) - len(decisions) >= len(record.history["HR_RUNS_0"])
    return results(record), places, record.calls[-1].at_s + 0.1


def judge(record: Record, where: object) -> None:
    """As if nothing had happened, and every call was made once."""
    assert violations(record) == [], where
    assert results(record) == undisturbed()[0], where
    called = [(call.path, call.attempt) for call in record.calls]
    assert called == [(f"s{number}", 1) for number in range(CHAIN)], where


@pytest.mark.parametrize("part", range(3))
def test_otp_s6_a_kill_between_any_two_events_of_a_run_changes_no_result(part: int) -> None:
    """Of 20 steps: before each decision, and after each message. Every record that is left can be read."""
    for key, kind in undisturbed()[1][part::3]:
        faults = f.listed({key: f.Fault(kind, RESTART_S)})
        record = world(faults)
        assert list(faults.reached) == [key], "the place was not reached"
        judge(record, (key, kind))


def test_otp_s6_a_kill_at_any_instant_changes_no_result() -> None:
    """At uniformly random instants of the run; a failing one repeats with its own."""
    seed = int(os.environ.get("HEADRACE_SIM_KILL_SEED", str(random.SystemRandom().randrange(2**32))))
    sys.stdout.write(f"HEADRACE_SIM_KILL_SEED={seed} HEADRACE_SIM_KILLS={INSTANTS}\n")
    draw = random.Random(seed)
    for _ in range(INSTANTS):
        at_s = draw.uniform(BEGAN_S, undisturbed()[2])
        judge(world(f.listed({}), kill_at_s=at_s), at_s)
