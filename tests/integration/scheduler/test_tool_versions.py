"""P12: a run calls the versions of tools that were the newest when it began, or those that its steps name."""

from pathlib import Path
from typing import Any

from headrace.client.values import resolve
from headrace.contracts import events as ev
from headrace.contracts import subjects
from headrace.contracts.codec import encode
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace.runtime.jetstream import JetStreamBroker
from headrace.runtime.streams import migrate
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import Surroundings, build_executor
from headrace_step_executor.tools.call import ToolCall
from tests.conftest import until
from tests.engine import events_of, finished, history, put, running, running_scheduler, start

TOOL = "work.which"
CHILD = "pipeline: inner\noutputs: {n: '${{ steps.a.output.n }}'}\nsteps: {a: {tool: work.which}}\n"
TEXT = """
pipeline: p
outputs:
  before: ${{ steps.before.output.n }}
  after: ${{ steps.after.output.n }}
  one: ${{ steps.one.output.n }}
  child: ${{ steps.child.output.n }}
steps:
  before: {tool: work.which}
  go: {needs: [before], signal: {name: go}}
  after: {needs: [go], tool: work.which}
  one: {needs: [go], tool: work.which, version: "1"}
  child: {needs: [go], pipeline: inner}
"""


def spec(version: str) -> ev.ToolSpec:
    """A version: its own number is the default of its argument."""
    number = {"type": "integer", "default": int(version)}
    args = {"type": "object", "properties": {"n": number}, "additionalProperties": False}
    return ev.ToolSpec(tool=TOOL, version=version, description="Says which it is.", args=args)


async def say(broker: JetStreamBroker, kind: Any, data: Any) -> None:
    """As the tool registry would."""
    name = f"{kind.__name__}-{data.version}"
    message = kind(specversion="1.0", id=name, source="s", time="t", schemaver=1, tenant="default", data=data)
    await broker.append(subjects.tool("default", "work-which"), encode(message), msg_id=name)


async def which(call: ToolCall) -> Any:
    """Its arguments."""
    return dict(call.args)


async def test_promise_p12_a_run_uses_the_versions_pinned_at_its_start(broker: JetStreamBroker, tmp_path: Path) -> None:
    """A newer version comes and the old one is disabled in the middle of the run: it goes on with what it began with,
    in every process. The next run gets the newer one. A step that names a version gets that; a child begins later."""
    around = {"config": ExecutorConfig(data_dir=tmp_path), "around": Surroundings(tools={TOOL: which})}
    await migrate(broker)
    await say(broker, ev.ToolRegistered, spec("1"))
    async with running_scheduler(broker), running(build_executor, broker, "e1", **around):
        for text in (CHILD, TEXT):
            await put(broker, text, catalogue={**BUILTIN_TOOLS, TOOL: spec("1")})
        await start(broker, "p", "r")

        async def waits() -> bool:
            return bool(events_of(await history(broker, "r"), ev.SignalAwaited))

        await until(waits, within_s=20, what="the signal")
    await say(broker, ev.ToolRegistered, spec("2"))
    disabled = ev.ToolName(tool=TOOL, version="1", reason="old")
    await say(broker, ev.ToolDisabled, disabled)
    async with running_scheduler(broker, "s2"), running(build_executor, broker, "e2", **around):
        found = {}
        await start(broker, "p", "later")
        for run in ("r", "later"):
            await broker.append(subjects.command("default", "run-signal"), _go(run), msg_id=f"go-{run}")
            end = await finished(broker, run)
            assert isinstance(end, ev.RunCompleted), end
            found[run] = await resolve(broker, "default", end.outputs)
        (created,) = events_of(await history(broker, "r"), ev.RunCreated)
    assert created.tools == {TOOL: "1"}
    assert found["r"] == {"before": 1, "after": 1, "one": 1, "child": 2}
    assert found["later"] == {"before": 2, "after": 2, "one": 1, "child": 2}


def _go(run: str) -> bytes:
    return b'{"runid":"%s","name":"go"}' % run.encode()


async def test_a_version_that_nobody_registered_is_unavailable(broker: JetStreamBroker, tmp_path: Path) -> None:
    """By its name and version; never another one in its place."""
    around = {"config": ExecutorConfig(data_dir=tmp_path), "around": Surroundings(tools={TOOL: which})}
    await migrate(broker)
    await say(broker, ev.ToolRegistered, spec("1"))
    text = "pipeline: q\nsteps: {a: {tool: work.which, version: '3', retry: {attempts: 1}}}\n"
    async with running_scheduler(broker), running(build_executor, broker, "e1", **around):
        await put(broker, text, catalogue={**BUILTIN_TOOLS, TOOL: spec("1")})
        await start(broker, "q", "r")
        end = await finished(broker, "r")
    assert isinstance(end, ev.RunFailed)
    assert end.failure.code == "tool_unavailable" and "version '3' of the tool 'work.which'" in end.failure.message
