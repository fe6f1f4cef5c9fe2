"""What follows from a run's state: order of steps, conditions, skipping, controls, the end."""

import time
from typing import Any

import pytest
from tests.builders import by_reference, failure, plan, tool
from tests.unit.scheduler.stage import LEFT_NONE, Stage

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.codec import encode, inline, plain
from headrace.contracts.envelope import Value
from headrace.pipeline.plan import Plan
from headrace_scheduler.decide import CANCEL_GRACE_MS, decide

BIG = "x" * (names.INLINE_BYTES_MAX + 1)


def chain(length: int, **top: Any) -> Plan:
    steps = {f"s{n}": tool(**({"needs": [f"s{n - 1}"]} if n else {})) for n in range(length)}
    return plan(steps, **top)


# --- order of steps ------------------------------------------------------------------------------


def test_a_chain_takes_one_step_after_another_each_in_one_decision() -> None:
    """A decision that schedules exactly one step is its own order, so a step costs two stored messages."""
    stage = Stage(chain(4))
    stage.settle()
    for n in range(4):
        assert stage.running() == [f"s{n}"]
        stage.succeed(f"s{n}")
        stage.settle()
    assert stage.run.status == "completed"
    assert len(stage.log) == 1 + 4 * 2 + 1
    assert [decision.headline for decision in stage.decisions] == ["scheduled.tool"] * 4 + ["run-completed"]


def test_a_fan_out_is_one_decision_and_its_orders_are_separate() -> None:
    """N steps cost N + 1 messages: the decision and N orders, which name it."""
    stage = Stage(plan({f"s{n}": tool() for n in range(5)}))
    stage.decide()
    assert stage.running() == ["s0", "s1", "s2", "s3", "s4"]
    assert stage.decisions[0].headline == "progressed"
    assert stage.decisions[0].order is None
    assert {order.decision for order in stage.orders().values()} == {stage.run.decision_id}
    assert len(stage.log) == 1 + 1 + 5


def test_many_reports_at_once_cost_one_decision() -> None:
    """A join starts when the last of its needs has ended, however they arrived."""
    stage = Stage(plan({**{f"s{n}": tool() for n in range(5)}, "join": tool(needs=[f"s{n}" for n in range(5)])}))
    stage.settle()
    for n in (3, 0, 4, 1, 2):
        assert stage.succeed(f"s{n}")
    decision = stage.decide()
    assert decision is not None and decision.headline == "scheduled.tool"
    assert stage.running() == ["join"]
    assert stage.decide() is None


def test_ready_steps_start_by_priority_then_by_place_in_the_plan() -> None:
    """The order is the same in every process."""
    steps = {"a": tool(), "b": tool(priority=5), "c": tool(priority=5), "d": tool(priority=-1)}
    stage = Stage(plan(steps, limits={"max_parallel": 1}))
    started = []
    for _ in range(4):
        stage.settle()
        (path,) = stage.running()
        started.append(path)
        stage.succeed(path)
    assert started == ["b", "c", "a", "d"]


@pytest.mark.parametrize("parallel", [1, 3, 10])
@pytest.mark.parametrize("count", [1, 10, 11, 500])
def test_otp_n3_steps_in_flight_are_the_smaller_of_steps_and_limit(count: int, parallel: int) -> None:
    """`max_parallel` of the run is exact, at every moment."""
    stage = Stage(plan({f"s{n}": tool() for n in range(count)}, limits={"max_parallel": parallel}))
    most = 0
    stage.settle()
    while stage.run.status == "running":
        most = max(most, len(stage.running()))
        stage.succeed(stage.running()[0])
        stage.settle()
    assert most == min(count, parallel)
    assert stage.ends() == {f"s{n}": 1 for n in range(count)}


def test_a_step_that_finds_no_offer_left_on_its_queue_waits_and_is_named() -> None:
    """What could have started and did not is said, so that the run can be called back."""
    stage = Stage(plan({"a": tool(), "b": {"llm": {"model": "echo/echo", "prompt": "x"}}}))
    limits = stage.limits(left={"tool": 0})
    decision = decide(stage.run, stage.plan, now_ms=stage.now_ms, limits=limits)
    assert decision is not None and list(decision.orders) == ["b"]
    assert limits.refused == {"tool"}
    stage.settle()
    assert stage.running() == ["a", "b"]


