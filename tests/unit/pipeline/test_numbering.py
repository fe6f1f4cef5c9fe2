"""Nodes and blocks: numbers, paths, what waits for what, across scopes."""

from headrace.contracts import names
from headrace.pipeline.bundle import load_text
from headrace.pipeline.compile import compile_plan
from headrace.pipeline.expressions import render
from headrace.pipeline.plan import Plan, node_of

NESTED = """
pipeline: nested
inputs: {files: {type: array}, mode: {type: string}}
steps:
  list: {transform: "${{ inputs.files }}"}
  extra: {tool: x}
  late: {transform: "${{ steps.review.output.items }}"}
  review:
    foreach: steps.list.output
    as: file
    steps:
      lines:
        foreach: file.lines
        steps:
          fix:
            tool: x
            with: {f: "${{ file.name }}", l: "${{ item }}", i: "${{ index }}", e: "${{ steps.extra.output }}"}
      sum: {transform: "${{ [file, index, steps.lines.output.counts.total] }}"}
    outputs: {total: "${{ steps.sum.output }}"}
  route:
    switch:
      - when: inputs.mode == "fast"
        steps: {go: {tool: x}}
        outputs: {r: "${{ steps.go.output }}"}
      - default:
          steps:
            go: {tool: x, needs: early}
            early: {transform: "${{ steps.?late.?output.orValue(0) }}"}
  poll:
    until: carry.done && iteration > 1
    max_iterations: 5
    carry: {done: false}
    steps:
      ask: {tool: x, with: {was: "${{ carry.done }}"}}
      again:
        while: iteration < 2 && carry != 1
        max_iterations: 3
        tool: x
        with: {k: "${{ [carry, iteration] }}"}
    outputs: {done: "${{ steps.ask.output.ok }}"}
"""


def plan() -> Plan:
    return load_text(NESTED, pending={}).plan


def test_blocks_are_numbered_breadth_first_and_nodes_by_id() -> None:
    """The pipeline's own come first; paths say where each stands."""
    made = plan()
    assert [node.path for node in made.nodes] == [
        *("extra", "late", "list", "poll", "review", "route"),
        *("poll/again", "poll/ask", "review/lines", "review/sum"),
        *("route:0/go", "route:1/early", "route:1/go", "review/lines/fix"),
    ]
    assert [node.index for node in made.nodes] == list(range(14))
    assert [(block.owner, block.nodes) for block in made.blocks] == [
        (-1, (0, 1, 2, 3, 4, 5)),
        (3, (6, 7)),
        (4, (8, 9)),
        (5, (10,)),
        (5, (11, 12)),
        (8, (13,)),
    ]
    assert [made.by_id[path].blocks for path in ("review", "route", "late")] == [(2,), (3, 4), ()]
    assert all(made.nodes[node].block == block.index for block in made.blocks for node in block.nodes)


def test_what_is_read_inside_orders_the_step_around() -> None:
    """But only the step that reads it is skipped with it; ids are found from inside outwards."""
    made = plan()
    extra, late, listed, _, review, route = made.nodes[:6]
    assert review.needs == (extra.index, listed.index)
    assert review.optional == {extra.index}
    assert made.by_id["review/lines"].outer == ()
    assert made.by_id["review/lines/fix"].outer == (extra.index,)
    assert route.needs == (late.index,)
    assert route.optional == {late.index}
    assert made.by_id["route:1/early"].outer == ()
    assert made.by_id["route:1/go"].needs == (made.by_id["route:1/early"].index,)
    assert made.blocks[4].visible["go"] == made.by_id["route:1/go"].index
    assert made.blocks[3].visible["go"] == made.by_id["route:0/go"].index
    assert made.blocks[5].visible["list"] == listed.index
    assert late.needs == (review.index,)


def test_otp_n5_names_of_loops_are_absolute_at_any_depth() -> None:
    """The outer item keeps its name inside; the inner `index` hides the outer one; states likewise."""
    made = plan()
    review, lines, fix = (made.by_id[path] for path in ("review", "review/lines", "review/lines/fix"))
    assert review.foreach is not None
    assert lines.foreach is not None
    assert (review.foreach.item_name, review.foreach.index_name) == ("item", "index")
    assert (lines.foreach.item_name, lines.foreach.index_name) == ("item_1", "index_1")
    assert lines.foreach.items.reads == {"item"}
    assert fix.spec.reads == {"item", "item_1", "index_1", "steps.extra.output"}
    values = {"item": {"name": "a"}, "item_1": "l", "index_1": 3, "steps.extra.output": 9}
    assert render(fix.spec, values) == {"f": "a", "l": "l", "i": 3, "e": 9}
    poll, again, ask = (made.by_id[path] for path in ("poll", "poll/again", "poll/ask"))
    assert poll.loop is not None
    assert again.loop is not None
    assert (poll.loop.carry_name, again.loop.carry_name) == ("carry", "carry_1")
    assert (again.loop.iteration_name, again.loop.is_until, poll.loop.is_until) == ("iteration_1", False, True)
    assert again.spec.reads == {"carry_1", "iteration_1"}
    assert ask.spec.reads == {"carry"}
    assert poll.loop.condition.reads == {"carry", "iteration"}


def test_groups_are_as_long_as_their_steps_and_tried_once() -> None:
    """Unless they say otherwise; the defaults of the file are for calls."""
    text = "pipeline: p\ndefaults: {timeout: 5s, deadline: 6s, retry: {attempts: 9}}\nsteps:\n"
    made = load_text(
        text + "  g: {steps: {x: {tool: x}}}\n  h: {steps: {x: {tool: x}}, retry: {initial: 2s}, timeout: 1m}\n",
        pending={},
    ).plan
    group, own = made.nodes[:2]
    assert (group.timeout_ms, group.deadline_ms, group.retry.attempts) == (*[names.DURATION_MS_MAX] * 2, 1)
    assert (own.timeout_ms, own.retry.attempts, own.retry.initial_ms) == (60_000, names.RETRY_ATTEMPTS, 2000)
    assert (made.by_id["g/x"].timeout_ms, made.by_id["g/x"].retry.attempts) == (5000, 9)


def test_a_plan_from_stored_bytes_is_the_same() -> None:
    """Another process compiles the same numbers and sources."""
    bundle = load_text(NESTED, pending={})
    again = compile_plan(bundle.data, pending={})
    assert [(n.path, n.needs, n.dependents, n.outer, n.spec.source) for n in again.nodes] == [
        (n.path, n.needs, n.dependents, n.outer, n.spec.source) for n in bundle.plan.nodes
    ]
    assert again.digest == bundle.digest


def test_instances_belong_to_their_nodes() -> None:
    """Items, iterations, attempts and evaluations are not part of a static path."""
    made = plan()
    for path in ("review[3]/lines[0]/fix", "review[3]#2/lines[10]/fix?when", "review/lines/fix"):
        assert node_of(made, path).path == "review/lines/fix"
    assert node_of(made, "poll(4)/again(1)").path == "poll/again"
    assert node_of(made, "route:1/go").path == "route:1/go"
