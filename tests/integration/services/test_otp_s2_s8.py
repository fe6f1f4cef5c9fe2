"""S2: tool calls while every registry is dead. S8: what never answers, of each kind of step. In the whole engine."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Connect, until
from tests.engine import events_of, finished, history, put, running, running_scheduler, start

from headrace.contracts import events as ev
from headrace.contracts.live import Empty, StateHash
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS, builtin_tools
from headrace.runtime.api import call
from headrace.runtime.eventlog import Broker, BusMessage
from headrace.runtime.streams import migrate
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import Surroundings, build_executor
from headrace_step_executor.tools.call import ToolCall
from headrace_tool_registry.config import Config as RegistryConfig
from headrace_tool_registry.service import ToolRegistry

ARGS = {"type": "object", "properties": {"n": {"type": "integer"}}}
SPECS = tuple(
    ev.ToolSpec(tool=f"work.{name}", version="1", description=name, args=ARGS, timeout_ms=timeout_ms, **more)
    for name, timeout_ms, more in (
        ("hold", 60_000, {}),
        ("once", 60_000, {"effect": "at_most_once"}),
        ("crash", 60_000, {}),
        ("silent", 1_500, {"endpoint": "nats:test.silent"}),
        ("absent", 60_000, {"endpoint": "nats:test.absent"}),
    )
)
CATALOGUE = {**BUILTIN_TOOLS, **{spec.tool: spec for spec in SPECS}}
EACH = {"hold": 40, "once": 40, "crash": 8, "silent": 8, "absent": 4}
"""Calls in flight by tool: a hundred."""
EXPECTED = {"hold": "", "once": "", "crash": "tool_crashed", "silent": "tool_timeout", "absent": "tool_unavailable"}


class Ledger:
    """What tools of this process were called with. Calls wait at a gate."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.gate = asyncio.Event()

    async def hold(self, given: ToolCall) -> Any:
        """A result, once the gate is open."""
        self.calls[given.key] += 1
        async with asyncio.timeout(given.timeout_s):
            await self.gate.wait()
        return {"n": given.args["n"]}

    async def crash(self, given: ToolCall) -> Any:
        """A bug of the tool."""
        await self.hold(given)
        text = "boom"
        raise KeyError(text)

    @property
    def around(self) -> Surroundings:
        """For executors."""
        return Surroundings(tools={"work.hold": self.hold, "work.once": self.hold, "work.crash": self.crash})


def pipeline(name: str, each: dict[str, int]) -> str:
    """A map over so many calls of each tool, all at once, each tried once."""
    steps = "".join(
        f"  {tool}: {{foreach: '${{{{ {list(range(count))} }}}}', max_parallel: 100, on_item_error: continue,"
        f" tool: work.{tool}, with: {{n: '${{{{ item }}}}'}}, retry: {{attempts: 1}}}}\n"
        for tool, count in each.items()
    )
    return f"pipeline: {name}\nlimits: {{max_parallel: 100}}\nsteps:\n{steps}"


async def catalogue_of(broker: Broker) -> StateHash:
    return await call(broker, "tool-registry", "hash", Empty(), StateHash, tenant="default", request_id="h")


async def ends(broker: Broker, run: str) -> dict[str, Counter[str]]:
    """Step → how its items ended: '' for a result, else the code of the failure."""
    found: dict[str, Counter[str]] = {tool: Counter() for tool in EACH}
    for event in events_of(await history(broker, run), ev.StepCompleted | ev.StepFailed):  # type: ignore[arg-type]  # both
        step, _, item = event.path.partition("[")
        if item:
            found[step][event.failure.code if isinstance(event, ev.StepFailed) else ""] += 1
    return found


async def test_otp_s2_a_hundred_calls_end_as_they_should_while_every_registry_is_dead(
    connect_broker: Connect, tmp_path: Path
) -> None:
    """Two executors have 100 calls in flight when both registries die: each ends as a result, `tool_unavailable`,
    `tool_timeout` or `tool_crashed`; further calls go on from the folded catalogue; none is made twice. A registry that
    starts again has the same catalogue within 2 s, and nobody registers anything."""
    broker, ledger = await connect_broker("engine"), Ledger()
    await migrate(broker)
    heard: list[bytes] = []

    async def silent(message: BusMessage) -> None:
        heard.append(message.body)

    await broker.subscribe("test.silent", silent)
    executors: dict[str, Any] = {"config": ExecutorConfig(data_dir=tmp_path, tool_in_flight_max=100)}
    executors["around"] = ledger.around
    replicas = [await connect_broker(f"registry-{number}") for number in range(2)]
    async with (
        running_scheduler(broker),
        running(build_executor, await connect_broker("e1"), "e1", **executors) as one,
        running(build_executor, await connect_broker("e2"), "e2", **executors) as two,
    ):
        async with (
            running(ToolRegistry, replicas[0], "t0", config=RegistryConfig(), builtin=[*builtin_tools(), *SPECS]),
            running(ToolRegistry, replicas[1], "t1", config=RegistryConfig(), builtin=[*builtin_tools(), *SPECS]),
        ):
            before = await catalogue_of(broker)
            known = [e._parts.catalogue.knows for e in (one, two)]
            await until(lambda: all(knows("default", spec.tool) for knows in known for spec in SPECS), what="folded")
            for name, each in (("many", EACH), ("later", {"hold": 10, "once": 10})):
                await put(broker, pipeline(name, each), catalogue=CATALOGUE)
            await start(broker, "many", "r1")
            gated = EACH["hold"] + EACH["once"] + EACH["crash"]
            in_flight = lambda: len(ledger.calls) == gated and len(heard) == EACH["silent"]  # noqa: E731
            await until(in_flight, within_s=20, what="calls in flight")
            for replica in replicas:
                await replica.close()
        await start(broker, "later", "r2")
        await until(lambda: len(ledger.calls) == gated + 20, within_s=10, what="calls while no registry lives")
        ledger.gate.set()
        for run in ("r1", "r2"):
            assert isinstance(await finished(broker, run, within_s=30), ev.RunCompleted)
        assert await ends(broker, "r1") == {tool: Counter({EXPECTED[tool]: count}) for tool, count in EACH.items()}
        assert (await ends(broker, "r2"))["once"] == Counter({"": 10})
        assert set(ledger.calls.values()) == {1}, "each was called once, those of at most once, too"
        assert all(e.caught_up and e.ready and not e._supervisor.crashes for e in (one, two)), "no executor died"

        fresh = await connect_broker("registry-2")
        began_s = asyncio.get_running_loop().time()
        async with running(ToolRegistry, fresh, "t2", config=RegistryConfig(), builtin=()):
            after = await catalogue_of(broker)
            assert asyncio.get_running_loop().time() - began_s < 2.0
            assert after == before