def test_independent_transforms_need_no_executor() -> None:
    """A chain of small expressions ends in one decision."""
    steps = {
        "a": {"transform": "${{ inputs.x + 1 }}"},
        "b": {"transform": "${{ steps.a.output * 2 }}"},
        "c": {"transform": {"sum": "${{ steps.a.output + steps.b.output }}", "text": "is ${{ steps.b.output }}"}},
    }
    stage = Stage(plan(steps, inputs={"x": {"type": "integer"}}, outputs={"c": "${{ steps.c.output }}"}), {"x": 20})
    decision = stage.decide()
    assert decision is not None and decision.orders == {}
    assert stage.outputs() == {"c": {"sum": 63, "text": "is 42"}}


# --- conditions ----------------------------------------------------------------------------------


def conditional(when: Any, *, value: Any, **over: Any) -> Stage:
    """A run in which step `b` depends on a condition over the output of `a`."""
    steps = {"a": tool(), "b": tool(needs=["a"], when=when, **over), "c": tool(needs=["b"])}
    stage = Stage(plan(steps, outputs={"b": "${{ steps.b.output }}"}))
    stage.settle()
    stage.succeed("a", value)
    stage.settle()
    return stage


def test_a_true_condition_starts_the_step() -> None:
    """And only true does."""
    assert conditional("steps.a.output.ok", value={"ok": True}).status("b") == "running"


def test_a_false_condition_skips_the_step_and_what_needs_it() -> None:
    """The run completes; outputs that read skipped steps are null."""
    stage = conditional("steps.a.output.ok", value={"ok": False})
    assert (stage.status("b"), stage.status("c")) == ("skipped", "skipped")
    assert stage.outputs() == {"b": None}


@pytest.mark.parametrize("value", [0, 1, "", "true", None, [], {}])
def test_a_condition_that_is_no_boolean_fails_the_step(value: Any) -> None:
    """There is no truthiness."""
    stage = conditional("steps.a.output.ok", value={"ok": value})
    assert stage.run.status == "failed"
    assert stage.run.failure is not None and stage.run.failure.code == "type_mismatch"


def test_a_condition_over_a_missing_field_fails_the_step() -> None:
    """Unknown is an error, never false."""
    stage = conditional("steps.a.output.ok", value={})
    assert stage.run.failure is not None and stage.run.failure.code == "expr_eval"


def test_a_condition_over_a_value_held_by_reference_is_evaluated_by_an_executor() -> None:
    """The scheduler never loads a large value: the condition becomes an order, and the step follows its verdict."""
    stage = conditional("size(steps.a.output) > 3", value=by_reference(b"x" * 70_000))
    order = stage.order("b?when")
    assert (order.kind, order.queue, stage.status("b")) == ("evaluate", "transform", "ready")
    assert plain(order.template) == "${{ size(steps.a.output) > 3 }}"  # type: ignore[arg-type]  # it is set
    assert order.bindings["steps.a.output"].ref
    stage.succeed("b?when", True)
    stage.settle()
    assert stage.status("b") == "running"
    assert stage.status("b?when") == ""


@pytest.mark.parametrize(
    ("verdict", "status"), [(True, "running"), (False, "skipped"), (7, "failed"), (None, "failed")]
)
def test_the_verdict_of_an_executor_counts_like_our_own(verdict: Any, status: str) -> None:
    """True starts, false skips, anything else is an error of the step."""
    stage = conditional("size(steps.a.output) > 3", value=by_reference(b"x" * 70_000), on_error="continue")
    stage.succeed("b?when", verdict)
    stage.settle()
    assert stage.status("b") == status
    assert stage.status("b?when") == ""


def test_a_verdict_that_is_itself_held_by_reference_is_no_boolean() -> None:
    """A large value is never a truth value."""
    stage = conditional("steps.a.output", value=by_reference(b"x" * 70_000))
    stage.succeed("b?when", by_reference(b"x" * 70_000))
    stage.settle()
    assert stage.run.failure is not None and stage.run.failure.code == "type_mismatch"


