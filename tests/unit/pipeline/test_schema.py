"""The table is the language: every key in it is checked, published, and does something."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from headrace.pipeline.bundle import load_text
from headrace.pipeline.expressions import compile_template, evaluate, render
from headrace.pipeline.plan import (
    Approval,
    Block,
    Budget,
    Cache,
    ConcurrencyKey,
    CronTrigger,
    Fallback,
    Loop,
    Node,
    Plan,
    Signal,
)
from headrace.pipeline.problems import RefusedDefinitionError
from headrace.pipeline.published_schema import json_schema
from headrace.pipeline.schema import AT_LEAST_ONE, EXACTLY_ONE, KINDS, SCHEMA

EXAMPLES = Path(__file__).parents[3] / "examples"
MINUTE = 60_000


def plan(top: str = "inputs: {a: {type: integer}}", step: str = "wait: {for: 1s}", **more: str) -> Plan:
    """The plan of a file with one step `s`, written by its body, and others."""
    others = "".join(f"  {name}: {{{body}}}\n" for name, body in more.items())
    return load_text(f"pipeline: p\n{top}\nsteps:\n  s: {{{step}}}\n{others}", pending={}).plan


def node(step: str, top: str = "", **more: str) -> Node:
    return plan(top or INPUTS, step, **more).by_id["s"]


def rendered(step: str, top: str = "") -> Any:
    return render(node(step, top or INPUTS).spec, {"inputs": {"a": 1}})


READ = "tool: fs.read, with: {path: a}"
ASK = "llm: {prompt: hi}"
EACH = "foreach: [1], wait: {for: 1s}"
EFFECTS: dict[tuple[str, str], Callable[[], bool]] = {
    ("pipeline", "pipeline"): lambda: plan().pipeline == "p",
    ("pipeline", "inputs"): lambda: plan("inputs: {a: {type: string}}").inputs_schema["required"] == ["a"],
    ("pipeline", "outputs"): lambda: set(plan("outputs: {o: '${{ steps.s.status }}'}").outputs) == {"o"},
    ("pipeline", "triggers"): lambda: len(plan("triggers: [{event: e}]").triggers) == 1,
    ("pipeline", "defaults"): lambda: node(READ, "defaults: {timeout: 1m}").timeout_ms == MINUTE,
    ("pipeline", "limits"): lambda: plan("limits: {deadline: 1m}").deadline_ms == MINUTE,
    ("pipeline", "workspace"): lambda: plan("workspace: true").workspace and not plan().workspace,
    ("pipeline", "vars"): lambda: plan("vars: {v: [1]}").vars == {"v": [1]},
    ("pipeline", "steps"): lambda: len(plan(b=READ).nodes) == 2,
    ("pipeline", "labels"): lambda: plan("labels: {team: core}").labels == {"team": "core"},
    ("trigger", "event"): lambda: plan("triggers: [{event: e}]").triggers[0].event == "e",
    ("trigger", "when"): lambda: plan("triggers: [{event: e, when: event.data.x}]").triggers[0].when == "event.data.x",
    ("trigger", "inputs"): lambda: (
        plan("inputs: {a: {}}\ntriggers: [{event: e, inputs: {a: 1}}]").triggers[0].inputs == {"a": 1}
    ),
    ("defaults", "timeout"): lambda: node(READ, "defaults: {timeout: 1m}").timeout_ms == MINUTE,
    ("defaults", "deadline"): lambda: node(READ, "defaults: {deadline: 9m}").deadline_ms == 9 * MINUTE,
    ("defaults", "retry"): lambda: node(READ, "defaults: {retry: {attempts: 7}}").retry.attempts == 7,
    ("defaults", "model"): lambda: rendered(ASK, "defaults: {model: script/x}")["model"] == "script/x",
    ("limits", "deadline"): lambda: plan("limits: {deadline: 1m}").deadline_ms == MINUTE,
    ("limits", "max_parallel"): lambda: plan("limits: {max_parallel: 3}").max_parallel == 3,
    ("retry", "attempts"): lambda: node(f"{READ}, retry: {{attempts: 2}}").retry.attempts == 2,
    ("retry", "initial"): lambda: node(f"{READ}, retry: {{initial: 2s}}").retry.initial_ms == 2000,
    ("retry", "max"): lambda: node(f"{READ}, retry: {{max: 9s}}").retry.max_ms == 9000,
    ("retry", "on"): lambda: node(f"{READ}, retry: {{on: [timeout]}}").retry.on == ("timeout",),
    ("step", "llm"): lambda: node(ASK).kind == "llm",
    ("step", "tool"): lambda: node(READ).tool == "fs.read",
    ("step", "transform"): lambda: rendered("transform: {x: '${{ 1 + 1 }}'}") == {"x": 2},
    ("step", "pipeline"): lambda: str(node("pipeline: other").child).find("other") > 0,
    ("step", "wait"): lambda: node("wait: {for: 1s}").kind == "wait",
    ("step", "with"): lambda: rendered(READ) == {"path": "a"},
    ("step", "needs"): lambda: node(f"{READ}, needs: b", b=READ).needs == (0,),
    ("step", "when"): lambda: node(f"{READ}, when: 'false'").when is not None,
    ("step", "foreach"): lambda: evaluate(_items("foreach: [1, 2], wait: {for: 1s}"), {}) == [1, 2],
    ("step", "as"): lambda: node(f"{EACH}, as: x").foreach.alias == "x",  # type: ignore[union-attr]  # given
    ("step", "max_parallel"): lambda: node(f"{EACH}, max_parallel: 2").foreach.max_parallel == 2,  # type: ignore[union-attr]  # given
    ("step", "on_item_error"): lambda: node(f"{EACH}, on_item_error: continue").foreach.continue_on_error,  # type: ignore[union-attr]  # given
    ("step", "timeout"): lambda: node(f"{READ}, timeout: 1m").timeout_ms == MINUTE,
    ("step", "deadline"): lambda: node(f"{READ}, deadline: 3m").deadline_ms == 3 * MINUTE,
    ("step", "retry"): lambda: node(f"{READ}, retry: {{attempts: 2}}").retry.attempts == 2,
    ("step", "on_error"): lambda: node(f"{READ}, on_error: continue").on_error_continue,
    ("step", "effect"): lambda: node(f"{READ}, effect: at_most_once").effect == "at_most_once",
    ("step", "on_unknown"): lambda: node(f"{READ}, on_unknown: retry").on_unknown == "retry",
    ("step", "artifacts"): lambda: node(f"{READ}, artifacts: ['*.md']").artifacts == ("*.md",),
    ("step", "priority"): lambda: node(f"{READ}, priority: 5").priority == 5,
    ("step", "labels"): lambda: node(f"{READ}, labels: {{a: b}}").labels == {"a": "b"},
    ("llm", "model"): lambda: rendered("llm: {prompt: x, model: echo/b}")["model"] == "echo/b",
    ("llm", "prompt"): lambda: rendered("llm: {prompt: '${{ 1 }} x'}")["prompt"] == "1 x",
    ("llm", "system"): lambda: rendered("llm: {prompt: x, system: s}")["system"] == "s",
    ("llm", "messages"): lambda: len(rendered("llm: {messages: [{role: user, content: x}]}")["messages"]) == 1,
    ("llm", "max_tokens"): lambda: rendered("llm: {prompt: x, max_tokens: 5}")["max_tokens"] == 5,
    ("llm", "temperature"): lambda: rendered("llm: {prompt: x, temperature: 0.5}")["temperature"] == 0.5,
    ("llm", "options"): lambda: rendered("llm: {prompt: x, options: {topK: 1}}")["options"] == {"topK": 1},
    ("message", "role"): lambda: _message()["role"] == "user",
    ("message", "content"): lambda: _message()["content"] == "x",
    ("wait", "for"): lambda: rendered("wait: {for: 2s}") == {"for": "2s"},
    ("pipeline", "retain"): lambda: plan("workspace: true\nretain: 2d").retain_ms == 2 * 86_400_000,
    ("trigger", "cron"): lambda: cron().cron == "0 6 * * 1-5",
    ("trigger", "timezone"): lambda: cron(", timezone: Europe/Berlin").timezone == "Europe/Berlin",
    ("trigger", "catch_up"): lambda: cron(", catch_up: all").catch_up == "all",
    ("limits", "budget"): lambda: plan("limits: {budget: {usd: 5}}").budget == Budget(usd_micros=5_000_000),
    ("limits", "concurrency"): lambda: concurrency().max == 1,
    ("budget", "usd"): lambda: node("llm: {prompt: x}, budget: {usd: 0.25}").budget == Budget(usd_micros=250_000),
    ("budget", "tokens"): lambda: node("llm: {prompt: x}, budget: {tokens: 2M}").budget == Budget(tokens=2_000_000),
    ("budget", "on_exceed"): lambda: (
        node("llm: {prompt: x}, budget: {tokens: 1, on_exceed: fail}").budget == Budget(tokens=1, pause=False)
    ),
    ("concurrency", "key"): lambda: render(concurrency().key, {"inputs": {"a": 1}}) == "k1",
    ("concurrency", "max"): lambda: concurrency(", max: 3").max == 3,
    ("concurrency", "on_excess"): lambda: concurrency(", on_excess: reject").on_excess == "reject",
    ("step", "steps"): lambda: sorted(plan(step=GROUP).by_id) == ["s", "s/x"],
    ("step", "switch"): lambda: sorted(plan(step=SWITCH).by_id) == ["s", "s:0/x", "s:1/x"],
    ("step", "signal"): lambda: node("signal: {name: go}").kind == "signal",
    ("step", "approval"): lambda: node("approval: {message: x}").kind == "approval",
    ("step", "emit"): lambda: node("emit: {name: done}").kind == "emit",
    ("step", "version"): lambda: node(f"{READ}, version: 1.2.0").version == "1.2.0",
    ("step", "outputs"): lambda: rendered_output(plan(step=GROUP).blocks[1]) == 3,
    ("step", "while"): lambda: not loop("while: carry < 3").is_until,
    ("step", "until"): lambda: loop("until: carry > 3").is_until,
    ("step", "max_iterations"): lambda: loop("until: carry > 3").max_iterations == 5,
    ("step", "carry"): lambda: render(loop("until: carry > 3, carry: 7").start, {}) == 7,  # type: ignore[arg-type]  # given
    ("step", "on_limit"): lambda: loop("until: carry > 3, on_limit: ok").ok_on_limit,
    ("step", "fallback"): lambda: node(f"{READ}, fallback: b", b=READ).fallback == Fallback(node=0),
    ("step", "cache"): lambda: node("tool: x, cache: {key: k, ttl: 1m}").cache is not None,
    ("step", "compensate"): lambda: node(f"{READ}, compensate: b", b=READ).compensate == 0,
    ("step", "queue"): lambda: node(f"{READ}, queue: gpu").queue == "tool-ws-gpu",
    ("step", "budget"): lambda: node("llm: {prompt: x}, budget: {usd: 1}").budget is not None,
    ("case", "when"): lambda: evaluate(plan(step=SWITCH).blocks[1].when, {"inputs": {"a": 1}}) is True,  # type: ignore[arg-type]  # given
    ("case", "steps"): lambda: plan(step=SWITCH).blocks[1].nodes == (1,),
    ("case", "outputs"): lambda: rendered_output(plan(step=SWITCH).blocks[1]) == 1,
    ("case", "default"): lambda: plan(step=SWITCH).blocks[2].when is None,
    ("default", "steps"): lambda: plan(step=SWITCH).blocks[2].nodes == (2,),
    ("default", "outputs"): lambda: rendered_output(plan(step=SWITCH).blocks[2]) == 2,
    ("signal", "name"): lambda: signal().name == "go",
    ("signal", "schema"): lambda: signal(", schema: {type: string}").schema == {"type": "string"},
    ("signal", "timeout"): lambda: signal(", timeout: 1m").timeout_ms == MINUTE,
    ("signal", "on_timeout"): lambda: signal(", on_timeout: skip").skip_on_timeout,
    ("approval", "message"): lambda: rendered("approval: {message: 'ok ${{ inputs.a }}'}") == {"message": "ok 1"},
    ("approval", "by"): lambda: approval(", by: [lead]").by == ("lead",),
    ("approval", "timeout"): lambda: approval(", timeout: 1m").timeout_ms == MINUTE,
    ("approval", "on_timeout"): lambda: approval(", on_timeout: skip").skip_on_timeout,
    ("emit", "name"): lambda: node("emit: {name: done}").emit == "done",
    ("emit", "data"): lambda: rendered("emit: {name: done, data: ['${{ inputs.a }}']}") == {"data": [1]},
    ("cache", "key"): lambda: render(cache().key, {"inputs": {"a": 1}}) == ["x", 1],
    ("cache", "ttl"): lambda: cache().ttl_ms == MINUTE,
    ("operations", "from"): lambda: operated("") == [3, 1, 1, 2],
    ("operations", "join"): lambda: (
        operated(", join: {with: [{k: 2, v: a}], on: k}", "[{k: 1}, {k: 2}]")
        == [{"k": 2, "joined": [{"k": 2, "v": "a"}]}]
    ),
    ("operations", "where"): lambda: operated(", where: item > 1 && index < 3") == [3],
    ("operations", "select"): lambda: operated(", select: {x: '${{ item + index }}'}")[1] == {"x": 2},
    ("operations", "unique"): lambda: operated(", unique: ''") == [3, 1, 2],
    ("operations", "group_by"): lambda: operated(", group_by: ''")[1] == {"key": 1, "items": [1, 1]},
    ("operations", "aggregate"): lambda: operated(", aggregate: {n: {sum: ''}}") == {"n": 7},
    ("operations", "sort_by"): lambda: operated(", sort_by: '-'") == [3, 2, 1, 1],
    ("operations", "limit"): lambda: operated(", limit: '${{ inputs.a }}'") == [3],
    ("join", "with"): lambda: joined("")[0]["joined"] == [{"k": 1}],
    ("join", "on"): lambda: len(joined("")) == 1,
    ("join", "as"): lambda: joined(", as: other")[0]["other"] == [{"k": 1}],
    ("join", "kind"): lambda: [len(item["joined"]) for item in joined(", kind: left")] == [1, 0],
    **{
        ("aggregate", function): lambda function=function, value=value: (
            operated(f", aggregate: {{n: {{{function}: ''}}}}") == {"n": value}
        )
        for function, value in {"count": 4, "sum": 7, "avg": 1.75, "min": 1, "max": 3}.items()
    },
    ("llm", "tools"): lambda: asked("tools: [fs.read]")["tools"] == ["fs.read"],
    ("llm", "max_rounds"): lambda: asked("tools: [fs.read], max_rounds: 3")["max_rounds"] == 3,
    ("llm", "approve"): lambda: asked("tools: [fs.read], approve: [exec]")["approve"] == ["exec"],
    ("llm", "output_schema"): lambda: asked("output_schema: {type: object}")["output_schema"] == {"type": "object"},
    ("llm", "repair"): lambda: asked("output_schema: {type: object}, repair: 1")["repair"] == 1,
    ("llm", "session"): lambda: asked("session: {id: x}")["session"] == {"id": "x"},
    ("llm", "stream"): lambda: asked("stream: false")["stream"] is False,
    ("llm", "allow_unpriced"): lambda: asked("allow_unpriced: true")["allow_unpriced"] is True,
    ("session", "id"): lambda: asked("session: {id: 's${{ inputs.a }}'}")["session"]["id"] == "s1",
    ("session", "create"): lambda: asked("session: {id: x, create: true}")["session"]["create"] is True,
    ("session", "max_turns"): lambda: asked("session: {id: x, max_turns: 9}")["session"]["max_turns"] == 9,
    ("session", "ttl"): lambda: asked("session: {id: x, ttl: 1d}")["session"]["ttl"] == "1d",
    ("session", "include"): lambda: asked("session: {id: x, include: last 3}")["session"]["include"] == "last 3",
    ("wait", "until"): lambda: list(rendered("wait: {until: '2026-01-31T06:00:00Z'}")) == ["until"],
}
GROUP = "steps: {x: {transform: '${{ 3 }}'}}, outputs: {o: '${{ steps.x.output }}'}"
SWITCH = (
    "switch: [{when: inputs.a == 1, steps: {x: {wait: {for: 1s}}}, outputs: {o: 1}}, "
    "{default: {steps: {x: {wait: {for: 1s}}}, outputs: {o: 2}}}]"
)
INPUTS = "inputs: {a: {type: integer}}"
WITHOUT_EFFECT = {("pipeline", "description"), ("step", "description")}
"""For people only."""


def cron(more: str = "") -> CronTrigger:
    return plan(f"triggers: [{{cron: 0 6 * * 1-5{more}}}]").crons[0]


def concurrency(more: str = "") -> ConcurrencyKey:
    found = plan(f"{INPUTS}\nlimits: {{concurrency: {{key: 'k${{{{ inputs.a }}}}'{more}}}}}").concurrency
    assert found is not None
    return found


def rendered_output(block: Block) -> Any:
    return render(block.outputs["o"], {"steps.x.output": 3})


def loop(more: str) -> Loop:
    found = node(f"{READ}, {more}, max_iterations: 5").loop
    assert found is not None
    return found


def signal(more: str = "") -> Signal:
    found = node(f"signal: {{name: go{more}}}").signal
    assert found is not None
    return found


def approval(more: str = "") -> Approval:
    found = node(f"approval: {{message: x{more}}}").approval
    assert found is not None
    return found


def cache() -> Cache:
    found = node("tool: x, cache: {key: [x, '${{ inputs.a }}'], ttl: 1m}", INPUTS).cache
    assert found is not None
    return found


def operated(more: str, items: str = "[3, 1, 1, 2]") -> Any:
    """What a transform gives, here and where an executor compiles it again."""
    spec = node(f"transform: {{from: {items}{more}}}", INPUTS).spec
    value = render(spec, {"inputs": {"a": 1}})
    assert render(compile_template(spec.source), {"inputs": {"a": 1}}) == value
    return value


def joined(more: str) -> Any:
    return operated(f", join: {{with: [{{k: 1}}], on: k{more}}}", "[{k: 1}, {k: 2}]")


def asked(more: str) -> Any:
    return rendered(f"llm: {{prompt: x, {more}}}")


def _items(step: str) -> Any:
    foreach = node(step).foreach
    assert foreach is not None
    return foreach.items


def _message() -> Any:
    return rendered("llm: {messages: [{role: user, content: x}]}")["messages"][0]


def test_otp_n13_every_key_of_the_table_has_an_effect_or_is_named() -> None:
    """A key that is accepted and ignored would be a lie; a test for a key that is gone would be dead."""
    keys = {(row.where, row.key) for row in SCHEMA}
    assert keys == set(EFFECTS) | WITHOUT_EFFECT
    assert not set(EFFECTS) & WITHOUT_EFFECT


@pytest.mark.parametrize("key", list(EFFECTS), ids=[".".join(key) for key in EFFECTS])
def test_otp_n13_a_key_does_what_it_says(key: tuple[str, str]) -> None:
    """The plan differs by it."""
    assert EFFECTS[key]()


def test_the_table_is_consistent() -> None:
    """No key twice in a record; kinds, needs and records name what exists."""
    keys = [(row.where, row.key) for row in SCHEMA]
    places = {row.where for row in SCHEMA}
    assert len(keys) == len(set(keys))
    for row in SCHEMA:
        assert set(row.kinds) <= set(KINDS), row
        assert all((row.where, other) in keys for other in (*row.needs, *row.excludes)), row
        assert row.help.endswith("."), row
        for shape in (row.shape, row.shape.item):
            assert shape is None or not shape.record or shape.record in places, row
    for where, choices in {**EXACTLY_ONE, **AT_LEAST_ONE}.items():
        assert all((where, choice) in keys for choice in choices)


def test_the_published_schema_is_one_and_accepts_the_examples() -> None:
    """JSON Schema 2020-12; references to the meta schema need no network."""
    schema = json_schema()
    jsonschema_rs.meta.validate(schema)
    checker = jsonschema_rs.Draft202012Validator(schema)
    for path in EXAMPLES.glob("*.yaml"):
        document = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        assert [str(error) for error in checker.iter_errors(document)] == [], path


GOOD = {"pipeline": "p", "steps": {"a": {"wait": {"for": "1s"}}}}
REFUSED_BY_BOTH: list[dict[str, Any]] = [
    {"steps": GOOD["steps"]},
    {"pipeline": "p"},
    GOOD | {"nope": 1},
    GOOD | {"pipeline": "Bad"},
    GOOD | {"workspace": "no"},
    GOOD | {"steps": {}},
    GOOD | {"steps": {"a": {}}},
    GOOD | {"steps": {"A": {"wait": {"for": "1s"}}}},
    GOOD | {"steps": {"a": {"wait": {"for": "1s"}, "as": "x"}}},
    GOOD | {"steps": {"a": {"wait": {"for": "1s", "until": "x"}}}},
    GOOD | {"steps": {"a": {"llm": {"prompt": "x", "temperature": 3}}}},
    GOOD | {"steps": {"a": {"tool": "x", "wait": {"for": "1s"}}}},
    GOOD | {"steps": {"a": {"tool": "x", "effect": "maybe"}}},
    GOOD | {"steps": {"a": {"tool": "x", "retry": {"attempts": 0}}}},
    GOOD | {"limits": {"max_parallel": 0}},
    GOOD | {"vars": {"Bad Key": 1}},
]


@pytest.mark.parametrize("document", REFUSED_BY_BOTH, ids=range(len(REFUSED_BY_BOTH)))
def test_validation_and_the_published_schema_agree(document: dict[str, Any]) -> None:
    """They come from the same rows; what one refuses by shape, the other does."""
    checker = jsonschema_rs.Draft202012Validator(json_schema())
    assert checker.is_valid(GOOD)
    assert not checker.is_valid(document)
    with pytest.raises(RefusedDefinitionError):
        load_text(yaml.safe_dump(document))
