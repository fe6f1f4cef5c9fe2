"""Services over a test's own nats-server, in the test's process: real parts, wired as their composition roots do."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import nats

from headrace.contracts import codec, pseudo, subjects
from headrace.contracts import events as ev
from headrace.contracts.envelope import SPECVERSION
from headrace.pipeline.bundle import load_text
from headrace.runtime import blobs
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.eventlog import Broker
from headrace.runtime.streams import consumer_specs, migrate
from headrace.runtime.supervisor import Supervisor
from headrace_scheduler.config import Config
from headrace_scheduler.service import Scheduler
from tests.conftest import until


@asynccontextmanager
async def running_scheduler(broker: Broker, instance: str = "s1", **config: Any) -> AsyncIterator[Scheduler]:
    """A scheduler that owns what it is dealt and has caught up."""
    await migrate(broker)
    clock = SystemClock()
    async with Supervisor(clock) as supervisor:
        scheduler = Scheduler(
            broker, supervisor, clock=clock, entropy=SystemEntropy(), instance=instance, config=Config(**config)
        )
        await scheduler.start()
        await until(lambda: scheduler.caught_up and scheduler.partitions, within_s=10, what="scheduler caught up")
        yield scheduler
        await scheduler.drain()
        await scheduler.stop()


@asynccontextmanager
async def running(kind: Any, broker: Broker, instance: str, **more: Any) -> AsyncIterator[Any]:
    """Any other service, ready; it is let go of without a drain, as a kill would."""
    clock = SystemClock()
    async with Supervisor(clock) as supervisor:
        service = kind(broker, supervisor, clock=clock, entropy=SystemEntropy(), instance=instance, **more)
        await service.start()
        await until(lambda: service.caught_up and service.ready, within_s=10, what=f"{service.name} ready")
        yield service
        async with asyncio.timeout(15):
            await service.stop()


async def command(
    broker: Broker, verb: str, data: dict[str, Any], *, command_id: str, within_s: float = 5
) -> ev.StoredMessage:
    """Send a command as plain JSON, and give its outcome."""
    await broker.append(subjects.command("default", verb), json.dumps(data).encode(), msg_id=command_id)
    return await outcome(broker, command_id, within_s=within_s)


async def outcome(broker: Broker, command_id: str, *, within_s: float = 5) -> ev.StoredMessage:
    """What was answered to a command."""
    found: list[ev.StoredMessage] = []

    async def answered() -> bool:
        stored = await broker.last(subjects.OUTCOMES, subjects.outcome("default", command_id))
        if stored is not None:
            found.append(codec.decode(stored.body))
        return bool(found)

    await until(answered, within_s=within_s, what=f"outcome of {command_id}")
    return found[0]


async def put(broker: Broker, text: str, *, arm: bool = False, catalogue: Any = None) -> str:
    """Register a pipeline (and nothing of its child files); gives its digest."""
    bundle = load_text(text, catalogue=catalogue)
    await blobs.put(broker, "default", subjects.DEFINITION_ROOT, bundle.data)
    data = {"pipeline": bundle.plan.pipeline, "digest": bundle.digest, "arm": arm}
    answer = await command(broker, "definition-put", data, command_id=f"put-{bundle.digest[:20]}-{arm}")
    assert isinstance(answer, ev.CommandAccepted), answer
    return bundle.digest


async def deployed_ago(broker: Broker, text: str, *, ago_ms: int) -> int:
    """Registered and armed by a scheduler of some time ago, since when none has run; gives when."""
    await migrate(broker)
    bundle = load_text(text)
    await blobs.put(broker, "default", subjects.DEFINITION_ROOT, bundle.data)
    at_ms = SystemClock().now_ms() - ago_ms
    crons = tuple(
        pseudo.CronSpec(cron=one.cron, timezone=one.timezone, catch_up=one.catch_up) for one in bundle.plan.crons
    )
    message = ev.DefinitionRegistered(
        specversion=SPECVERSION,
        id=f"put-{bundle.digest[:20]}-{at_ms}",
        source="/scheduler/of-then",
        time="",
        schemaver=1,
        tenant="default",
        pipeline=bundle.plan.pipeline,
        defdigest=bundle.digest,
        data=ev.Definition(
            digest=bundle.digest, size=0, armed=True, armed_ms=at_ms, triggers=bundle.plan.triggers, crons=crons
        ),
    )
    await broker.append(subjects.definition("default", bundle.plan.pipeline), codec.encode(message))
    return at_ms


async def start(broker: Broker, pipeline: str, run: str, **inputs: Any) -> None:
    """Start a run and see it accepted."""
    data = {"pipeline": pipeline, "runid": run, "inputs": inputs}
    answer = await command(broker, "run-start", data, command_id=f"start-{run}")
    assert isinstance(answer, ev.CommandAccepted), answer


async def ack_waits_s(url: str) -> dict[str, float]:
    """How long the broker waits for an acknowledgement, by durable, as it says itself."""
    client = await nats.connect(url)
    try:
        manager = client.jsm()
        return {
            spec.durable: (await manager.consumer_info(spec.stream, spec.durable)).config.ack_wait or 0.0
            for spec in consumer_specs({})
        }
    finally:
        await client.close()


async def history(broker: Broker, run: str) -> list[ev.StoredMessage]:
    """Every message of a run, in order."""
    stream = subjects.runs_stream(0)
    return [codec.decode(stored.body) async for stored in broker.read(stream, (subjects.run_filter(run),))]


def events_of(messages: list[ev.StoredMessage], kind: type[Any]) -> list[Any]:
    """All events of a kind inside the decisions."""
    return [
        event
        for message in messages
        if isinstance(message, ev.RunDecided)
        for event in message.data.events
        if isinstance(event, kind)
    ]


async def finished(broker: Broker, run: str, *, within_s: float = 20) -> ev.DecisionEvent:
    """How a run ended: its terminal event."""
    ends = ("run-completed", "run-failed", "run-cancelled")
    stream = subjects.runs_stream(0)
    scope = subjects.run_filter(run).removesuffix(">") + "decision.>"

    async def state() -> Any:
        last = await broker.last(stream, scope)
        return last if last is not None and last.subject.endswith(ends) else None

    await until(state, within_s=within_s, what=f"end of {run}")
    decided = codec.decode((await state()).body)
    assert isinstance(decided, ev.RunDecided)
    return decided.data.events[-1]


def outputs(event: ev.DecisionEvent) -> Any:
    """The outputs of a completed run."""
    assert isinstance(event, ev.RunCompleted), event
    assert isinstance(event.outputs.json, msgspec.Raw)
    return codec.plain(event.outputs.json)