def test_a_verdict_that_finds_no_room_is_kept_until_there_is() -> None:
    """The step starts when its queue has room again; it is not evaluated twice and not forgotten."""
    stage = conditional("size(steps.a.output) > 3", value=by_reference(b"x" * 70_000))
    stage.succeed("b?when", True)
    stage.settle(left=LEFT_NONE)
    assert stage.status("b") == "ready"
    stage.settle()
    assert stage.running() == ["b"]
    assert stage.order("b").attempt == 1


def test_a_verdict_that_comes_while_the_run_is_paused_starts_nothing() -> None:
    """Paused means that nothing new starts, also not by a late verdict."""
    stage = conditional("size(steps.a.output) > 3", value=by_reference(b"x" * 70_000))
    stage.control("pause")
    stage.settle()
    stage.succeed("b?when", True)
    stage.settle()
    assert (stage.run.status, stage.running()) == ("paused", [])
    stage.control("resume")
    stage.settle()
    assert stage.running() == ["b"]


def test_an_evaluation_that_fails_for_good_fails_its_step() -> None:
    """With the evaluation's own error."""
    stage = conditional("size(steps.a.output) > 3", value=by_reference(b"x" * 70_000))
    stage.fail("b?when", "expr_cost", retryable=False)
    stage.settle()
    assert stage.run.status == "failed"
    assert stage.run.failure is not None and stage.run.failure.code == "expr_cost"


def test_an_evaluation_that_never_ends_fails_its_step_at_the_steps_deadline() -> None:
    """Nothing waits for ever: the step deadline covers its condition too."""
    stage = conditional("size(steps.a.output) > 3", value=by_reference(b"x" * 70_000), deadline="5m", timeout="1m")
    stage.later(300_001).settle()
    assert stage.run.status == "failed"
    assert stage.run.failure is not None and stage.run.failure.code == "deadline_exceeded"


@pytest.mark.parametrize("value", [True, False, None, 1, "yes", {}])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_otp_n8_folding_the_log_gives_the_live_verdict(value: Any, elsewhere: bool) -> None:
    """For every outcome of a condition, here or in an executor, the log says what happened live."""
    held = by_reference(b"x" * 70_000) if elsewhere else {"ok": value}
    when = "steps.a.output.ok" if not elsewhere else "size(steps.a.output) > 3"
    stage = conditional(when, value=held, on_error="continue")
    if elsewhere:
        stage.succeed("b?when", value)
        stage.settle()
    live = {path: inst.status for path, inst in stage.run.insts.items()}
    again = stage.folded()
    assert {path: inst.status for path, inst in again.insts.items()} == live
    assert again == stage.run
    expected = ("running" if value else "skipped") if isinstance(value, bool) else "failed"
    assert live["b"] == expected


# --- skipping ------------------------------------------------------------------------------------


def test_skipping_follows_needs_and_data_but_not_optional_references() -> None:
    """What needs a skipped step is skipped; an optional reference only orders."""
    steps = {
        "a": tool(when=False),
        "by_need": tool(needs=["a"]),
        "by_data": tool(**{"with": {"x": "${{ steps.a.output }}"}}),
        "after": tool(needs=["by_data"]),
        "optional": {"transform": "${{ steps.?a.?output.orValue('none') }}"},
    }
    outputs = {"a": "${{ steps.a.output }}", "o": "${{ steps.optional.output }}", "both": "${{ steps.after.status }}"}
    stage = Stage(plan(steps, outputs=outputs))
    stage.settle()
    assert stage.outputs() == {"a": None, "o": "none", "both": "skipped"}
    skipped = [event.path for event in stage.events(ev.StepSkipped)]
    assert skipped[0] == "a" and sorted(skipped) == ["a", "after", "by_data", "by_need"]


