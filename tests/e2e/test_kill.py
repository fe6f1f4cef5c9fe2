"""`kill -9` of the whole process group of `headrace run`, then the same command: nothing completed is done again.

`ack_wait` stays 30 s, so a run that finishes in less has not waited for it. HEADRACE_SOAK is the number of random
points.
"""

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from headrace.contracts import events as ev
from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import SystemClock
from headrace.runtime.jetstream import connect
from tests.e2e.command import Started, processes_of, until
from tests.e2e.pipelines import STEPS, ledger, writers
from tests.engine import ack_waits_s, events_of, history, outputs

ACK_WAIT_S = 30.0
WRITERS = [name for number in range(STEPS) for name in writers(number, wide=True)]
UNDER_WAY_MAX = 2
"""Writing steps at a time."""
POINTS = int(os.environ.get("HEADRACE_SOAK", "3"))
STARTED_S = 60.0
RESUMED_WITHIN_S = 20.0
"""From its first word on: several times what the whole run takes, and well below what is left of ack_wait by then."""
EARLY_EACH = 8
"""One in so many random kills comes before or while the run begins."""
EARLY_S = 3.0
STEP_S = 0.15
"""About how long a model call of the chain takes; a kill comes somewhere in it, or in the steps beside it."""


async def exported(folder: Path, run: str) -> list[ev.StoredMessage]:
    """The run's messages as they lie in the store of a data directory that nobody uses."""
    clock = SystemClock()
    server = NatsServer(folder / ".headrace/nats", clock=clock)
    await server.start()
    try:
        assert set((await ack_waits_s(server.url)).values()) == {ACK_WAIT_S}
        broker = await connect(server.url, name="test", clock=clock)
        found = await history(broker, run)
        await broker.close()
    finally:
        await server.stop()
    return found


def completed_by_the_first(messages: list[ev.StoredMessage]) -> set[str]:
    """Steps that the killed process had completed: another process has decided what comes after."""
    decisions = [message for message in messages if isinstance(message, ev.RunDecided)]
    deciders = list(dict.fromkeys(message.source for message in decisions))
    if len(deciders) == 1:
        return set()
    return {done.path for done in events_of([one for one in decisions if one.source == deciders[0]], ev.StepCompleted)}


def check(messages: list[ev.StoredMessage], ledger_text: str, *, before: set[str]) -> None:
    """Each step is completed once in the log, and of those completed before the kill none had its effect twice."""
    ends = Counter(done.path for done in events_of(messages, ev.StepCompleted))
    assert set(ends.values()) == {1}, ends
    assert len(ends) == len(WRITERS) + STEPS + 1
    wrote = Counter(ledger_text.split())
    assert wrote.keys() == set(WRITERS)
    assert {name: wrote[name] for name in before & wrote.keys() if wrote[name] != 1} == {}
    assert wrote.total() <= len(WRITERS) + UNDER_WAY_MAX, "at most the steps that were under way are done twice"


async def finish(folder: Path, file: Path, killed: Started) -> None:
    """Run the same command to the end and check the log and the ledger."""
    said_before = set(killed.completed())
    until(lambda: not processes_of(folder), within_s=10, what="processes left after kill -9")
    with Started(folder, "run", str(file), "--json", errors=folder / "again.txt") as again:
        again.until(lambda: again.lines, within_s=STARTED_S, what="it has begun")
        began_s = time.monotonic()
        assert again.wait(STARTED_S) == 0, again.errors.read_text()
        took_s = time.monotonic() - began_s
    said = again.objects
    assert took_s < RESUMED_WITHIN_S, "it has waited for ack_wait"
    run = killed.objects[0]["run"] if killed.objects else said[0]["run"]
    if run == said[0]["run"]:  # else the kill came after the run's end, and the same command began another
        began_again = {each["path"] for each in said if each["event"] == "step.scheduled"}
        assert not said_before & began_again, "a step completed before the kill was scheduled again"
    messages = await exported(folder, run)
    before = said_before | completed_by_the_first(messages)
    print(f"{len(before)} steps completed before the kill, of which {len(said_before)} were said to be")
    (end,) = events_of(messages, ev.RunCompleted)
    check(messages, outputs(end)["ledger"], before=before)


@pytest.mark.parametrize("seed", range(POINTS))
async def test_fault_kill_9_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    """Wherever it falls, the run finishes with each step completed once."""
    draw = random.Random(seed)
    file = ledger(tmp_path, wide=True)
    with Started(tmp_path, "run", str(file), "--json") as started:
        if seed % EARLY_EACH == EARLY_EACH - 1:
            await asyncio.sleep(draw.uniform(0, EARLY_S))
        else:
            steps = draw.randrange(len(WRITERS) + STEPS)
            started.until(lambda: len(started.completed()) >= steps and started.lines, what=f"{steps} steps")
            await asyncio.sleep(draw.uniform(0, STEP_S))
        started.kill_group()
    await finish(tmp_path, file, started)


@pytest.mark.parametrize(
    "point",
    [
        "attempt_running:4",
        "between_decision_and_orders:1",
        "report_stored_before_ack:3",
        "before_decision:3",
        "inside_snapshot:1",
    ],
)
async def test_fault_kill_9_at_a_named_point(tmp_path: Path, point: str) -> None:
    """In a step, between decision and orders, between report and acknowledgement, inside a snapshot."""
    reached = tmp_path / "reached"
    latency_ms = 1_500 if "snapshot" in point else 150  # the first snapshot is due after 10 s
    file = ledger(tmp_path, latency_ms=latency_ms, wide=True)
    with Started(
        tmp_path, "run", str(file), "--json", HEADRACE_CRASH=point, HEADRACE_CRASH_FILE=str(reached)
    ) as started:
        started.until(reached.exists, what=f"{point} is reached")
        assert started.wait(10) == -9
    assert reached.read_text() == point.partition(":")[0] + "\n"
    await finish(tmp_path, file, started)


async def test_fault_kill_9_of_nats_server_alone(tmp_path: Path) -> None:
    """The broker dies; the same process starts it again, and the run goes on."""
    file = ledger(tmp_path, wide=True)
    with Started(tmp_path, "run", str(file), "--json") as started:
        started.until(lambda: "write1" in started.completed(), what="second round")
        servers = [pid for pid, command in processes_of(tmp_path).items() if "nats-server" in command]
        (server,) = [pid for pid in servers if pid != started.popen.pid]
        os.kill(server, 9)
        before = set(started.completed())
        killed_s = time.monotonic()
        assert started.wait(ACK_WAIT_S + 30) == 0, started.errors.read_text()
        assert time.monotonic() - killed_s < ACK_WAIT_S
    check(await exported(tmp_path, started.objects[0]["run"]), started.objects[-1]["outputs"]["ledger"], before=before)
    assert set(Counter(started.completed()).values()) == {1}
