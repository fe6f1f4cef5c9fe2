"""What may start: the window of a `foreach`, its items, waits."""

from typing import Any

import pytest
from tests.builders import DIGEST, RUN, by_reference, plan, tool
from tests.unit.scheduler.stage import LEFT_NONE, Stage

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.codec import inline, plain
from headrace.contracts.envelope import Value

LISTS = {"inputs": {"xs": {"type": "array"}}, "outputs": {"all": "${{ steps.f.output }}"}}


def mapped(items: list[Any], *, top: dict[str, Any] | None = None, **over: Any) -> Stage:
    """A run that maps a tool over its input."""
    step = tool(foreach="inputs.xs", **{"with": {"x": "${{ item }}", "i": "${{ index }}"}}) | over
    stage = Stage(plan({"f": step, "after": tool(needs=["f"])}, **LISTS | (top or {})), {"xs": items})
    stage.settle()
    return stage


def answered(stage: Stage, *, value: Any = None) -> Stage:
    """Executors answer whatever is out, oldest first, until nothing is."""
    while running := [path for path in stage.running() if path.startswith("f[")]:
        stage.succeed(running[0], running[0] if value is None else value)
        stage.settle()
    return stage


# --- the window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [1, 3, 10])
@pytest.mark.parametrize("count", [1, 10, 11, 500])
def test_otp_n3_items_in_flight_are_the_smaller_of_items_and_limit(count: int, parallel: int) -> None:
    """`max_parallel` of a `foreach` is exact, and results keep the order of the list whatever order they come in."""
    stage = mapped(list(range(count)), max_parallel=parallel, top={"limits": {"max_parallel": 100}})
    most = 0
    while running := stage.running():
        if running == ["after"]:
            break
        most = max(most, len(running))
        stage.succeed(running[-1], {"of": running[-1]})
        stage.settle()
    assert most == min(count, parallel)
    assert stage.output("f")["items"] == [{"of": f"f[{n}]"} for n in range(count)]
    assert stage.ends() == {"f": 1} | {f"f[{n}]": 1 for n in range(count)}


def test_items_are_scheduled_in_the_order_of_the_list() -> None:
    """Whatever ends first."""
    stage = mapped([0, 1, 2, 3, 4, 5], max_parallel=2)
    stage.succeed("f[1]")
    stage.settle()
    stage.succeed("f[2]")
    stage.settle()
    assert [event.path for event in stage.events(ev.StepScheduled)] == ["f[0]", "f[1]", "f[2]", "f[3]"]


def test_an_item_sees_itself_and_its_index() -> None:
    """Rendered into its order."""
    stage = mapped(["a", {"b": [1]}])
    assert [plain(stage.order(f"f[{n}]").input) for n in (0, 1)] == [  # type: ignore[arg-type]  # both are set
        {"x": "a", "i": 0},
        {"x": {"b": [1]}, "i": 1},
    ]


def test_an_empty_list_is_done_at_once() -> None:
    """With an empty result, and what follows starts in the same decision."""
    stage = mapped([])
    assert stage.output("f") == {
        "items": [],
        "failed": [],
        "counts": {"total": 0, "succeeded": 0, "failed": 0, "skipped": 0},
    }
    assert stage.running() == ["after"]


def test_the_runs_limit_holds_over_all_its_maps() -> None:
    """Two maps of eight each share the run's three."""
    steps = {name: tool(foreach="inputs.xs", max_parallel=8) for name in ("f", "g")}
    stage = Stage(plan(steps, inputs={"xs": {"type": "array"}}, limits={"max_parallel": 3}), {"xs": list(range(8))})
    stage.settle()
    assert stage.running() == ["f[0]", "f[1]", "f[2]"]
    stage.succeed("f[1]")
    stage.settle()
    assert stage.running() == ["f[0]", "f[2]", "f[3]"]


def test_a_map_goes_on_where_the_queue_had_no_room() -> None:
    """No item is lost or started twice."""
    stage = mapped([1, 2, 3], max_parallel=3)
    fresh = Stage(stage.plan, {"xs": [1, 2, 3]})
    fresh.decide(left={"tool": 1})
    assert fresh.running() == ["f[0]"]
    fresh.settle(left=LEFT_NONE)
    assert fresh.running() == ["f[0]"]
    fresh.settle()
    assert fresh.running() == ["f[0]", "f[1]", "f[2]"]


