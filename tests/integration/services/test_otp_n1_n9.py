"""N1: runs have identities of their own. N2: a run keeps its definition. N9: what one step gives every other takes."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Connect, until
from tests.engine import events_of, finished, history, outcome, put, running, running_scheduler, start

from headrace.client.values import resolve
from headrace.contracts import events as ev
from headrace.contracts import subjects
from headrace.contracts.codec import encode
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace.runtime.eventlog import Broker
from headrace.runtime.streams import migrate
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import Surroundings, build_executor
from headrace_step_executor.tools.call import ToolCall

ECHO = ev.ToolSpec(tool="work.echo", version="1", description="Gives back what it got.", args={"type": "object"})
CATALOGUE = {**BUILTIN_TOOLS, "work.echo": ECHO}
RUNS = 50


class Calls:
    """How often each step was called."""

    def __init__(self) -> None:
        self.by_key: Counter[str] = Counter()

    async def echo(self, given: ToolCall) -> Any:
        """Its arguments."""
        self.by_key[given.key] += 1
        await asyncio.sleep(0)
        return given.args

    def executor(self, folder: Path) -> dict[str, Any]:
        """For `running`."""
        around = Surroundings(tools={"work.echo": self.echo})
        return {"config": ExecutorConfig(data_dir=folder), "around": around}


async def register(broker: Broker) -> None:
    """As the tool registry would."""

    message = ev.ToolRegistered(
        specversion="1.0", id="echo", source="s", time="t", schemaver=1, tenant="default", data=ECHO
    )
    await broker.append(subjects.tool("default", ECHO.tool), encode(message), msg_id="echo")


async def result(broker: Broker, run: str, *, within_s: float = 30) -> Any:
    """The outputs of a run that must complete, wherever they are held."""
    end = await finished(broker, run, within_s=within_s)
    assert isinstance(end, ev.RunCompleted), end
    return await resolve(broker, "default", end.outputs)


SQUARE = """
pipeline: square
inputs: {n: {type: integer}}
outputs: {n: "${{ steps.again.output.n }}", all: "${{ steps.each.output.items.map(i, i.n) }}"}
steps:
  first: {tool: work.echo, with: {n: "${{ inputs.n * inputs.n }}"}}
  each: {foreach: "${{ [1, 2, 3] }}", tool: work.echo, with: {n: "${{ item * inputs.n }}"}}
  again: {needs: [each], tool: work.echo, with: {n: "${{ steps.first.output.n + 1 }}"}}