def test_a_failure_that_is_tolerated_lets_the_others_go_on() -> None:
    """What reads the missing output fails; what only waits for the step runs, and can see what happened."""
    steps = {
        "a": tool(on_error="continue", retry={"attempts": 1}),
        "waits": {"needs": ["a"], "transform": "${{ steps.a.status + ':' + steps.a.error.code }}"},
        "b": tool(),
    }
    stage = Stage(plan(steps, outputs={"w": "${{ steps.waits.output }}"}))
    stage.settle()
    stage.fail("a", "denied", retryable=False)
    stage.succeed("b")
    stage.settle()
    assert stage.outputs() == {"w": "failed:denied"}
    assert [event.tolerated for event in stage.events(ev.StepFailed)] == [True]


def test_a_failure_fails_the_run_and_cancels_what_is_in_flight() -> None:
    """One end each, in one decision, and no order goes out for what was cancelled in the same breath."""
    stage = Stage(plan({"a": tool(retry={"attempts": 1}), "b": tool(), "c": tool(needs=["b"])}))
    stage.settle()
    stage.fail("a")
    stage.succeed("b")
    stage.settle()
    assert stage.run.status == "failed"
    assert stage.ends() == {"a": 1, "b": 1}
    assert list(stage.orders()) == ["a", "b"]


def test_a_step_scheduled_and_cancelled_in_one_decision_has_no_order() -> None:
    """A fatal step later in the same decision: nobody may run what is already over."""
    steps = {"a": tool(), "b": {"transform": "${{ inputs.x.missing }}"}}
    stage = Stage(plan(steps, inputs={"x": {"type": "object"}}), {"x": {}})
    stage.settle()
    assert stage.run.status == "failed"
    assert stage.orders() == {}
    assert all(decision.orders == {} and decision.order is None for decision in stage.decisions)


# --- controls ------------------------------------------------------------------------------------


def test_pausing_lets_steps_in_flight_finish_and_starts_nothing() -> None:
    """Resuming goes on where the run was."""
    stage = Stage(chain(3))
    stage.settle()
    assert stage.control("pause")
    stage.settle()
    stage.succeed("s0", 1)
    stage.settle()
    assert (stage.run.status, stage.running(), stage.status("s0")) == ("paused", [], "succeeded")
    assert stage.control("resume", cause="two")
    stage.settle()
    assert (stage.run.status, stage.running()) == ("running", ["s1"])


def test_an_order_that_goes_out_with_a_resume_can_be_seen_by_executors() -> None:
    """The decision's headline is `run-resumed`, so the order must go on a subject of its own."""
    stage = Stage(chain(2))
    stage.control("pause")
    stage.settle()
    stage.control("resume", cause="two")
    decision = stage.decide()
    assert decision is not None and decision.headline == "run-resumed" and decision.order is None
    assert stage.order("s0").decision == stage.run.decision_id
    stage.succeed("s0")
    stage.settle()
    assert stage.running() == ["s1"]


def test_repeating_a_control_changes_nothing() -> None:
    """The same command twice, and another of the same kind, are one pause."""
    stage = Stage(chain(2))
    stage.settle()
    assert stage.control("pause", cause="one")
    assert not stage.control("pause", cause="one")
    assert not stage.control("pause", cause="two")
    stage.settle()
    assert not stage.control("pause", cause="three")
    stage.settle()
    assert len(stage.events(ev.RunPaused)) == 1
    assert stage.control("resume", cause="four")
    stage.settle()
    assert not stage.control("resume", cause="again")
    assert stage.run.status == "running"


def test_controls_that_arrive_together_are_taken_in_their_order() -> None:
    """Pause then resume is as if nobody had asked; resume while running changes nothing; cancel ends it."""
    stage = Stage(chain(2))
    assert not stage.control("resume", cause="r0")
    assert stage.control("pause", cause="p1")
    assert stage.control("resume", cause="r1")
    stage.settle()
    assert (stage.run.status, stage.running()) == ("running", ["s0"])
    assert stage.control("pause", cause="p2")
    assert stage.control("cancel", cause="c")
    assert not stage.control("resume", cause="r2")
    stage.settle()
    assert stage.run.status == "cancelled"


def test_a_cancelled_run_ends_at_once_when_it_has_no_children() -> None:
    """Everything in flight is cancelled in the same decision, and nothing follows."""
    stage = Stage(plan({"a": tool(), "w": {"wait": {"for": "10m"}}, "b": tool(needs=["a"])}))
    stage.settle()
    stage.control("cancel")
    decision = stage.decide()
    assert decision is not None and decision.headline == "run-cancelled"
    assert stage.ends() == {"a": 1, "w": 1}
    assert not stage.succeed("a")
    assert stage.later(10**9).decide() is None
    assert stage.folded() == stage.run


