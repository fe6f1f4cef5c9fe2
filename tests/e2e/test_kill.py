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
from tests.e2e.command import Started, headrace, lines, processes_of, until
from tests.e2e.pipelines import STEPS, ledger
from tests.engine import events_of, history

POINTS = int(os.environ.get("HEADRACE_SOAK", "3"))
RESUMED_WITHIN_S = 20.0
"""Well below ack_wait, and enough for a machine that runs other tests beside."""
STEP_S = 0.15
"""About how long a model call of the chain takes; a kill comes somewhere in it, or in the steps beside it."""


async def exported(folder: Path, run: str) -> list[ev.StoredMessage]:
    """The run's messages as they lie in the store of a data directory that nobody uses."""
    clock = SystemClock()
    server = NatsServer(folder / ".headrace/nats", clock=clock)
    await server.start()
    try:
        broker = await connect(server.url, name="test", clock=clock)
        found = await history(broker, run)
        await broker.close()
    finally:
        await server.stop()
    return found


async def finish(folder: Path, file: Path, killed: Started) -> None:
    """Run the same command to the end and check the log and the ledger."""
    before = set(killed.completed())
    until(lambda: not processes_of(folder), within_s=5, what="processes left after kill -9")
    began_s = time.monotonic()
    done = headrace(folder, "run", str(file), "--json", timeout_s=60)
    took_s = time.monotonic() - began_s
    said = lines(done.stdout)
    assert done.returncode == 0, done.stderr
    assert took_s < RESUMED_WITHIN_S, took_s
    began_again = {each["path"] for each in said if each["event"] == "step.scheduled"}
    assert not before & began_again, "a step completed before the kill was scheduled again"
    ends = Counter(done.path for done in events_of(await exported(folder, said[0]["run"]), ev.StepCompleted))
    assert set(ends.values()) == {1}, ends
    assert len(ends) == 2 * STEPS + 1
    written = Counter(said[-1]["outputs"]["ledger"].split())
    for number in range(STEPS):
        assert written[f"w{number}"] >= 1
        if f"write{number}" in before:
            assert written[f"w{number}"] == 1, (written, before)
    assert sum(written.values()) <= STEPS + 1, "at most the step that was under way is done twice"


@pytest.mark.parametrize("seed", range(POINTS))
async def test_fault_kill_9_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    """Wherever it falls, the run finishes with each step completed once."""
    draw = random.Random(seed)
    file = ledger(tmp_path)
    with Started(tmp_path, "run", str(file), "--json") as started:
        steps = draw.randrange(2 * STEPS)
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
    file = ledger(tmp_path, latency_ms=latency_ms)
    with Started(
        tmp_path, "run", str(file), "--json", HEADRACE_CRASH=point, HEADRACE_CRASH_FILE=str(reached)
    ) as started:
        started.until(reached.exists, what=f"{point} is reached")
        assert started.wait(10) == -9
    assert reached.read_text() == point.partition(":")[0] + "\n"
    await finish(tmp_path, file, started)


def test_fault_kill_9_of_nats_server_alone(tmp_path: Path) -> None:
    """The broker dies; the same process starts it again, and the run goes on."""
    file = ledger(tmp_path)
    with Started(tmp_path, "run", str(file), "--json") as started:
        started.until(lambda: "write1" in started.completed(), what="second step")
        servers = [pid for pid, command in processes_of(tmp_path).items() if "nats-server" in command]
        (server,) = [pid for pid in servers if pid != started.popen.pid]
        os.kill(server, 9)
        assert started.wait(30) == 0, started.errors.read_text()
    written = Counter(started.objects[-1]["outputs"]["ledger"].split())
    assert set(written) == {f"w{number}" for number in range(STEPS)}
    ends = Counter(started.completed())
    assert set(ends.values()) == {1}
