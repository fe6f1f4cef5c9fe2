"""What `headrace plan` says: order, defaults, and how many calls are to be expected."""

from typing import Any

from headrace.pipeline.bundle import load_text
from headrace.pipeline.overview import levels_of, overview

TEXT = """
pipeline: p
inputs: {files: {type: array, default: [a, b, c]}, deep: {type: boolean}}
vars: {langs: [de, en]}
defaults: {timeout: 30s, retry: {attempts: 3}}
limits: {deadline: 2h, max_parallel: 4, budget: {usd: 2.5}, concurrency: {key: "${{ inputs.deep }}", max: 2}}
triggers: [{cron: 0 6 * * *}, {event: pushed, when: event.data.ok}]
steps:
  list: {tool: fs.glob, with: {pattern: "*"}}
  each: {foreach: inputs.files, as: file, max_parallel: 2, llm: {prompt: "${{ file }}"}}
  found: {foreach: steps.list.output.paths, tool: fs.read, with: {path: "${{ item }}"}}
  group:
    foreach: vars.langs
    retry: {attempts: 2}
    steps:
      ask: {llm: {prompt: x, tools: [fs.read], max_rounds: 4}, when: inputs.deep}
      child: {pipeline: other, needs: ask}
  poll: {tool: x, until: carry.done, max_iterations: 5, needs: group, fallback: spare}
  spare: {tool: y}
  end: {transform: "${{ steps.?each.?output.orValue(1) }}", needs: poll}
outputs: {r: "${{ steps.end.output }}"}
"""


def seen(inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    return overview(load_text(TEXT, pending={}).plan, inputs)


def test_defaults_are_applied_and_order_is_told() -> None:
    """Levels count within a block; a need and a mere order are told apart."""
    steps = {step["path"]: step for step in seen()["steps"]}
    assert {path: step["level"] for path, step in steps.items()} == {
        "list": 0, "each": 0, "found": 1, "group": 0, "poll": 1, "spare": 0, "end": 2, "group/ask": 0, "group/child": 1,
    }  # fmt: skip
    assert (steps["list"]["timeout_ms"], steps["list"]["retry"]["attempts"]) == (30_000, 3)
    assert (steps["end"]["needs"], steps["end"]["after"]) == (["poll"], ["each"])
    assert (steps["poll"]["fallback"], steps["spare"]["standby_for"]) == ("spare", "poll")
    assert steps["each"]["foreach"] == {
        "items": "inputs.files",
        "as": "file",
        "max_parallel": 2,
        "on_item_error": "fail",
    }
    assert steps["each"]["does"] == "echo/echo"
    plan = load_text(TEXT, pending={}).plan
    assert levels_of(plan) == [step["level"] for step in seen()["steps"]]


def test_calls_are_counted_as_far_as_inputs_tell() -> None:
    """A list that only a run knows is named; conditions make a call optional; groups, loops and turns multiply."""
    calls = seen({"files": ["a", "b", "c"], "deep": True})["calls"]
    assert calls["llm"] == {"least": 3, "usual": 3 + 2 * 4, "repeated": 3 * 3 + 2 * 2 * 3 * 4, "unknown": []}
    assert calls["tool"] == {"least": 1 + 5, "usual": 1 + 5 + 1, "repeated": 3 * 7, "unknown": ["found"]}
    assert calls["pipeline"] == {"least": 2, "usual": 2, "repeated": 2 * 2 * 3, "unknown": []}
    assert seen()["calls"]["llm"]["unknown"] == ["each"]


def test_limits_and_triggers_are_told() -> None:
    """What bounds the run, and what starts it."""
    found = seen()
    assert found["limits"] == {
        "deadline_ms": 7_200_000,
        "max_parallel": 4,
        "budget": {"usd": 2.5, "on_exceed": "pause"},
        "concurrency": {"key": "${{ inputs.deep }}", "max": 2, "on_excess": "queue"},
    }
    assert found["triggers"] == [
        {"event": "pushed", "when": "event.data.ok"},
        {"cron": "0 6 * * *", "timezone": "UTC", "catch_up": "once"},
    ]
    assert found["outputs"] == {"r": "${{ steps.end.output }}"}
    assert found == seen()


def test_labels_and_priority_are_shown_where_a_step_has_them() -> None:
    """What groups steps for people is of use only where they can see it."""
    text = "pipeline: p\nsteps:\n  a: {wait: {for: 1s}, labels: {team: core}, priority: 3}\n  b: {wait: {for: 1s}}\n"
    first, second = overview(load_text(text).plan)["steps"]
    assert (first["labels"], first["priority"]) == ({"team": "core"}, 3)
    assert not {"labels", "priority"} & second.keys()
