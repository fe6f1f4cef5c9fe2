"""Work orders and what attempts are given: derived from state, the same bytes in every process."""

from typing import Any

import msgspec
import pytest
from tests.builders import by_reference, message, plan, tool
from tests.unit.scheduler.stage import Stage

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.codec import encode, inline, plain
from headrace.contracts.envelope import ItemResult, Value
from headrace.contracts.errors import ExpressionError
from headrace_scheduler.orders import content_for, make_order
from headrace_scheduler.values import bind, has_long_list, is_small, materialise, needed


def after(value: Any, step: dict[str, Any], **top: Any) -> Stage:
    """A run whose step `b` is given what step `a` gave."""
    stage = Stage(plan({"a": tool(), "b": step}, **top))
    stage.settle()
    stage.succeed("a", value)
    stage.settle()
    return stage


def test_small_inputs_are_rendered_where_the_decision_is_made() -> None:
    """They travel in the order, sorted, numbers as they were."""
    stage = after(
        {"x": 1.0, "b": "ä"}, tool(**{"with": {"z": "${{ steps.a.output }}", "t": "is ${{ steps.a.output.x }}"}})
    )
    order = stage.order("b")
    assert bytes(order.input) == '{"t":"is 1.0","z":{"b":"ä","x":1.0}}'.encode()  # type: ignore[arg-type]  # it is set
    assert order.template is msgspec.UNSET and order.bindings == {}


@pytest.mark.parametrize(
    ("value", "template"),
    [
        (by_reference(b"x" * 70_000), "${{ steps.a.output }}"),
        ("x" * 40_000, "${{ steps.a.output + steps.a.output }}"),
        ("src/a.py", "${{ file(steps.a.output) }}"),
    ],
    ids=["by reference", "large once rendered", "reads a file"],
)
def test_what_the_scheduler_may_not_evaluate_goes_as_template_and_bindings(value: Any, template: str) -> None:
    """An executor renders it: large values, large results, files."""
    order = after(value, tool(**{"with": {"x": template}})).order("b")
    assert order.input is msgspec.UNSET
    assert plain(order.template) == {"x": template}  # type: ignore[arg-type]  # it is set
    assert list(order.bindings) == ["steps.a.output"]


def test_a_long_list_of_results_is_an_executors_work() -> None:
    """A thousand items are the scheduler's most, wherever they are read."""
    count = names.SCHEDULER_ITEMS_MAX + 1
    results = [ItemResult(status="succeeded", value=inline(n)) for n in range(count)]
    value = Value(json=msgspec.Raw(encode(results)), form="items")
    assert is_small({"x": value}) and has_long_list({"x": value})
    assert not has_long_list({"x": Value(json=msgspec.Raw(encode(results[1:])), form="items")})
    steps = {
        "f": {"foreach": "inputs.xs", "transform": "${{ item }}"},
        "t": {"transform": "${{ size(steps.f.output.items) }}"},
        "b": tool(**{"with": {"n": "${{ size(steps.f.output.items) }}"}}),
    }
    stage = Stage(plan(steps, inputs={"xs": {"type": "array"}}), {"xs": [0] * count})
    stage.settle()
    for path in ("t", "b"):
        assert stage.order(path).template is not msgspec.UNSET, path


def test_a_long_list_in_a_plain_value_is_an_executors_work_too() -> None:
    """It may fit inline and still be long."""
    long = inline(list(range(names.SCHEDULER_ITEMS_MAX + 1)))
    assert has_long_list({"x": long})
    assert has_long_list({"x": inline({"deep": [{"er": list(range(names.SCHEDULER_ITEMS_MAX + 1))}]})})
    assert not has_long_list({"x": inline(list(range(names.SCHEDULER_ITEMS_MAX)))})
    assert not has_long_list({"x": inline("," * 5_000)})


def test_bindings_over_half_an_order_travel_by_reference_the_largest_first() -> None:
    """And the blobs are stored before the order goes out; deriving again moves the same ones."""
    sizes = {"s0": 10, "s1": 60_000, "s2": 50_000, "s3": 60_000}
    tree = {name: "${{ steps." + name + ".output }}" for name in sizes}
    stage = Stage(plan({**{name: tool() for name in sizes}, "join": tool(**{"with": tree})}))
    stage.settle()
    for name, size in sizes.items():
        stage.succeed(name, name[1] * size)
    stage.settle()
    order = stage.order("join")
    held = {name: value.ref for name, value in order.bindings.items() if value.ref}
    assert list(held) == ["steps.s3.output"]
    assert stage.blobs[held["steps.s3.output"]] == b'"' + b"3" * 60_000 + b'"'
    assert len(encode(order)) <= names.ORDER_BYTES_MAX
    content = content_for(stage.run, stage.plan, "join", now_ms=stage.now_ms)
    assert content.sha == stage.run.insts["join"].input_sha
    assert encode(make_order(stage.run, stage.plan, stage.run.insts["join"], content)) == encode(order)