@pytest.mark.parametrize("value", [7, "abc", None, {"a": 1}, True])
def test_what_is_no_list_fails_the_step(value: Any) -> None:
    """`foreach` over something else is an error with the type in it."""
    steps = {"a": tool(), "f": tool(foreach="steps.a.output.xs")}
    stage = Stage(plan(steps))
    stage.settle()
    stage.succeed("a", {"xs": value})
    stage.settle()
    assert stage.run.failure is not None and stage.run.failure.code == "type_mismatch"


# --- items that end otherwise --------------------------------------------------------------------


def test_a_failed_item_fails_the_map_and_cancels_the_others() -> None:
    """`on_item_error: fail` is the default; the failure names the item."""
    stage = mapped([0, 1, 2, 3], max_parallel=3, retry={"attempts": 1})
    stage.succeed("f[0]")
    stage.fail("f[1]", "denied", retryable=False)
    stage.settle()
    assert stage.run.status == "failed"
    assert stage.run.failure is not None and stage.run.failure.message.startswith("f[1]: ")
    assert stage.ends() == {"f[0]": 1, "f[1]": 1, "f[2]": 1, "f": 1}
    assert {event.path: event.tolerated for event in stage.events(ev.StepFailed)} == {"f[1]": False, "f": False}


def test_failed_items_that_are_tolerated_leave_gaps_and_are_listed() -> None:
    """`on_item_error: continue`: the map completes, degraded; `items` has null where there is nothing."""
    stage = mapped([0, 1, 2], on_item_error="continue", retry={"attempts": 1})
    stage.succeed("f[2]", "two")
    stage.fail("f[0]", "denied", retryable=False)
    stage.settle()
    stage.succeed("f[1]", "one")
    stage.settle()
    assert stage.output("f") == {
        "items": [None, "one", "two"],
        "failed": [{"index": 0, "code": "denied", "message": "denied!"}],
        "counts": {"total": 3, "succeeded": 2, "failed": 1, "skipped": 0},
    }
    (whole,) = [event for event in stage.events(ev.StepCompleted) if event.path == "f"]
    assert whole.degraded
    assert [event.tolerated for event in stage.events(ev.StepFailed)] == [True]
    assert stage.running() == ["after"]


def test_a_map_whose_every_item_fails_still_completes_when_that_is_tolerated() -> None:
    """An empty success is never dressed up: `failed` has them all."""
    stage = mapped([0, 1], on_item_error="continue", retry={"attempts": 1})
    for path in ("f[0]", "f[1]"):
        stage.fail(path, "denied", retryable=False)
    stage.settle()
    assert stage.output("f")["counts"] == {"total": 2, "succeeded": 0, "failed": 2, "skipped": 0}


def test_a_map_that_may_fail_lets_the_run_go_on() -> None:
    """`on_error: continue` on the step, `fail` on its items: what is in flight is cancelled, the rest never begins."""
    stage = mapped([0, 1, 2, 3, 4], max_parallel=2, retry={"attempts": 1}, on_error="continue", top={"outputs": {}})
    stage.fail("f[0]", "denied", retryable=False)
    stage.settle()
    assert (stage.status("f"), stage.running()) == ("failed", ["after"])
    assert stage.ends() == {"f[0]": 1, "f[1]": 1, "f": 1}
    assert not stage.succeed("f[1]")


def test_two_items_that_fail_in_one_batch_fail_the_map_once() -> None:
    """The first in the order of arrival is the reason."""
    stage = mapped([0, 1, 2], max_parallel=3, retry={"attempts": 1})
    stage.fail("f[1]", "denied", retryable=False)
    stage.fail("f[0]", "other", retryable=False)
    stage.settle()
    assert stage.ends() == {"f[0]": 1, "f[1]": 1, "f[2]": 1, "f": 1}
    assert stage.run.failure is not None and stage.run.failure.message == "f[1]: denied!"


def test_a_condition_over_the_item_is_asked_for_each() -> None:
    """Skipped items count as such and leave null."""
    stage = answered(mapped([1, 2, 3, 4], when="item % 2 == 0", max_parallel=1))
    assert stage.output("f")["items"] == [None, "f[1]", None, "f[3]"]
    assert stage.output("f")["counts"] == {"total": 4, "succeeded": 2, "failed": 0, "skipped": 2}


