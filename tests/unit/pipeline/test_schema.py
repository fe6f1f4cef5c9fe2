"""The table is the language: every key in it is checked, published, and does something."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from headrace.pipeline.bundle import load_text
from headrace.pipeline.expressions import evaluate, render
from headrace.pipeline.plan import Node, Plan
from headrace.pipeline.problems import RefusedDefinitionError
from headrace.pipeline.schema import EXACTLY_ONE, KINDS, SCHEMA, json_schema

EXAMPLES = Path(__file__).parents[3] / "examples"
MINUTE = 60_000


def plan(top: str = "", step: str = "wait: {for: 1s}", **more: str) -> Plan:
    """The plan of a file with one step `s`, written by its body, and others."""
    others = "".join(f"  {name}: {{{body}}}\n" for name, body in more.items())
    return load_text(f"pipeline: p\n{top}\nsteps:\n  s: {{{step}}}\n{others}").plan


def node(step: str, top: str = "", **more: str) -> Node:
    return plan(top, step, **more).by_id["s"]


def rendered(step: str, top: str = "") -> Any:
    return render(node(step, top).spec, {"inputs": {"a": 1}})


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
    ("trigger", "when"): lambda: plan("triggers: [{event: e, when: event.x}]").triggers[0].when == "event.x",
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
    ("llm", "model"): lambda: rendered("llm: {prompt: x, model: a/b}")["model"] == "a/b",
    ("llm", "prompt"): lambda: rendered("llm: {prompt: '${{ 1 }} x'}")["prompt"] == "1 x",
    ("llm", "system"): lambda: rendered("llm: {prompt: x, system: s}")["system"] == "s",
    ("llm", "messages"): lambda: len(rendered("llm: {messages: [{role: user, content: x}]}")["messages"]) == 1,
    ("llm", "max_tokens"): lambda: rendered("llm: {prompt: x, max_tokens: 5}")["max_tokens"] == 5,
    ("llm", "temperature"): lambda: rendered("llm: {prompt: x, temperature: 0.5}")["temperature"] == 0.5,
    ("llm", "options"): lambda: rendered("llm: {prompt: x, options: {topK: 1}}")["options"] == {"topK": 1},
    ("message", "role"): lambda: _message()["role"] == "user",
    ("message", "content"): lambda: _message()["content"] == "x",
    ("wait", "for"): lambda: rendered("wait: {for: 2s}") == {"for": "2s"},
    ("wait", "until"): lambda: list(rendered("wait: {until: '2026-01-31T06:00:00Z'}")) == ["until"],
}
WITHOUT_EFFECT = {("pipeline", "description"), ("step", "description")}
"""For people only."""


def _items(step: str) -> Any:
    foreach = node(step).foreach
    assert foreach is not None
    return foreach.items


def _message() -> Any:
    return rendered("llm: {messages: [{role: user, content: x}]}")["messages"][0]


def test_every_key_of_the_table_has_an_effect_or_is_named() -> None:
    """A key that is accepted and ignored would be a lie; a test for a key that is gone would be dead."""
    keys = {(row.where, row.key) for row in SCHEMA}
    assert keys == set(EFFECTS) | WITHOUT_EFFECT
    assert not set(EFFECTS) & WITHOUT_EFFECT


@pytest.mark.parametrize("key", list(EFFECTS), ids=[".".join(key) for key in EFFECTS])
def test_a_key_does_what_it_says(key: tuple[str, str]) -> None:
    """The plan differs by it."""
    assert EFFECTS[key]()


def test_the_table_is_consistent() -> None:
    """No key twice in a record; kinds, needs and records name what exists."""
    keys = [(row.where, row.key) for row in SCHEMA]
    places = {row.where for row in SCHEMA}
    assert len(keys) == len(set(keys))
    for row in SCHEMA:
        assert set(row.kinds) <= set(KINDS), row
        assert not row.needs or (row.where, row.needs) in keys, row
        assert row.help.endswith("."), row
        for shape in (row.shape, row.shape.item):
            assert shape is None or not shape.record or shape.record in places, row
    for where, choices in EXACTLY_ONE.items():
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
