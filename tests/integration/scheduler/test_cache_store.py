"""`cache` from end to end: an executor counts how often it is called."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import nats
import pytest

from headrace.client.values import resolve
from headrace.contracts import events as ev
from headrace.contracts import subjects
from headrace.contracts.codec import encode, inline
from headrace.contracts.decisions import Origin
from headrace.contracts.envelope import Value
from headrace.local.nats_server import NatsServer
from headrace.runtime.jetstream import JetStreamBroker
from headrace.runtime.streams import migrate
from headrace_scheduler.cache_store import Result
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import Surroundings, build_executor
from headrace_step_executor.tools.call import ToolCall, refuse
from tests.conftest import until
from tests.engine import events_of, finished, history, put, running, running_scheduler, start

TEXT = """
pipeline: again
inputs: {key: {type: string}, size: {type: integer, default: 1}}
outputs: {got: "${{ steps.call.output }}"}
steps:
  call:
    tool: work.once
    with: {size: "${{ inputs.size }}"}
    retry: {attempts: 1}
    cache: {key: "${{ inputs.key }}", ttl: TTL}
"""


class Calls:
    """A tool that never gives the same twice."""

    def __init__(self) -> None:
        self.by_run: Counter[str] = Counter()
        self.gate: asyncio.Event | None = None

    async def once(self, given: ToolCall) -> Any:
        """Its own number, and as much as was asked for; it fails for the key that says so."""
        self.by_run[given.run] += 1
        if self.gate is not None:
            await self.gate.wait()
        if given.run.startswith("fails"):
            code = "denied"
            raise refuse(code, "not this one")
        return {"number": self.by_run.total(), "padding": "x" * given.args["size"]}

    def executor(self, folder: Path) -> dict[str, Any]:
        """For `running`."""
        around = Surroundings(tools={"work.once": self.once})
        return {"config": ExecutorConfig(data_dir=folder), "around": around}


async def result(broker: JetStreamBroker, run: str, **inputs: Any) -> Any:
    """What a run gives."""
    await start(broker, "again", run, **inputs)
    end = await finished(broker, run)
    assert isinstance(end, ev.RunCompleted), end
    return (await resolve(broker, "default", end.outputs))["got"]


async def origin(broker: JetStreamBroker, run: str) -> Origin | None:
    """Where the result of its step comes from."""
    completed = events_of(await history(broker, run), ev.StepCompleted)
    found: Origin | None = next(event.cached for event in completed if event.path == "call")
    return found


async def kept(broker: JetStreamBroker, count: int = 1) -> list[Any]:
    """The entries of the cache, once there are so many."""
    found: list[Any] = []

    async def there() -> bool:
        found[:] = [stored async for stored in broker.read(subjects.CACHE, (subjects.kv(subjects.CACHE, ">"),))]
        return len(found) >= count

    await until(there, what="entries of the cache")
    return found


@pytest.mark.parametrize("size", [1, 70_000, 1_500_000], ids=["inline", "by reference", "in chunks"])
async def test_a_result_is_used_again_by_another_run(broker: JetStreamBroker, tmp_path: Path, size: int) -> None:
    """The call is made once; the hit says where it comes from; a large value is the second run's own. Another key is
    another call, and a failure is kept for nobody."""
    calls = Calls()
    async with running_scheduler(broker), running(build_executor, broker, "e1", **calls.executor(tmp_path)):
        await put(broker, TEXT.replace("TTL", "1h"))
        first = await result(broker, "first", key="k", size=size)
        (entry,) = await kept(broker)
        assert await result(broker, "second", key="k", size=size) == first
        assert (await result(broker, "third", key="other", size=size))["number"] == 2
        await start(broker, "again", "fails", key="bad")
        assert isinstance(await finished(broker, "fails"), ev.RunFailed)
        assert isinstance(await _failed_again(broker), ev.RunFailed)
        found = await origin(broker, "second")
        assert found is not None and (found.run, found.path, found.at_ms) == ("first", "call", entry.time_ms)
        reports = [one for one in await history(broker, "first") if isinstance(one, ev.AttemptSucceeded)]
        assert found.report in [report.id for report in reports if report.stepid == "call"]
        assert await origin(broker, "first") is None and await origin(broker, "third") is None
        (completed,) = [
            event for event in events_of(await history(broker, "second"), ev.StepCompleted) if event.path == "call"
        ]
        assert completed.output.ref.partition("/")[0] == ("second" if size > 65_000 else "")
        if completed.output.ref:
            assert completed.output.ref.partition("/")[2] == found.sha256
    assert calls.by_run == {"first": 1, "third": 1, "fails": 1, "fails-again": 1}


async def _failed_again(broker: JetStreamBroker) -> ev.DecisionEvent:
    await start(broker, "again", "fails-again", key="bad")
    return await finished(broker, "fails-again")


async def test_a_result_is_forgotten_when_its_ttl_is_over(broker: JetStreamBroker, tmp_path: Path) -> None:
    """By the broker's clock."""
    calls = Calls()
    async with running_scheduler(broker), running(build_executor, broker, "e1", **calls.executor(tmp_path)):
        await put(broker, TEXT.replace("TTL", "1s"))
        assert (await result(broker, "first", key="k"))["number"] == 1
        (entry,) = await kept(broker)
        number = 0

        async def executed() -> bool:
            nonlocal number
            number += 1
            return (await result(broker, f"again-{number}", key="k"))["number"] == 2

        await until(executed, within_s=20, what="a run that is executed")
        (last,) = [one for one in await history(broker, f"again-{number}") if isinstance(one, ev.AttemptSucceeded)]
        assert await origin(broker, f"again-{number}") is None and last.data.output
        position = [stored async for stored in broker.read(subjects.runs_stream(0), ("hr.evt.>",))]
        (ordered,) = [one for one in position if f"again-{number}.decision.scheduled" in one.subject]
        assert ordered.time_ms >= entry.time_ms + 1_000