# --- S8 --------------------------------------------------------------------------------------------------------------

LEAF = "pipeline: leaf\nsteps:\n  nap: {wait: {for: 1h}}\n"
NEVER = """
pipeline: never
steps:
  model: {llm: {model: script/never.yaml, prompt: x}, timeout: 800ms, retry: {attempts: 1}, on_error: continue}
  tool: {tool: work.hold, with: {n: 1}, timeout: 800ms, retry: {attempts: 1}, on_error: continue}
  nats: {tool: work.far, with: {n: 1}, timeout: 800ms, retry: {attempts: 1}, on_error: continue}
  file: {tool: fs.grep, with: {pattern: "x+y"}, timeout: 800ms, retry: {attempts: 1}, on_error: continue}
  child: {pipeline: leaf, with: {}, timeout: 800ms, retry: {attempts: 1}, on_error: continue}
"""
FAR = ev.ToolSpec(tool="work.far", version="1", description="far", args=ARGS, endpoint="nats:test.silent")
DEADLINE = "pipeline: over\nlimits: {deadline: 900ms}\nsteps:\n  a: {tool: work.hold, with: {n: 1}}\n"
LATE_MS = 1_000
"""An attempt ends at its deadline and at most so much later."""
CLOCK_MS = 20
"""Decisions carry wall time, deadlines run by monotonic clocks: a machine sets the one right while the other runs."""
BUSY_MS = 1_500
"""Until its report is a decision, where everything shares one process and a machine that is not ours alone."""


def took_ms(messages: list[ev.StoredMessage], path: str) -> tuple[int, str]:
    """From the decision that began a step to the one that ended it, and the failure's code."""
    began = 0
    for message in messages:
        for event in message.data.events if isinstance(message, ev.RunDecided) else ():
            if isinstance(event, ev.StepScheduled | ev.ChildStarted) and event.path == path:
                began = message.data.at_ms
            if isinstance(event, ev.StepFailed) and event.path == path:
                return message.data.at_ms - began, event.failure.code
    pytest.fail(f"{path} did not fail: {messages}")


async def test_otp_s8_what_never_answers_is_a_timeout_for_every_kind_of_step(
    connect_broker: Connect, tmp_path: Path
) -> None:
    """Model call, tool call, NATS reply, file operation, child run: `timeout`, at the deadline or up to a second later;
    the work is stopped, and the child run ends. The run's own deadline acts likewise."""
    broker, ledger, granted = await connect_broker("engine"), Ledger(), tmp_path / "granted"
    granted.mkdir()
    (granted / "never.yaml").write_text("answers: [{hang: true}]")
    for number in range(60):  # a file operation that takes far longer than it may: nothing else makes one wait
        (granted / f"{number}.txt").write_text("xxxxxxxx\n" * 100_000)
    await migrate(broker)

    async def silent(_message: BusMessage) -> None:
        return

    await broker.subscribe("test.silent", silent)
    config = ExecutorConfig(data_dir=tmp_path / "data", read_roots=(granted,))
    async with (
        running_scheduler(broker),
        running(ToolRegistry, broker, "t", config=RegistryConfig(), builtin=[*builtin_tools(), *SPECS, FAR]),
        running(build_executor, await connect_broker("e1"), "e1", config=config, around=ledger.around) as executor,
    ):
        await until(lambda: executor._parts.catalogue.knows("default", "work.far"), what="the catalogue")
        for text in (LEAF, NEVER, DEADLINE):
            await put(broker, text, catalogue={**CATALOGUE, "work.far": FAR})
        await start(broker, "never", "n")
        assert isinstance(await finished(broker, "n", within_s=20), ev.RunCompleted)
        messages = await history(broker, "n")
        for path in ("model", "tool", "nats", "file", "child"):
            ms, code = took_ms(messages, path)
            assert code == "timeout", (path, code)
            assert 800 - CLOCK_MS <= ms <= 800 + LATE_MS + BUSY_MS, (path, ms)
        await until(lambda: not executor.hands.offers, within_s=5, what="work in hand")
        (child,) = {event.child for event in events_of(messages, ev.ChildStarted)}
        assert isinstance(await finished(broker, child, within_s=5), ev.RunCancelled | ev.RunFailed), (
            "it has ended, too"
        )

        await start(broker, "over", "o")
        end = await finished(broker, "o", within_s=20)
        assert isinstance(end, ev.RunFailed)
        assert end.failure.code == "deadline_exceeded"
        first, *_, last = [one for one in await history(broker, "o") if isinstance(one, ev.RunDecided)]
        assert 900 - CLOCK_MS <= last.data.at_ms - first.data.at_ms <= 900 + LATE_MS + BUSY_MS
        await until(lambda: not executor.hands.offers, within_s=5, what="work in hand")