def test_a_paused_run_can_be_cancelled() -> None:
    """And a cancelled one cannot be paused."""
    stage = Stage(chain(2))
    stage.control("pause")
    stage.settle()
    assert stage.control("cancel", cause="c")
    stage.settle()
    assert stage.run.status == "cancelled"
    assert not stage.control("pause", cause="p")


# --- children ------------------------------------------------------------------------------------


def parent(**over: Any) -> Stage:
    steps = {"c": {"pipeline": "publish", "with": {"n": "${{ inputs.n }}"}} | over, "d": tool(needs=["c"])}
    top = {"inputs": {"n": {"type": "integer"}}, "outputs": {"c": "${{ steps.c.output }}"}}
    stage = Stage(plan(steps, **top), {"n": 7}, definitions={"publish": "d1"})
    stage.settle()
    return stage


def test_a_child_starts_with_rendered_inputs_and_its_outputs_are_the_steps() -> None:
    """Its id derives from parent and step; the newest definition by name is pinned when it starts."""
    stage = parent()
    (started,) = stage.events(ev.ChildStarted)
    assert (started.pipeline, started.defdigest, started.inputs) == ("publish", "d1", inline({"n": 7}))
    assert started.child.startswith(f"{stage.run_id}_")
    assert stage.child_ended("c")
    stage.settle()
    assert stage.output("c") == {"from": started.child}
    assert stage.running() == ["d"]
    (ended,) = stage.events(ev.ChildEnded)
    assert (ended.child, ended.status) == (started.child, "completed")


def test_a_child_that_fails_retryably_is_followed_by_another_child() -> None:
    """The next attempt is another run with another id; the old one's late end counts nothing."""
    stage = parent(retry={"attempts": 2})
    first = stage.run.insts["c"].child
    stage.child_ended("c", "failed", failure=failure())
    stage.settle()
    stage.until_due()
    stage.settle()
    second = stage.run.insts["c"].child
    assert first != second and stage.run.insts["c"].attempt == 2
    assert not stage.child_ended("c", child=first, attempt=1)
    assert stage.child_ended("c")
    stage.settle()
    assert stage.status("c") == "succeeded"


@pytest.mark.parametrize(
    ("status", "code"), [("cancelled", "child_cancelled"), ("failed", "child_failed")], ids=["cancelled", "failed"]
)
def test_a_child_that_ends_otherwise_fails_the_step(status: str, code: str) -> None:
    """Also when it said no reason: without one it is still no success."""
    stage = parent()
    stage.child_ended("c", status)
    stage.settle()
    assert stage.run.status == "failed"
    assert stage.run.failure is not None and stage.run.failure.code == code
    assert [event.status for event in stage.events(ev.ChildEnded)] == [status]


def test_cancelling_waits_for_children_up_to_its_deadline() -> None:
    """The run is cancelled when the last child has answered, or when the time is over."""
    stage = parent()
    stage.control("cancel")
    stage.settle()
    assert (stage.run.status, stage.status("c")) == ("cancelling", "child")
    assert stage.until_due() == stage.run.cancel_due_ms
    patient = parent()
    patient.control("cancel")
    patient.settle()
    patient.child_ended("c", "cancelled")
    patient.settle()
    stage.settle()
    for one in (stage, patient):
        assert one.run.status == "cancelled"
        assert one.ends() == {"c": 1}
    assert stage.run.cancel_due_ms - stage.run.created_ms == CANCEL_GRACE_MS


def test_child_runs_nest_only_so_deep() -> None:
    """Counted in the run, so that no chain of definitions can go on for ever."""
    steps = {"c": {"pipeline": "publish", "with": {}}}
    deepest = Stage(plan(steps), definitions={"publish": "d"}, depth=names.NESTING_MAX - 1)
    deepest.settle()
    assert deepest.status("c") == "child"
    deeper = Stage(plan(steps), definitions={"publish": "d"}, depth=names.NESTING_MAX)
    deeper.settle()
    assert deeper.run.failure is not None and deeper.run.failure.code == "nesting_limit"


