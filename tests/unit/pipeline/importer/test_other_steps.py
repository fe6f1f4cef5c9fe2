"""Nested pipelines, and types that never ran."""

import pytest
from tests.unit.pipeline.importer.conversion import imported, old, refusals, said, steps_of

from headrace.pipeline.importer.files import import_text
from headrace.pipeline.loader import load_bytes

INLINE = """
- name: child
  type: pipeline
  pipeline:
    name: Inner One
    steps:
    - {name: ask, type: gemini, prompt: 'about {{ inputs.topic }} for {{ global_vars.who }}'}
  inputs: {topic: '{{ subject }}', unused: 1}
  outputs: [ask, {path: ask.score, as: points}]
  config: {inherit_context: true, timeout_seconds: 30, memory_limit_mb: 5}
- {name: l, type: test_echo, value: '{{child.points}} {{steps.child.ask}}'}
"""


def test_a_pipeline_inside_a_step_becomes_a_file() -> None:
    """With the inputs it reads, and what is read of it asked for inside."""
    result = import_text(old(INLINE, above="global_vars: {who: me}"))
    assert list(result.texts) == ["old.child.yaml", "old.yaml"]
    child, parent = (load_bytes(text.encode(), name).document for name, text in result.texts.items())
    assert child["pipeline"] == "inner_one"
    assert list(child["inputs"]) == ["topic", "who"]
    assert child["steps"]["ask"]["llm"]["output_schema"]["required"] == ["score"]
    assert parent["steps"]["child"] == {
        "deadline": "30s",
        "pipeline": "./old.child.yaml",
        "with": {"topic": "${{ inputs.subject }}", "who": "${{ vars.who }}"},
    }
    assert parent["steps"]["l"]["transform"] == "${{ steps.child.output.ask.score }} ${{ steps.child.output.ask }}"
    assert "`unused` is dropped: the child reads no such input" in said(result, "N1558")
    assert said(result, "W1520") == ["`memory_limit_mb` is dropped: an executor has its own limit"]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("{name: a, type: pipeline}", "E1502 exactly one of `pipeline_file`, `pipeline`, `pipeline_ref` is needed"),
        ("{name: a, type: pipeline, pipeline: {name: x}}", "E1502 the pipeline has no `steps`"),
        ("{name: a, type: pipeline, pipeline_file: ../x.yaml}", "E1512"),
        ("{name: a, type: pipeline_generator}", "E1510 `pipeline_generator` has no counterpart"),
        ("{name: a, type: bash, command: 'rm {{ x }}'}", "E1510 a template in a shell command lets data become code"),
        ("{name: a, type: switch, cases: {}}", "E1502 a `switch` needs"),
    ],
)
def test_what_cannot_be_nested_is_refused(step: str, why: str) -> None:
    """At the step."""
    assert why in refusals(f"- {step}")[0]


def test_a_registered_pipeline_is_named() -> None:
    """`pipeline_ref` was an error."""
    made = steps_of(
        "- {name: a, type: pipeline, pipeline_ref: My Flow, inputs: {x: 1}}\n"
        "- {name: b, type: test_echo, value: '{{a.y}}'}"
    )
    assert made["a"] == {"pipeline": "my_flow", "with": {"x": 1}}
    assert made["b"]["transform"] == "${{ steps.a.output.y }}"


def test_a_switch_chooses_by_value() -> None:
    """It never ran."""
    made = steps_of(
        "- {name: a, type: test_echo, value: {kind: x}}\n- name: s\n  type: switch\n  expression: a.kind\n  cases:\n"
        "    x: [{name: on_x, type: test_echo, value: 1}]\n  default: [{name: other, type: test_echo, value: 2}]\n"
    )["s"]
    assert made["switch"][0]["when"] == 'text(steps.a.output.kind) == "x"'
    assert made["switch"][1]["default"]["outputs"] == {"other": "${{ steps.other.output }}"}


def test_generated_types_are_understood_or_named() -> None:
    """`prompt` asks a model, `bash` waits for the operator, `checkpoint` is needless."""
    steps = (
        "- {name: p, type: prompt, provider: gemini, model: g, prompt: x}\n"
        "- {name: q, type: prompt, provider: claude, prompt: x}\n"
        "- {name: c, type: checkpoint}\n- {name: b, type: bash, command: ls}\n"
    )
    made = steps_of(steps)
    assert [made[name]["llm"]["model"] for name in ("p", "q")] == ["google/g", "anthropic/claude-sonnet-4-5"]
    assert made["b"]["with"] == {"argv": ["bash", "-c", "ls"]}
    assert "c" not in made
    assert len(said(imported(steps), "W1524")) == 1
    assert len(said(imported(steps), "W1523")) == 1
