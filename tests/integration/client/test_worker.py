"""Tool workers over a real nats-server: in this process for what they answer, in processes of their own for deaths."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import Connect, until
from tests.e2e.command import environ
from tests.engine import events_of, finished, history, outputs, put, running, running_scheduler, start

from headrace.client.tool import AttemptError, CallInfo, tool
from headrace.client.worker import ToolWorker
from headrace.contracts import codec, subjects
from headrace.contracts import events as ev
from headrace.contracts.errors import ConflictError
from headrace.contracts.live import Reply, Request
from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Broker
from headrace.runtime.supervisor import Supervisor
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import build_executor
from headrace_tool_registry.config import Config as RegistryConfig
from headrace_tool_registry.service import ToolRegistry

ROOT = Path(__file__).resolve().parents[3]


@tool(name="t.add", effect="pure")
async def add(a: int, b: int = 1) -> int:
    """The sum."""
    return a + b


@tool(name="t.who")
def who(call: CallInfo) -> list[str]:
    """What the worker knows of the call; runs in a thread."""
    return [call.id, call.key, call.tenant]


@tool(name="t.fail")
def fail(how: str) -> str:
    """Fails as it is told."""
    if how == "own":
        code = "sold_out"
        raise AttemptError(code, "none left", retryable=False)
    if how == "late":
        raise TimeoutError
    raise KeyError(how)


@tool(name="t.slow", timeout_s=0.2)
async def slow() -> None:
    """Never ends."""
    await asyncio.Event().wait()


@tool(name="t.big", result_bytes_max=1000)
def big() -> str:
    """More than it may give."""
    return "x" * 2000


@asynccontextmanager
async def serving(broker: Broker, *tools: Any, instance: str = "w1", **more: Any) -> AsyncIterator[ToolWorker]:
    clock = SystemClock()
    async with Supervisor(clock) as supervisor:
        worker = ToolWorker(
            broker, supervisor, tools, clock=clock, tenant="default", name="test", instance=instance, **more
        )
        await worker.start()
        yield worker
        await worker.stop(within_s=1)


async def asked(broker: Broker, one: Any, data: Any, **more: Any) -> Reply:
    """The answer of a worker to a call."""
    request = Request(id="r1/a/1", tenant="default", data=msgspec.Raw(codec.encode_value(data)), **more)
    subject = f"tools.default.{one.spec.tool.replace('.', '-')}"
    found = next(s.endpoint for s in SPECS if s.tool == one.spec.tool).removeprefix(subjects.RESPONDER)
    assert found.startswith(subject)
    return codec.decode_as(Reply, await broker.request(found, codec.encode(request), timeout_s=5))


TOOLS = (add, who, fail, slow, big)
SPECS: list[ev.ToolSpec] = []


async def test_a_call_ends_as_a_result_or_as_an_error_with_a_code(connect_broker: Connect) -> None:
    """The tool's own code, a crash, wrong arguments, too large a result, no result in time: each is told apart."""
    broker = await connect_broker("caller")
    async with serving(await connect_broker("worker"), *TOOLS) as worker:
        SPECS[:] = worker.specs
        assert codec.plain((await asked(broker, add, {"a": 2})).data) == 3
        assert codec.plain((await asked(broker, who, {})).data) == ["r1/a/1", "r1/a", "default"]
        failed = {
            name: (await asked(broker, one, data, **more)).error
            for name, one, data, more in (
                ("own", fail, {"how": "own"}, {}),
                ("crash", fail, {"how": "x"}, {}),
                ("late", fail, {"how": "late"}, {}),
                ("args", add, {"a": "2"}, {}),
                ("more", add, {"a": 2, "c": 1}, {}),
                ("slow", slow, {}, {}),
                ("left", slow, {}, {"timeout_ms": 50}),
                ("big", big, {}, {}),
            )
        }
        assert {name: error and (error.code, error.retryable) for name, error in failed.items()} == {
            "own": ("sold_out", False), "crash": ("tool_crashed", True), "late": ("tool_crashed", True),
            "args": ("tool_args_invalid", False), "more": ("tool_args_invalid", False),
            "slow": ("tool_timeout", True), "left": ("tool_timeout", True), "big": ("too_large", False),
        }  # fmt: skip

        async def micro(verb: str) -> Any:
            return json.loads(await broker.request(f"$SRV.{verb}.test.w1", b"", timeout_s=5))

        info, stats, ping = await micro("INFO"), await micro("STATS"), await micro("PING")
        assert ping["type"] == "io.nats.micro.v1.ping_response"
        assert {one["metadata"]["tool"] for one in info["endpoints"]} == {one.spec.tool for one in TOOLS}
        counts = {one["name"].partition("-")[2][:4]: one["num_requests"] for one in stats["endpoints"]}
        assert sum(counts.values()) == 10, stats
        assert sum(one["num_errors"] for one in stats["endpoints"]) == 8