def test_a_child_of_no_known_definition_fails_the_step() -> None:
    """By name, with nothing registered under it."""
    stage = Stage(plan({"c": {"pipeline": "nobody", "with": {}}}))
    stage.settle()
    assert stage.run.failure is not None and stage.run.failure.code == "not_found"


def test_children_count_against_max_parallel() -> None:
    """Like orders."""
    steps = {name: {"pipeline": "publish", "with": {}} for name in "abc"}
    stage = Stage(plan(steps, limits={"max_parallel": 2}), definitions={"publish": "d"})
    stage.settle()
    assert [stage.status(name) for name in "abc"] == ["child", "child", "ready"]


# --- the end -------------------------------------------------------------------------------------


def test_large_outputs_are_held_by_reference_and_stored_first() -> None:
    """The decision names the blob that has to be stored before it."""
    whole = plan(
        {"a": {"transform": "${{ inputs.x }}"}},
        inputs={"x": {"type": "string"}},
        outputs={"twice": ["${{ steps.a.output }}", "${{ steps.a.output }}"]},
    )
    stage = Stage(whole, {"x": BIG[:40_000]})
    stage.settle()
    assert stage.run.outputs is not None and stage.run.outputs.ref
    assert stage.outputs() == {"twice": [BIG[:40_000]] * 2}


def test_outputs_over_a_value_held_by_reference_are_evaluated_by_an_executor() -> None:
    """The last order of a run; its result is the run's outputs."""
    stage = Stage(plan({"a": tool()}, outputs={"n": "${{ size(steps.a.output) }}"}))
    stage.settle()
    stage.succeed("a", by_reference(b"x" * 70_000))
    stage.settle()
    order = stage.order("?outputs")
    assert (order.kind, order.queue) == ("evaluate", "transform")
    stage.succeed("?outputs", {"n": 70_000})
    stage.settle()
    assert stage.outputs() == {"n": 70_000}


def test_evaluating_outputs_is_tried_again_when_the_executor_says_that_it_may_help() -> None:
    """One unavailable blob store must not fail a run whose steps are all done."""
    stage = Stage(plan({"a": tool()}, outputs={"n": "${{ size(steps.a.output) }}"}))
    stage.settle()
    stage.succeed("a", by_reference(b"x" * 70_000))
    stage.settle()
    stage.fail("?outputs")
    stage.settle()
    assert stage.status("?outputs") == "sleeping"
    stage.until_due()
    stage.settle()
    assert stage.order("?outputs").attempt == 2
    stage.succeed("?outputs", {"n": 1})
    stage.settle()
    assert stage.outputs() == {"n": 1}


def test_outputs_are_not_evaluated_while_the_run_is_paused() -> None:
    """An evaluation is something new."""
    stage = Stage(plan({"a": tool()}, outputs={"n": "${{ size(steps.a.output) }}"}))
    stage.settle()
    stage.control("pause")
    stage.succeed("a", by_reference(b"x" * 70_000))
    stage.settle()
    assert (stage.run.status, stage.running()) == ("paused", [])
    stage.control("resume", cause="two")
    stage.settle()
    assert stage.running() == ["?outputs"]


@pytest.mark.parametrize("code", ["expr_eval", "expr_cost"])
def test_outputs_that_have_no_value_fail_the_run(code: str) -> None:
    """Here or in an executor."""
    stage = Stage(plan({"a": tool()}, outputs={"n": "${{ steps.a.output.n }}"}))
    stage.settle()
    if code == "expr_eval":
        stage.succeed("a", {})
    else:
        stage.succeed("a", by_reference(b"x" * 70_000))
        stage.settle()
        stage.fail("?outputs", code, retryable=False)
    stage.settle()
    assert stage.run.status == "failed"
    assert stage.run.failure is not None and stage.run.failure.code == code


def test_nothing_follows_an_end() -> None:
    """Whatever arrives later and however late it is."""
    stage = Stage(chain(1))
    stage.settle()
    stage.succeed("s0")
    stage.settle()
    assert not stage.succeed("s0")
    assert not stage.control("cancel")
    assert stage.later(10**10).decide() is None
    assert stage.until_due() is None


