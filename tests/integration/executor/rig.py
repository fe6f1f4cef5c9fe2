"""An executor over a real nats-server, with this side playing the scheduler: orders out, reports in."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from headrace.contracts import codec, events, ids, names, subjects
from headrace.contracts.live import Beat, CurrentAnswer, CurrentAsk
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.eventlog import BusMessage
from headrace.runtime.harness import Hosted
from headrace.runtime.jetstream import JetStreamBroker
from headrace.runtime.streams import migrate
from headrace.runtime.supervisor import Supervisor
from headrace_step_executor.config import Config
from headrace_step_executor.parts import Surroundings, build_executor
from tests.conftest import Connect, until

STREAM = subjects.runs_stream(0)
REPORTS = events.AttemptSucceeded | events.AttemptFailed | events.AttemptDeferred


@dataclass
class Rig:
    """What a test says to an executor and hears from it."""

    broker: JetStreamBroker
    executor: Any
    """A StepExecutor, unless it runs in a process of its own."""
    hosted: Any
    clock: SystemClock
    data_dir: Path
    beats: list[Beat] = field(default_factory=list)
    asks: list[CurrentAsk] = field(default_factory=list)
    current: Any = True
    """What the owner answers about every order; None: nothing."""

    def order(self, run: str = "r1", path: str = "a", **fields: Any) -> events.StepOrdered:
        """A valid order; `scheduled_ms` is now."""
        now_ms = int(self.clock.now_ms())
        given: dict[str, Any] = {
            "path": path, "attempt": 1, "offer": 1, "decision": "d1", "version": 2, "queue": "tool",
            "kind": "tool", "timeout_ms": 10_000, "not_after_ms": now_ms + 600_000, "due_ms": now_ms + 60_000,
            "scheduled_ms": now_ms,
        } | fields  # fmt: skip
        if "input" in given:
            given["input"] = msgspec.Raw(codec.encode_value(given["input"]))
        if "template" in given:
            given["template"] = msgspec.Raw(codec.encode_value(given["template"]))
        data = events.Order(**given)
        return events.StepOrdered(
            specversion="1.0", id=ids.event_id("o", run, data.path, data.attempt, data.offer), source="test",
            time="2026-01-01T00:00:00Z", schemaver=1, tenant="default", pipeline="p", runid=run,
            stepid=data.path, attempt=data.attempt, traceparent="00-aa-bb-01", correlationid=run, data=data,
        )  # fmt: skip

    async def publish(self, order: events.StepOrdered) -> int:
        """Its sequence."""
        prefix = subjects.run_prefix(order.tenant, order.pipeline, order.runid)
        done = await self.broker.append(subjects.order(prefix, order.data.queue), codec.encode(order), msg_id=order.id)
        return done.seq

    async def reports(self, run: str = "r1") -> list[Any]:
        """Every report of a run so far, claims excepted."""
        found = []
        async for stored in self.broker.read(STREAM, [f"hr.evt.*.*.*.{run}.report.>"]):
            message = codec.decode(stored.body)
            if isinstance(message, REPORTS):
                found.append(message)
        return found

    async def report(self, run: str = "r1", *, within_s: float = 10.0) -> Any:
        """The first report of a run."""
        found: list[Any] = []

        async def there() -> bool:
            found[:] = await self.reports(run)
            return bool(found)

        await until(there, within_s=within_s, what=f"a report of {run}")
        return found[0]

    async def ran(self, **fields: Any) -> Any:
        """Publish an order and give its report."""
        order = self.order(**fields)
        await self.publish(order)
        return await self.report(order.runid)

    async def output(self, **fields: Any) -> Any:
        """The inline output of an order that succeeds."""
        report = await self.ran(**fields)
        assert isinstance(report, events.AttemptSucceeded), report
        assert isinstance(report.data.output.json, msgspec.Raw)
        return codec.plain(report.data.output.json)

    async def failure(self, **fields: Any) -> Any:
        """The failure of an order that fails."""
        report = await self.ran(**fields)
        assert isinstance(report, events.AttemptFailed), report
        return report.data.failure

    async def queue_is_empty(self, queue: str = "tool", *, within_s: float = 5.0) -> None:
        """Return when every order of a queue is acknowledged."""

        async def empty() -> bool:
            state = await self.broker.consumer_state(STREAM, subjects.order_consumer(queue))
            return state.pending == 0 and state.ack_pending == 0

        await until(empty, within_s=within_s, what=f"queue {queue} empty")

    async def _hear(self, message: BusMessage) -> None:
        self.beats.append(codec.decode_as(Beat, message.body))

    async def _answer(self, message: BusMessage) -> None:
        ask = codec.decode_as(CurrentAsk, message.body)
        self.asks.append(ask)
        if self.current is not None:
            await message.respond(codec.encode(CurrentAnswer(current=tuple(self.current for _ in ask.orders))))

    async def listen(self) -> None:
        """Hear beats and play the owner of every partition."""
        await self.broker.subscribe(subjects.PRESENCE_ALL, self._hear)
        for part in range(names.PARTITIONS):
            await self.broker.subscribe(subjects.order_current(part), self._answer)


@asynccontextmanager
async def running(
    connect: Connect,
    tmp_path: Path,
    *,
    config: Mapping[str, Any] | None = None,
    around: Surroundings | None = None,
    ready: bool = True,
    instance: str = "executor-1",
) -> AsyncIterator[Rig]:
    """A started executor on a broker with all streams."""
    clock = SystemClock()
    broker, own = await connect("test"), await connect(instance)
    await migrate(broker)
    settings = Config(data_dir=tmp_path / "data", **(config or {}))
    supervisor = Supervisor(clock)
    executor = build_executor(
        own,
        supervisor,
        clock=clock,
        entropy=SystemEntropy(),
        instance=instance,
        config=settings,
        around=around,
    )
    hosted = Hosted(executor, supervisor=supervisor, broker=own, clock=clock, drain_s=10)
    async with supervisor:
        rig = Rig(broker, executor, hosted, clock, tmp_path / "data")
        await rig.listen()
        await hosted.start()
        if ready:
            await hosted.wait_until_ready(within_s=10)
        yield rig
        async with asyncio.timeout(15):
            await hosted.abandon()


async def rig_without_executor(broker: JetStreamBroker, tmp_path: Path) -> Rig:
    """For executors in processes of their own."""
    rig = Rig(broker, None, None, SystemClock(), tmp_path / "data")
    await rig.listen()
    return rig