"""


async def test_otp_n1_fifty_runs_of_one_pipeline_have_nothing_to_do_with_each_other(
    connect_broker: Connect, tmp_path: Path
) -> None:
    """Started at once with fifty inputs, without ids: fifty ids, each output of its own input alone. The same again
    executes every step again; only a start under an id that exists is no other run."""
    broker, calls = await connect_broker("engine"), Calls()
    await migrate(broker)
    await register(broker)
    async with running_scheduler(broker), running(build_executor, broker, "e1", **calls.executor(tmp_path)) as executor:
        await until(lambda: executor._parts.catalogue.knows("default", "work.echo"), what="the catalogue")
        await put(broker, SQUARE, catalogue=CATALOGUE)

        async def ask(command: str, n: int, **more: Any) -> str:
            body = json.dumps({"id": command, "specversion": "1.0", "data": {
                "pipeline": "square", "inputs": {"n": n}, **more}}).encode()  # fmt: skip
            await broker.append("hr.cmd.default.run-start", body, msg_id=command)
            answer = await outcome(broker, command, within_s=30)
            assert isinstance(answer, ev.CommandAccepted)
            return answer.data.runid

        for round_ in range(2):
            runs = await asyncio.gather(*(ask(f"c{round_}-{n}", n) for n in range(RUNS)))
            assert len(set(runs)) == RUNS
            for n, run in enumerate(runs):
                assert await result(broker, run) == {"n": n * n + 1, "all": [n, 2 * n, 3 * n]}
            assert sum(calls.by_key.values()) == (round_ + 1) * RUNS * 5
        assert set(calls.by_key.values()) == {1}
        run = await ask("named", 7, runid="seven")
        assert await ask("named-again", 7, runid="seven") == run == "seven"
        await result(broker, "seven")
        assert sum(calls.by_key.values()) == 2 * RUNS * 5 + 5


async def test_otp_n2_an_edited_pipeline_does_not_change_a_run_that_has_begun(
    connect_broker: Connect, tmp_path: Path
) -> None:
    """Between a death of every process and their return another version is registered under the name: the run goes on
    with the digest that its creation carries, the next start gets the new one."""
    text = "pipeline: p\noutputs: {v: '${{ steps.b.output }}'}\nsteps:\n  a: {wait: {for: 2s}}\n"
    old, new = (text + f"  b: {{needs: [a], transform: '${{{{ {value} }}}}'}}\n" for value in ("1", "2"))
    broker = await connect_broker("first")
    async with running_scheduler(broker):
        pinned = await put(broker, old)
        await start(broker, "p", "begun")
    async with running_scheduler(await connect_broker("second"), "s2"):
        newest = await put(broker, new)
        assert newest != pinned
        await start(broker, "p", "later")
        assert await result(broker, "begun") == {"v": 1}
        assert await result(broker, "later") == {"v": 2}
    for run, digest in (("begun", pinned), ("later", newest)):
        messages = await history(broker, run)
        (created,) = events_of(messages, ev.RunCreated)
        assert created.defdigest == digest
        assert {one.defdigest for one in messages if isinstance(one, ev.RunDecided)} == {digest}


# --- N9 --------------------------------------------------------------------------------------------------------------

TAKER = "pipeline: taker\ninputs: {v: {}}\noutputs: {v: '${{ inputs.v }}'}\nsteps:\n  n: {transform: {done: true}}\n"
PRODUCERS = {
    "tool": "{tool: work.echo, with: {v: '${{ inputs.v }}'}}",
    "transform": "{transform: {v: '${{ inputs.v }}', list: '${{ [inputs.v, inputs.v] }}'}}",
    "llm": "{llm: {prompt: '${{ inputs.text }}'}}",
    "map": "{foreach: '${{ [inputs.v, null, 1.0] }}', tool: work.echo, with: {item: '${{ item }}'}}",
    "child": "{pipeline: taker, with: {v: '${{ inputs.v }}'}}",
    "nap": "{wait: {for: 1ms}}",
}
"""A step of every kind of this release."""
CONSUMERS = {
    "as_expression": "{transform: '${{ steps.X.output }}'}",
    "as_field": "{transform: {kept: '${{ steps.X.output }}'}}",
    "as_argument": "{tool: work.echo, with: {kept: '${{ steps.X.output }}'}}",
    "as_prompt": "{llm: {prompt: 'size ${{ string(steps.X.output == steps.X.output) }}'}}",
    "as_items": "{foreach: '${{ [steps.X.output, steps.X.output] }}', tool: work.echo, with: {kept: '${{ item }}'}}",
    "as_condition": "{when: 'steps.X.output == steps.X.output', transform: {kept: true}}",
    "as_input": "{pipeline: taker, with: {v: '${{ steps.X.output }}'}}",
}
TRICKY: dict[str, Any] = {
    "float": 1.0, "int": 2**63 - 1, "negative": -(2**63), "text": "zeile\n\"'${{ no }}'\u2028😀", "none": None,
    "empty": {}, "list": [[], [None, False, 0, ""]], "deep": {"a": {"b": [{"c": 0.1}]}},
}  # fmt: skip


def matrix(producers: dict[str, str], consumers: dict[str, str]) -> str:
    """Every producer, a pause in which everything dies, and every consumer of every producer; outputs are all of it."""
    steps = {f"p_{kind}": step for kind, step in producers.items()}
    steps["gate"] = f"{{needs: [{', '.join(steps)}], wait: {{for: 2s}}}}"
    for kind in producers:
        for use, step in consumers.items():
            steps[f"{use}_{kind}"] = "{needs: [gate], " + step.replace("X", f"p_{kind}").removeprefix("{")
    lines = "".join(f"  {name}: {step}\n" for name, step in steps.items())
    outputs = "".join(f"  {name}: '${{{{ steps.{name}.output }}}}'\n" for name in steps if name != "gate")
    head = "pipeline: matrix\ninputs: {v: {}, text: {type: string}}\nlimits: {max_parallel: 64}\n"
    return f"{head}outputs:\n{outputs}steps:\n{lines}"


@pytest.mark.parametrize("padding", [0, 70_000], ids=["inline", "by reference"])
async def test_otp_n9_what_every_kind_of_step_gives_survives_and_feeds_every_kind(
    connect_broker: Connect, tmp_path: Path, padding: int
) -> None:
    """Given, stored, read again by another scheduler and another executor without snapshots, and taken: equal in every
    byte of its JSON, small and large."""
    value = TRICKY | {"padding": "x" * padding}
    broker, calls = await connect_broker("first"), Calls()
    await migrate(broker)
    await register(broker)
    text = "wörter\n" * (1 + padding // 8)
    async with running_scheduler(broker), running(build_executor, broker, "e1", **calls.executor(tmp_path)) as executor:
        await until(lambda: executor._parts.catalogue.knows("default", "work.echo"), what="the catalogue")
        for each in (TAKER, matrix(PRODUCERS, CONSUMERS)):
            await put(broker, each, catalogue=CATALOGUE)
        await start(broker, "matrix", "m", v=value, text=text)

        async def given() -> bool:
            ended = {event.path for event in events_of(await history(broker, "m"), ev.StepCompleted)}
            return {f"p_{kind}" for kind in PRODUCERS} <= ended

        await until(given, within_s=20, what="producers")
    again = await connect_broker("second")
    async with (
        running_scheduler(again, "s2"),
        running(build_executor, again, "e2", **calls.executor(tmp_path)),
    ):
        found = await result(again, "m", within_s=60)
    produced = {kind: found[f"p_{kind}"] for kind in PRODUCERS}
    assert produced["tool"] == {"v": value}
    assert produced["transform"] == {"v": value, "list": [value, value]}
    assert produced["llm"]["text"] == text
    assert produced["map"]["items"] == [{"item": value}, {"item": None}, {"item": 1.0}]
    assert produced["child"] == {"v": value}
    assert produced["nap"] is None
    for kind, output in produced.items():
        as_it_was = json.dumps(output, sort_keys=True)

        def same(taken: Any, as_it_was: str = as_it_was) -> bool:
            return json.dumps(taken, sort_keys=True) == as_it_was

        assert same(found[f"as_expression_{kind}"]), kind
        assert same(found[f"as_field_{kind}"]["kept"]), kind
        assert same(found[f"as_argument_{kind}"]["kept"]), kind
        assert found[f"as_prompt_{kind}"]["text"] == "size true", kind
        assert [same(item["kept"]) for item in found[f"as_items_{kind}"]["items"]] == [True, True], kind
        assert found[f"as_condition_{kind}"] == {"kept": True}, kind
        assert same(found[f"as_input_{kind}"]["v"]), kind