def test_a_condition_that_does_not_read_the_item_is_asked_once() -> None:
    """It skips the whole step."""
    stage = mapped([1, 2], when="size(inputs.xs) > 5")
    assert (stage.status("f"), stage.status("after")) == ("skipped", "skipped")


@pytest.mark.parametrize("tolerant", [False, True])
def test_a_condition_that_fails_for_an_item_fails_that_item(tolerant: bool) -> None:
    """Like any other failure of an item."""
    stage = mapped([{"a": True}, {}], when="item.a", on_item_error="continue" if tolerant else "fail")
    if tolerant:
        answered(stage)
        assert [one["index"] for one in stage.output("f")["failed"]] == [1]
    else:
        assert stage.run.failure is not None and stage.run.failure.code == "expr_eval"


def test_a_template_that_fails_for_an_item_fails_that_item() -> None:
    """Before any order goes out for it."""
    over = {"with": {"x": "${{ item.name }}"}}
    stage = answered(mapped([{"name": "a"}, {}, {"name": "c"}], on_item_error="continue", **over))
    assert [one["index"] for one in stage.output("f")["failed"]] == [1]
    assert "f[1]" not in stage.orders()


# --- other kinds of items ------------------------------------------------------------------------


def test_small_expressions_over_items_need_no_executor() -> None:
    """The whole map in one decision."""
    steps = {"f": {"foreach": "inputs.xs", "transform": "${{ item * item }}"}}
    stage = Stage(plan(steps, **LISTS), {"xs": list(range(200))})
    stage.settle()
    assert stage.outputs()["all"]["items"] == [n * n for n in range(200)]
    assert stage.orders() == {}


def test_a_map_of_children() -> None:
    """Each item is a run of its own, with an id of its own."""
    steps = {"f": {"foreach": "inputs.xs", "max_parallel": 2, "pipeline": "publish", "with": {"x": "${{ item }}"}}}
    stage = Stage(plan(steps, **LISTS), {"xs": [1, 2, 3]}, definitions={"publish": "d"})
    stage.settle()
    assert [stage.status(f"f[{n}]") for n in range(3)] == ["child", "child", ""]
    stage.child_ended("f[1]")
    stage.settle()
    stage.child_ended("f[0]")
    stage.child_ended("f[2]")
    stage.settle()
    children = [event.child for event in stage.events(ev.ChildStarted)]
    assert len(set(children)) == 3
    assert stage.outputs()["all"]["items"] == [{"from": child} for child in children]


def test_a_map_of_waits_keeps_its_window() -> None:
    """A sleeper holds its place in the map, though not in the run."""
    steps = {"f": {"foreach": "inputs.xs", "max_parallel": 2, "wait": {"for": "${{ item }}"}}}
    stage = Stage(plan(steps, **LISTS), {"xs": ["1s", "3s", "1s"]})
    stage.settle()
    seen = []
    while stage.run.status == "running":
        seen.append(sorted(path for path in stage.run.active if "[" in path))
        assert stage.until_due() is not None
        stage.settle()
    assert seen == [["f[0]", "f[1]"], ["f[1]", "f[2]"], ["f[1]"]]
    assert stage.outputs()["all"]["items"] == [None, None, None]


# --- lists held by reference ---------------------------------------------------------------------


def referenced(count: int, **over: Any) -> Stage:
    """A map over a list that an executor found in a value held by reference."""
    steps = {"a": tool(), "f": tool(foreach="steps.a.output.xs", **{"with": {"x": "${{ item.n }}"}} | over)}
    stage = Stage(plan(steps))
    stage.settle()
    stage.succeed("a", by_reference(b"x" * 70_000))
    stage.settle()
    assert stage.order("f?items").kind == "evaluate"
    stage.succeed("f?items", Value(ref=f"{RUN}/{DIGEST}", size=90_000, count=count))
    stage.settle()
    return stage


def test_items_by_reference_are_bound_by_their_place() -> None:
    """The scheduler never loads the list: each order says which element of which blob."""
    stage = referenced(3, max_parallel=2)
    order = stage.order("f[1]")
    assert order.bindings["item"] == Value(ref=f"{RUN}/{DIGEST}", index=1)
    assert plain(order.template) == {"x": "${{ item.n }}"}  # type: ignore[arg-type]  # it is set
    answered(stage, value=0)
    assert stage.output("f")["counts"]["succeeded"] == 3
    assert stage.status("f?items") == ""


