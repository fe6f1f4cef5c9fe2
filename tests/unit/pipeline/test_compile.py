"""What a plan says about a definition: graph, defaults, queues, effects."""

import pytest

from headrace.contracts import names
from headrace.contracts.codec import encode_value
from headrace.contracts.errors import DataError, DefinitionError
from headrace.contracts.events import ToolSpec
from headrace.pipeline.bundle import load_text
from headrace.pipeline.compile import compile_plan
from headrace.pipeline.definitions import Definition
from headrace.pipeline.plan import Node, node_of

DIAMOND = """
pipeline: diamond
steps:
  last:
    transform: {a: "${{ steps.left.output }}", b: "${{ steps.?right.?output.orValue(0) }}"}
  left: {transform: "${{ steps.first.output }}", needs: [extra]}
  right: {transform: "${{ steps.first.output }}", when: steps.?extra.?status.orValue("") == "x"}
  first: {transform: "${{ 1 }}"}
  extra: {wait: {for: 1s}}
"""


def by_id(text: str) -> dict[str, Node]:
    return dict(load_text(text).plan.by_id)


def test_data_references_imply_needs_and_optional_ones_only_order() -> None:
    """Nodes are numbered by id; what is needed twice is needed once; an explicit need is never optional."""
    nodes = by_id(DIAMOND)
    assert list(nodes) == ["extra", "first", "last", "left", "right"]
    assert [node.index for node in nodes.values()] == [0, 1, 2, 3, 4]
    assert nodes["last"].needs == (3, 4)
    assert nodes["last"].optional == {4}
    assert nodes["left"].needs == (0, 1)
    assert nodes["left"].optional == set()
    assert nodes["right"].needs == (0, 1)
    assert nodes["right"].optional == {0}
    assert nodes["first"].dependents == (3, 4)
    assert nodes["extra"].dependents == (3, 4)


def test_a_plan_is_the_same_in_every_process() -> None:
    """Neither a set nor the place in the file decides an order: from the stored bytes, nodes are equal."""
    bundle = load_text(DIAMOND)
    again = compile_plan(bundle.data)
    for node, other in zip(bundle.plan.nodes, again.nodes, strict=True):
        assert (node.id, node.needs, node.dependents, node.spec.source) == (
            other.id,
            other.needs,
            other.dependents,
            other.spec.source,
        )


def test_defaults_apply_where_the_step_says_nothing() -> None:
    """Key by key in `retry`; a child run has an hour, not the two minutes of a call; a wait is not cut short."""
    nodes = by_id(
        "pipeline: p\ndefaults: {timeout: 30s, retry: {attempts: 7, initial: 2s}, model: script/b}\nsteps:\n"
        "  tool: {tool: x}\n  own: {tool: x, timeout: 5s, retry: {initial: 3s}}\n  child: {pipeline: other}\n"
        "  ask: {llm: {prompt: x}}\n  other: {llm: {prompt: x, model: echo/d}}\n  rest: {wait: {for: 20d}}\n"
    )
    assert (nodes["tool"].timeout_ms, nodes["tool"].retry.attempts, nodes["tool"].retry.initial_ms) == (30_000, 7, 2000)
    assert (nodes["own"].timeout_ms, nodes["own"].retry.attempts, nodes["own"].retry.initial_ms) == (5000, 7, 3000)
    assert nodes["child"].timeout_ms == names.STEP_DEADLINE_MS
    assert [nodes[name].spec.source["model"] for name in ("ask", "other")] == ["script/b", "echo/d"]
    assert nodes["rest"].deadline_ms == names.DURATION_MS_MAX
    bare = by_id("pipeline: p\nsteps: {t: {tool: x}, l: {llm: {prompt: x}}}\n")
    assert (bare["t"].timeout_ms, bare["t"].deadline_ms) == (names.ATTEMPT_TIMEOUT_MS, names.STEP_DEADLINE_MS)
    assert bare["l"].spec.source["model"] == "echo/echo"


