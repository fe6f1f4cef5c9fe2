"""The client against a real scheduler over a real nats-server."""

import asyncio

import pytest
from tests.conftest import Connect, until
from tests.engine import running_scheduler

from headrace.client.client import Client, CommandRefusedError
from headrace.client.history import RunView
from headrace.contracts import codec, subjects
from headrace.contracts import events as ev
from headrace.contracts.errors import NotFoundError, TooLargeError
from headrace.pipeline.bundle import load_text
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SystemEntropy

SUM = """
pipeline: sum
inputs: {a: {type: integer}, list: {type: array, default: []}}
steps:
  add: {transform: {total: "${{ inputs.a + size(inputs.list) }}"}}
outputs: {total: "${{ steps.add.output.total }}"}
"""
WAITS = """
pipeline: waits
steps: {nap: {wait: {for: 1h}}}
"""


async def client_over(connect_broker: Connect, tenant: str = "default") -> Client:
    broker = await connect_broker("client")
    return Client(broker, tenant=tenant, clock=SystemClock(), entropy=SystemEntropy())


async def test_a_run_from_definition_to_result(connect_broker: Connect) -> None:
    """Put, start, follow, result; the trace begins with the command."""
    async with running_scheduler(await connect_broker("scheduler")):
        client = await client_over(connect_broker)
        bundle = load_text(SUM)
        digest = await client.put_definition(bundle)
        assert digest == bundle.digest
        run = await client.start(f"sum@{digest}", {"a": 2, "list": [1, 1, 1]}, labels={"team": "core"})
        async with asyncio.timeout(10):
            view = await client.result(run)
        assert (view.status, view.labels) == ("completed", {"team": "core"})
        assert view.outputs is not None
        assert await client.value(view.outputs) == {"total": 5}
        first, *_ = [message async for _, message in client.events(run)]
        assert isinstance(first, ev.RunDecided)
        created = first.data.events[0]
        assert isinstance(created, ev.RunCreated)
        assert created.traceparent.startswith("00-")
        assert (await client.view(run)).version == view.version


async def test_refusals_carry_every_reason(connect_broker: Connect) -> None:
    """Nothing is stored, and the exit code is that of bad data."""
    async with running_scheduler(await connect_broker("scheduler")):
        client = await client_over(connect_broker)
        await client.put_definition(load_text(SUM))
        with pytest.raises(CommandRefusedError) as refused:
            await client.start("sum", {"b": 1})
        assert {reason.code for reason in refused.value.reasons} == {"inputs_invalid"}
        assert len(refused.value.reasons) == 2
        assert refused.value.exit_code == 65
        with pytest.raises(CommandRefusedError, match="not_found"):
            await client.cancel("nobody")
        with pytest.raises(TooLargeError, match="at most 524288"):
            await client.start("sum", {"a": 1, "list": ["x" * 600_000]})


async def test_the_same_run_id_is_the_same_start(connect_broker: Connect) -> None:
    """Asking twice is asking once; something else under the id is refused."""
    async with running_scheduler(await connect_broker("scheduler")):
        client = await client_over(connect_broker)
        await client.put_definition(load_text(SUM))
        for _ in range(2):
            assert await client.start("sum", {"a": 1}, runid="nightly-7") == "nightly-7"
        with pytest.raises(CommandRefusedError, match="key_reused"):
            await client.start("sum", {"a": 2}, runid="nightly-7")


async def test_pause_resume_cancel(connect_broker: Connect) -> None:
    """Each returns when its event is stored, and shows in the history."""
    async with running_scheduler(await connect_broker("scheduler")):
        client = await client_over(connect_broker)
        await client.put_definition(load_text(WAITS))
        run = await client.start("waits", {})
        seen = []

        async def follow() -> None:
            view = RunView(run)
            async for _ in client.follow(view):
                seen.append(view.status)

        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            group.create_task(follow())
            await client.pause(run, reason="lunch")
            await until(lambda: "paused" in seen, what="paused")
            await client.resume(run)
            await client.cancel(run, reason="enough")
        assert seen[-1] == "cancelled"
        assert (await client.view(run)).reason == "enough"


async def test_another_tenants_run_does_not_exist(connect_broker: Connect) -> None:
    """Neither its history nor its name."""
    async with running_scheduler(await connect_broker("scheduler")):
        client = await client_over(connect_broker)
        await client.put_definition(load_text(SUM))
        run = await client.start("sum", {"a": 1})
        stranger = await client_over(connect_broker, tenant="other")
        with pytest.raises(NotFoundError):
            await stranger.view(run)
        for unknown in ("nobody", "no.such>thing"):
            with pytest.raises(NotFoundError):
                await client.view(unknown)


async def test_an_outcome_that_was_missed_is_read(connect_broker: Connect) -> None:
    """The answer is stored: hearing it live is only faster."""
    broker = await connect_broker("scheduler")
    async with running_scheduler(broker):
        client = await client_over(connect_broker)
        subscribe = client._broker.subscribe

        async def deaf(subject, handler, **more):  # hears nothing
            return await subscribe(subject + ".elsewhere", handler, **more)

        client._broker.subscribe = deaf
        await client.put_definition(load_text(SUM))
        stored = await broker.last(subjects.DEFINITIONS, subjects.definition("default", "sum"))
        assert stored is not None
        assert isinstance(codec.decode(stored.body), ev.DefinitionRegistered)