def test_an_order_says_what_its_step_says() -> None:
    """Tool, effect, deadline, workspace, artifacts."""
    step = tool(effect="at_most_once", on_unknown="retry", timeout="7s", artifacts=["out/*.md"])
    order = after(1, step | {"needs": ["a"]}).order("b")
    assert (order.tool, order.effect, order.on_unknown) == ("demo.echo", "at_most_once", "retry")
    assert (order.kind, order.timeout_ms, order.artifacts) == ("tool", 7_000, ("out/*.md",))
    assert (order.queue, order.workspace) == ("tool-ws", True)


def test_an_evaluation_is_pure_and_belongs_to_no_tool() -> None:
    """Whatever its step may do."""
    step = tool(effect="at_most_once", when="size(steps.a.output) > 1", artifacts=["x"])
    order = after(by_reference(b"x" * 70_000), step).order("b?when")
    assert (order.kind, order.effect, order.tool, order.artifacts) == ("evaluate", "pure", "", ())


def test_an_evaluation_that_reads_a_file_goes_where_the_workspace_is() -> None:
    """Its queue ends in `-ws`."""
    order = after("a.py", tool(when="size(file(steps.a.output)) > 1")).order("b?when")
    assert (order.queue, order.workspace) == ("transform-ws", True)


# --- what expressions see ------------------------------------------------------------------------


def seen(stage: Stage, path: str, *reads: str, optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    return materialise(bind(stage.run, stage.plan, path, reads, optional, now_ms=stage.now_ms))


def test_expressions_see_inputs_vars_and_the_run() -> None:
    """All of it without asking anyone."""
    stage = Stage(plan({"a": tool()}, vars={"v": 1}, inputs={"x": {}}), {"x": 2}, labels={"team": "core"})
    assert seen(stage, "a", "inputs", "vars", "run") == {
        "inputs": {"x": 2},
        "vars": {"v": 1},
        "run": {"id": stage.run_id, "started_at": stage.run.created_ms, "attempt": 1, "labels": {"team": "core"}},
    }


def test_expressions_see_how_steps_ended() -> None:
    """Output, status, attempts, and the error of one that failed."""
    steps = {"a": tool(), "b": tool(on_error="continue"), "c": tool(when=False), "d": tool(needs=["a", "b"])}
    stage = Stage(plan(steps))
    stage.settle()
    stage.succeed("a", {"x": 1})
    stage.fail("b", "denied", retryable=False)
    stage.settle()
    values = seen(stage, "d", "steps.a.output", "steps.a.status", "steps.a.attempts", "steps.b.error", "steps.c.status")
    assert values["steps.a.output"] == {"x": 1}
    assert (values["steps.a.status"], values["steps.a.attempts"]) == ("succeeded", 1)
    assert values["steps.b.error"]["code"] == "denied"
    assert values["steps.c.status"] == "skipped"


@pytest.mark.parametrize(
    "name", ["steps.b.output", "steps.c.output", "steps.a.error", "steps.zzz.output", "item", "index"]
)
def test_what_has_no_value_is_an_error_unless_it_is_optional(name: str) -> None:
    """Unknown is never empty."""
    steps = {"a": tool(), "b": tool(on_error="continue"), "c": tool(when=False), "d": tool(needs=["a", "b"])}
    stage = Stage(plan(steps))
    stage.settle()
    stage.succeed("a", 1)
    stage.fail("b", "denied", retryable=False)
    stage.settle()
    with pytest.raises(ExpressionError, match=f"`{name}` has no value here"):
        seen(stage, "d", name)
    assert seen(stage, "d", name, optional=frozenset({name})) == {}


def test_usage_of_a_model_call_can_be_read() -> None:
    """It is part of what the step gave."""
    steps = {"a": tool(), "b": {"transform": "${{ steps.a.usage.output_tokens }}"}}
    stage = Stage(plan(steps))
    stage.settle()
    order = stage.order("a")
    usage = ev.Usage(input_tokens=7, output_tokens=3, model="echo/echo")
    data = ev.Succeeded(decision=order.decision, offer=1, output=inline("x"), usage=usage)
    stage.append(message(ev.AttemptSucceeded, data, stepid="a", attempt=1, runid=stage.run_id))
    stage.settle()
    assert stage.output("b") == 3


def test_only_a_needed_step_that_was_skipped_skips_its_dependents() -> None:
    """One that failed and is tolerated does not."""
    steps = {"a": tool(when=False), "b": tool(needs=["a"]), "c": {"transform": "${{ steps.?a.?output.orValue(1) }}"}}
    stage = Stage(plan(steps))
    stage.settle()
    assert needed(stage.plan.by_id["b"], "b", stage.run, stage.plan) is stage.run.insts["a"]
    assert needed(stage.plan.by_id["c"], "c", stage.run, stage.plan) is None