POISON = {
    "no result at all": b"\xff{",
    "another hash": encode(Result(run="x", path="y", report="z", sha256="0" * 64, value=inline("poisoned"))),
    "a value that is gone": encode(
        Result(run="x", path="y", report="z", sha256="1" * 64, value=Value(ref=f"x/{'1' * 64}", size=70_000))
    ),
}


@pytest.mark.parametrize("poison", list(POISON))
async def test_an_entry_that_is_damaged_is_a_miss(broker: JetStreamBroker, tmp_path: Path, poison: str) -> None:
    """The step is executed, and its result takes the place of what was there."""
    calls = Calls()
    async with running_scheduler(broker), running(build_executor, broker, "e1", **calls.executor(tmp_path)):
        await put(broker, TEXT.replace("TTL", "1h"))
        await result(broker, "first", key="k")
        (entry,) = await kept(broker)
        await broker.append(entry.subject, POISON[poison])
        assert (await result(broker, "second", key="k"))["number"] == 2
        assert await origin(broker, "second") is None

        async def healed() -> bool:
            stored = await broker.last(subjects.CACHE, entry.subject)
            return stored is not None and b'"run":"second"' in stored.body

        await until(healed, what="a sound entry")
        assert (await result(broker, "third", key="k"))["number"] == 2


async def test_runs_that_begin_together_are_all_executed(broker: JetStreamBroker, tmp_path: Path) -> None:
    """Nobody waits for a result that may never come."""
    calls = Calls()
    calls.gate = asyncio.Event()
    async with running_scheduler(broker), running(build_executor, broker, "e1", **calls.executor(tmp_path)):
        await put(broker, TEXT.replace("TTL", "1h"))
        for run in ("one", "two"):
            await start(broker, "again", run, key="k")
        await until(lambda: calls.by_run.total() == 2, what="two calls")
        calls.gate.set()
        for run in ("one", "two"):
            assert isinstance(await finished(broker, run), ev.RunCompleted)


async def test_without_the_bucket_everything_is_executed(
    nats_server: NatsServer, broker: JetStreamBroker, tmp_path: Path
) -> None:
    """It is a cache: deleted, it is missed by nobody."""
    calls = Calls()
    await migrate(broker)
    async with running_scheduler(broker), running(build_executor, broker, "e1", **calls.executor(tmp_path)):
        await put(broker, TEXT.replace("TTL", "1h"))
        admin = await nats.connect(nats_server.url)
        await admin.jsm().delete_stream(subjects.CACHE)
        await admin.close()
        assert [(await result(broker, run, key="k"))["number"] for run in ("one", "two")] == [1, 2]