# --- sizes ---------------------------------------------------------------------------------------


def test_a_decision_has_a_size_and_the_next_one_goes_on() -> None:
    """20,000 characters a step times 100 steps do not fit one decision; together they say all."""
    steps = {f"s{n}": {"transform": "${{ inputs.x }}"} for n in range(100)}
    stage = Stage(plan(steps, inputs={"x": {"type": "string"}}), {"x": BIG[:20_000]})
    stage.settle()
    assert stage.run.status == "completed"
    sizes = [len(encode(made)) for made in stage.log]
    assert len(stage.decisions) > 5 and max(sizes) <= names.DECISION_BYTES_MAX
    assert stage.ends() == {f"s{n}": 1 for n in range(100)}


def test_failures_with_long_stories_do_not_burst_a_decision() -> None:
    """Reports are settled over several decisions when their errors are long."""
    steps = {f"s{n}": tool(on_error="continue", retry={"attempts": 1}) for n in range(200)}
    stage = Stage(plan(steps, limits={"max_parallel": 200}))
    stage.settle()
    for n in range(200):
        stage.fail(f"s{n}", "x" * 4_000, retryable=False)
    stage.settle()
    assert stage.run.status == "completed"
    assert max(len(encode(made)) for made in stage.log) <= names.DECISION_BYTES_MAX


def test_a_large_order_travels_apart_when_it_would_burst_its_decision() -> None:
    """An order of up to 256 KiB and a decision of as much are two messages."""
    reads = [f"s{n}" for n in range(4)]
    steps: dict[str, Any] = {name: tool() for name in reads}
    steps["join"] = {
        "transform": {name: "${{ steps." + name + ".output }}" for name in reads} | {"a": "${{ file('a') }}"}
    }
    stage = Stage(plan(steps))
    stage.settle()
    for name in reads:
        stage.succeed(name, BIG[:60_000])
    stage.settle()
    assert stage.running() == ["join"]
    assert max(len(encode(made)) for made in stage.log) <= names.ORDER_BYTES_MAX
    held = [value for value in stage.order("join").bindings.values() if value.ref]
    assert held and all(value.ref in stage.blobs for value in held)


def test_cancelling_very_many_steps_stays_within_a_decision() -> None:
    """A run of thousands of sleepers ends in portions no decision bursts at."""
    steps = {f"wait-{n:04}": {"wait": {"for": "1h"}} for n in range(3_500)}
    stage = Stage(plan(steps))
    stage.settle()
    stage.control("cancel")
    stage.settle()
    assert stage.run.status == "cancelled"
    assert max(len(encode(made)) for made in stage.log) <= names.DECISION_BYTES_MAX
    failed = Stage(plan(steps))
    failed.settle()
    failed.later(failed.plan.deadline_ms).settle()
    assert failed.run.status == "failed"
    assert max(len(encode(made)) for made in failed.log) <= names.DECISION_BYTES_MAX


def test_deciding_costs_what_changed() -> None:
    """3,000 ready steps that wait for room are not evaluated each time one of sixteen ends."""
    stage = Stage(
        plan({f"s{n}": tool(when="inputs.x > 0") for n in range(3_000)}, inputs={"x": {"type": "integer"}}), {"x": 1}
    )
    stage.settle()
    run, plan_, now_ms = stage.run, stage.plan, stage.now_ms
    began_s = time.perf_counter()
    for _ in range(20):
        assert decide(run, plan_, now_ms=now_ms, limits=stage.limits()) is None
    assert (time.perf_counter() - began_s) / 20 < 0.05  # 8 ms on two slow cores; evaluating their conditions took 120


def test_a_value_is_inline_or_by_reference_and_looks_the_same() -> None:
    """`Value` never has both."""
    stage = Stage(plan({"a": {"transform": "${{ inputs.x }}"}}, inputs={"x": {"type": "string"}}), {"x": "small"})
    stage.settle()
    value = stage.run.insts["a"].output
    assert isinstance(value, Value) and not value.ref and stage.output("a") == "small"