def test_steps_that_touch_files_go_to_queues_of_executors_that_have_them() -> None:
    """By tool, by `file()`, by artifacts."""
    nodes = by_id(
        "pipeline: p\nsteps:\n"
        "  read: {tool: fs.read, with: {path: a}}\n  parse: {tool: json.parse, with: {text: '1'}}\n"
        "  ask: {llm: {prompt: x}}\n  ask-file: {llm: {prompt: '${{ file(\"a\") }}'}}\n"
        "  kept: {llm: {prompt: x}, artifacts: ['*.md']}\n  make: {transform: '${{ 1 }}'}\n"
        "  make-file: {transform: {x: '${{ file(\"a\") }}'}}\n  outside: {tool: mcp.a.b}\n"
    )
    assert {name: node.queue for name, node in nodes.items()} == {
        "read": "tool-ws",
        "parse": "tool",
        "ask": "llm",
        "ask-file": "llm-ws",
        "kept": "llm-ws",
        "make": "transform",
        "make-file": "transform-ws",
        "outside": "tool",
    }
    assert all(node.workspace == node.queue.endswith("-ws") for node in nodes.values())
    assert {node.queue for node in nodes.values()} <= set(names.QUEUES)


def test_the_effect_is_the_tools_unless_the_step_says_otherwise() -> None:
    """Also of a tool that only the catalogue knows."""
    nodes = by_id(
        "pipeline: p\nsteps:\n  a: {tool: fs.append, with: {path: a, text: b}}\n"
        "  b: {tool: fs.append, with: {path: a, text: b}, effect: idempotent}\n  c: {transform: '${{ 1 }}'}\n"
    )
    assert [nodes[name].effect for name in "abc"] == ["at_most_once", "idempotent", "pure"]
    spec = ToolSpec(tool="pay.now", version="1.0.0", description="", args={"type": "object"}, effect="at_most_once")
    text = "pipeline: p\nsteps: {a: {tool: pay.now}, b: {tool: pay.later}}\n"
    with pytest.raises(DefinitionError, match=r"E1204 no tool `pay\.later`; known are pay\.now"):
        load_text(text, catalogue={"pay.now": spec})
    plan = load_text(text.replace(", b: {tool: pay.later}", ""), catalogue={"pay.now": spec}).plan
    assert plan.by_id["a"].effect == "at_most_once"


def test_stored_bytes_that_this_release_refuses_are_refused_again() -> None:
    """Another release may have stored them; garbage is something else."""
    bad = encode_value({"main": {"pipeline": "p", "steps": {"a": {"dance": {}}}}, "files": {}})
    with pytest.raises(DefinitionError, match="E1109"):
        compile_plan(bad)
    for garbage in (b"", b"[]", b'{"main": 1}', b"\xff", b"[" * 100_000):
        with pytest.raises(DataError):
            compile_plan(garbage)
    with pytest.raises(DefinitionError):
        compile_plan(Definition({"pipeline": "p", "steps": {}}))


def test_an_instance_belongs_to_its_node() -> None:
    """Items, conditions and lists of a step are the step's."""
    plan = load_text("pipeline: p\nsteps: {review: {foreach: [1], wait: {for: 1s}}}\n").plan
    assert {node_of(plan, path).id for path in ("review", "review[3]", "review?when", "review?items")} == {"review"}
    with pytest.raises(KeyError):
        node_of(plan, "other[1]")


def test_a_default_deadline_counts_also_when_it_is_shorter_than_an_attempt_may_take() -> None:
    """It once was drawn out to the usual two minutes; only a step's own timeout draws it out."""
    text = (
        "pipeline: p\ndefaults: {deadline: 5s}\nsteps:\n"
        "  a: {tool: x}\n  b: {tool: x, timeout: 9s}\n  c: {tool: x, timeout: 9s, deadline: 3s}\n"
    )
    nodes = load_text(text).plan.nodes
    assert [node.deadline_ms for node in nodes] == [5_000, 9_000, 3_000]