async def test_two_workers_share_the_calls_and_register_one_tool(connect_broker: Connect) -> None:
    """Each call goes to one of them; a worker with another schema under the same version is refused."""
    broker, calls = await connect_broker("caller"), {"w1": 0, "w2": 0}

    def counting(instance: str) -> Any:
        @tool(name="t.count")
        async def count() -> None:
            calls[instance] += 1

        return count

    @tool(name="t.count")
    def other(needed: str) -> None: ...

    await broker.ensure_stream(next(spec for spec in _streams() if spec.name == subjects.TOOLS))
    async with (
        running(ToolRegistry, broker, "t", config=RegistryConfig(), builtin=()),
        serving(await connect_broker("one"), counting("w1")) as one,
        serving(await connect_broker("two"), counting("w2"), instance="w2") as two,
    ):
        SPECS[:] = one.specs
        await one.register()
        await two.register()
        await asyncio.gather(*(asked(broker, counting(""), {}) for _ in range(60)))
        assert sum(calls.values()) == 60
        assert min(calls.values()) > 5, calls
        assert (await broker.position(subjects.TOOLS)).last_seq == 1
        async with serving(await connect_broker("three"), other, instance="w3") as three:
            with pytest.raises(ConflictError, match="another specification"):
                await three.register()


def _streams() -> Any:
    from headrace.runtime.streams import stream_specs

    return stream_specs()


MODULE = """
import os, time
from pathlib import Path
from headrace.client.tool import tool

@tool(name="work.mark", timeout_s=1.5)
def mark(folder: str) -> int:
    "Leaves its process id, and waits for a word to go on."
    (Path(folder) / str(os.getpid())).touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.01)
    return os.getpid()
"""
PIPELINE = """
pipeline: marks
inputs: {folder: {type: string}, attempts: {type: integer}}
steps:
  a: {tool: work.mark, with: {folder: "${{ inputs.folder }}"}, retry: {attempts: 3, initial: 10ms, max: 10ms}}
  b: {tool: work.mark, with: {folder: "${{ inputs.folder }}"}, needs: a, retry: {attempts: 1}}
outputs: {by: "${{ steps.a.output }}"}
"""


async def worker_process(url: str, file: Path) -> "asyncio.subprocess.Process":
    """`headrace worker FILE`, once it serves."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace.cli.app", "worker", str(file), "--json",
        env=environ(HEADRACE_NATS_URL=url), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(60):
        said = json.loads(await child.stdout.readline())
    assert said == {"event": "serving", "tool": "work.mark", "version": "1"}
    return child


async def test_otp_s2_a_call_whose_worker_dies_is_made_again_by_another(
    connect_broker: Connect, nats_server: NatsServer, tmp_path: Path
) -> None:
    """Two workers; the one that has the call is killed with -9: the attempt ends as `tool_timeout` and the next one
    succeeds at the other. With no worker left the step fails as `tool_unavailable`, at once."""
    broker, folder = await connect_broker("engine"), tmp_path / "marks"
    folder.mkdir()
    (tmp_path / "my_tools.py").write_text(MODULE)
    async with (
        running_scheduler(broker),
        running(ToolRegistry, broker, "t", config=RegistryConfig(), builtin=()),
        running(build_executor, await connect_broker("e"), "e", config=ExecutorConfig(data_dir=tmp_path)) as executor,
    ):
        children = [await worker_process(nats_server.url, tmp_path / "my_tools.py") for _ in range(2)]
        try:
            await until(lambda: executor._parts.catalogue.knows("default", "work.mark"), what="the catalogue")
            await put(broker, PIPELINE)
            await start(broker, "marks", "r1", folder=str(folder), attempts=3)
            await until(lambda: list(folder.iterdir()), within_s=20, what="a call")
            victim = int(next(folder.iterdir()).name)
            os.kill(victim, signal.SIGKILL)
            (survivor,) = [child for child in children if child.pid != victim]
            await until(lambda: (folder / str(survivor.pid)).exists(), within_s=30, what="the call at the other")
            survivor.send_signal(signal.SIGTERM)  # takes nothing more, and finishes what it has
            (folder / "go").touch()
            async with asyncio.timeout(30):
                assert await survivor.wait() == 0
            end = await finished(broker, "r1", within_s=30)
        finally:
            for child in children:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
    assert isinstance(end, ev.RunFailed), end
    assert (end.path, end.failure.code) == ("b", "tool_unavailable")
    messages = await history(broker, "r1")
    failed = [one.data.failure.code for one in messages if isinstance(one, ev.AttemptFailed) and one.stepid == "a"]
    assert failed == ["tool_timeout"]
    (completed,) = [event for event in events_of(messages, ev.StepCompleted) if event.path == "a"]
    assert completed.attempt == 2


async def test_the_example_runs(connect_broker: Connect, nats_server: NatsServer, tmp_path: Path) -> None:
    """`examples/words.yaml` with the tools of `examples/tools/words.py`."""
    broker = await connect_broker("engine")
    async with (
        running_scheduler(broker),
        running(ToolRegistry, broker, "t", config=RegistryConfig(), builtin=()),
        running(build_executor, await connect_broker("e"), "e", config=ExecutorConfig(data_dir=tmp_path)),
    ):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace.cli.app", "worker", "examples/tools/words.py", cwd=ROOT,
            env=environ(HEADRACE_NATS_URL=nats_server.url), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert child.stdout is not None
            async with asyncio.timeout(60):
                assert await child.stdout.readline() == b"serving words.frequent 1\n"
            await put(broker, (ROOT / "examples/words.yaml").read_text())
            await start(broker, "words", "r1")
            given = outputs(await finished(broker, "r1", within_s=30))
        finally:
            child.kill()
            await child.wait()
    assert given["frequent"] == [{"word": "the", "times": 3}, {"word": "and", "times": 2}]
    assert given["longest"] == "quick"