def test_a_list_found_by_an_executor_may_be_small() -> None:
    """Then its items are inline."""
    steps = {"a": tool(), "f": tool(foreach="steps.a.output.xs", **{"with": {"x": "${{ item }}"}})}
    stage = Stage(plan(steps))
    stage.settle()
    stage.succeed("a", by_reference(b"x" * 70_000))
    stage.settle()
    stage.succeed("f?items", ["p", "q"])
    stage.settle()
    assert [plain(stage.order(f"f[{n}]").input) for n in (0, 1)] == [{"x": "p"}, {"x": "q"}]  # type: ignore[arg-type]  # set


@pytest.mark.parametrize(("count", "code"), [(-1, "type_mismatch"), (names.FOREACH_ITEMS_MAX + 1, "limit_exceeded")])
def test_a_large_value_that_is_no_list_or_too_long_fails_the_step(count: int, code: str) -> None:
    """The executor counted it."""
    stage = referenced(count)
    assert stage.run.failure is not None and stage.run.failure.code == code


def test_an_empty_list_by_reference_is_done_at_once() -> None:
    """However it came about."""
    assert referenced(0).output("f")["items"] == []


def test_a_list_over_the_inline_size_travels_by_reference() -> None:
    """The blob is stored before the decision that names it, and items are bound by place."""
    xs = ["x" * 1_000 for _ in range(60)]
    steps = {"f": tool(foreach="inputs.xs + inputs.xs", **{"with": {"x": "${{ item }}"}})}
    stage = Stage(plan(steps, inputs={"xs": {"type": "array"}}), {"xs": xs})
    stage.settle()
    (started,) = stage.events(ev.ForeachStarted)
    assert started.items.ref in stage.blobs and started.count == 120
    assert stage.order("f[7]").bindings["item"].index == 7


def test_large_results_are_composed_by_reference() -> None:
    """Sixty results of 3 KB are one blob; what follows reads it through its bindings."""
    stage = answered(mapped(list(range(60)), top={"outputs": {}}), value="y" * 3_000)
    value = stage.run.insts["f"].output
    assert value is not None and value.ref in stage.blobs and value.form == "items"
    assert stage.output("f")["counts"]["succeeded"] == 60


# --- waits ---------------------------------------------------------------------------------------


def test_a_wait_ends_when_its_time_has_come_and_not_before() -> None:
    """Durable: the timer is part of the fold."""
    stage = Stage(plan({"w": {"wait": {"for": "10m"}}, "b": tool(needs=["w"])}))
    stage.settle()
    (timer,) = stage.events(ev.TimerSet)
    assert timer.due_ms == stage.now_ms + 600_000
    assert stage.later(599_999).decide() is None
    stage.later(1).settle()
    assert stage.status("w") == "succeeded" and stage.running() == ["b"]


def test_a_wait_may_be_longer_than_the_usual_deadline_of_a_step() -> None:
    """The hour that other steps get by default is for work, not for waiting."""
    stage = Stage(plan({"w": {"wait": {"for": "20h"}}}))
    stage.settle()
    while stage.run.status == "running" and stage.until_due() is not None:
        stage.settle()
    assert stage.run.status == "completed"
    assert stage.now_ms - stage.run.created_ms == 20 * 3_600_000


def test_a_wait_until_an_instant() -> None:
    """One that has passed ends at once; one beyond thirty days is refused."""
    past = Stage(plan({"w": {"wait": {"until": "2020-01-01T00:00:00Z"}}}))
    past.settle()
    past.settle()
    assert past.run.status == "completed"
    far = Stage(
        plan({"a": {"transform": "${{ '2099-01-01T00:00:00Z' }}"}, "w": {"wait": {"until": "${{ steps.a.output }}"}}})
    )
    far.settle()
    assert far.run.failure is not None and far.run.failure.code == "limit_exceeded"


def test_inputs_of_the_builders_are_values() -> None:
    """`inline` and references are told apart by what is set."""
    assert inline(1).ref == "" and by_reference(b"xx").size == 2
