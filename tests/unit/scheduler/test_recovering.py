"""Steps that stand in for others, and steps that undo them."""

from typing import Any

import pytest
from tests.builders import by_reference, plan, tool
from tests.unit.scheduler.stage import Stage

from headrace.contracts import events as ev
from headrace.contracts import names

ONCE = {"retry": {"attempts": 1}}


def of(steps: dict[str, Any], **top: Any) -> Stage:
    """A run of these steps, with everything decided that can be."""
    stage = Stage(plan(steps, **top))
    stage.settle()
    return stage


def answer(stage: Stage, *paths: str, value: Any = 1) -> None:
    """These succeed, one after the other."""
    for path in paths:
        assert stage.succeed(path, value), (path, stage.running())
        stage.settle()


def breaks(stage: Stage, path: str) -> None:
    """It fails for good."""
    assert stage.fail(path, "broken", retryable=False), (path, stage.running())
    stage.settle()


# --- fallback ------------------------------------------------------------------------------------


def test_a_value_stands_in_and_the_result_is_degraded() -> None:
    """After the last attempt; what comes next reads the value; the failure can be read, too."""
    value = {"value": {"x": 7, "why": "${{ inputs.why }}"}}
    stage = Stage(
        plan(
            {"a": tool(retry={"attempts": 2}, fallback=value), "b": tool(**{"with": {"x": "${{ steps.a.output.x }}"}})},
            inputs={"why": {}},
            outputs={"a": "${{ steps.a.output }}"},
        ),
        {"why": "down"},
    )
    stage.settle()
    stage.fail("a")
    stage.settle()
    assert stage.status("a") == "sleeping"
    stage.until_due()
    stage.settle()
    stage.fail("a")
    stage.settle()
    assert stage.running() == ["b"]
    answer(stage, "b")
    assert stage.outputs() == {"a": {"x": 7, "why": "down"}}
    ended = next(event for event in stage.events(ev.StepCompleted) if event.path == "a")
    assert ended.degraded and ended.attempt == 2
    assert stage.events()[-1].degraded


@pytest.mark.parametrize("around", ["", "g/"])
def test_a_step_stands_in(around: str) -> None:
    """It does not run otherwise, may read what is known of the failure's place, and gives what the step would."""
    steps: dict[str, Any] = {
        "first": tool(),
        "a": tool(fallback="plan-b", **{"with": {"x": "${{ steps.first.output }}"}}),
        "plan-b": tool(**{"with": {"x": "${{ steps.first.output }}"}}),
        "c": tool(**{"with": {"x": "${{ steps.a.output }}"}}),
    }
    for fails in (True, False):
        stage = of({"g": {"steps": steps}} if around else steps)
        answer(stage, f"{around}first")
        assert stage.running() == [f"{around}a"]
        if fails:
            breaks(stage, f"{around}a")
            assert stage.status(f"{around}a") == "standing"
            assert stage.running() == [f"{around}plan-b"]
            answer(stage, f"{around}plan-b", value=5)
        else:
            answer(stage, f"{around}a", value=5)
        assert bytes(stage.order(f"{around}c").input) == b'{"x":5}'  # type: ignore[arg-type]
        answer(stage, f"{around}c")
        assert stage.run.status == "completed"
        assert stage.events()[-1].degraded is fails


def test_a_fallback_that_fails_fails_the_step_with_its_own_reason() -> None:
    """The first failure is the reason, the second is a cause; a chain of them ends."""
    steps = {"a": tool(fallback="b"), "b": tool(fallback="c"), "c": tool()}
    stage = of(steps)
    for path in ("a", "b", "c"):
        breaks(stage, path)
    assert stage.run.status == "failed"
    failure = stage.run.failure
    assert failure is not None and failure.code == "broken"
    assert failure.causes == ("fallback b: broken",)
    assert stage.ends() == {"a": 1, "b": 1, "c": 1}


def test_a_fallback_that_is_skipped_is_none() -> None:
    """Its condition holds for it alone."""
    stage = of({"a": tool(fallback="b"), "b": tool(when="false")})
    breaks(stage, "a")
    assert stage.run.status == "failed"


def test_a_fallback_of_a_foreach_is_for_the_whole() -> None:
    """What is under way of it is stopped."""
    stage = of({"m": tool(foreach=[1, 2, 3], fallback={"value": []})}, outputs={"m": "${{ steps.m.output }}"})
    breaks(stage, "m[1]")
    assert stage.outputs() == {"m": []}
    assert stage.ends() == {"m": 1, "m[0]": 1, "m[1]": 1, "m[2]": 1}


def test_a_large_value_stands_in_as_well() -> None:
    """An executor evaluates it."""
    stage = of({"big": tool(), "a": tool(fallback={"value": "${{ steps.big.output }}"})})
    answer(stage, "big", value=by_reference(b'"' + b"x" * names.INLINE_BYTES_MAX + b'"'))
    breaks(stage, "a")
    assert stage.running() == ["a?fallback"]
    answer(stage, "a?fallback", value="large")
    assert stage.output("a") == "large"


# --- compensate ----------------------------------------------------------------------------------


def chain(*, end: dict[str, Any] | None = None, **over: Any) -> Stage:
    """Two steps that can be undone, and one that fails."""
    return of(
        {
            "a": tool(compensate="undo-a"),
            "undo-a": tool(**{"with": {"x": "${{ steps.a.output }}"}}),
            "b": tool(needs=["a"], compensate="undo-b"),
            "undo-b": tool(retry={"attempts": 2}),
            "c": tool(needs=["b"]) | (end or {}),
        },
        **over,
    )


def test_a_run_that_fails_undoes_what_it_did_the_last_first() -> None:
    """One after the other, each with what it undoes; then it fails for the reason that it had."""
    stage = chain()
    answer(stage, "a", value=3)
    answer(stage, "b")
    breaks(stage, "c")
    assert stage.run.status == "failing" and stage.running() == ["undo-b"]
    answer(stage, "undo-b")
    assert stage.running() == ["undo-a"]
    assert bytes(stage.order("undo-a").input) == b'{"x":3}'  # type: ignore[arg-type]
    answer(stage, "undo-a")
    assert stage.run.status == "failed" and stage.run.failure is not None
    assert stage.run.failure.code == "broken" and stage.events()[-1].path == "c"
    assert [event.path for event in stage.events(ev.CompensationStarted)] == ["b", "a"]
    assert "run-failing" in [decision.headline for decision in stage.decisions]


def test_only_what_succeeded_is_undone_and_only_when_the_run_does_not() -> None:
    """A run that completes undoes nothing; a step that failed was not done."""
    stage = chain()
    answer(stage, "a", "b", "c")
    assert stage.run.status == "completed" and not stage.events(ev.CompensationStarted)
    stage = chain()
    answer(stage, "a")
    breaks(stage, "b")
    assert stage.running() == ["undo-a"]
    stage = chain()
    breaks(stage, "a")
    assert stage.run.status == "failed"


def test_a_cancelled_run_undoes_too() -> None:
    """What is under way is stopped first; nothing else begins."""
    stage = chain()
    answer(stage, "a")
    stage.control("cancel")
    stage.settle()
    assert stage.run.status == "cancelling" and stage.running() == ["undo-a"]
    answer(stage, "undo-a")
    assert stage.run.status == "cancelled"
    assert stage.status("c") in ("waiting", "cancelled")


def test_a_compensation_is_tried_again_and_its_failure_keeps_no_other_from_its_turn() -> None:
    """What cannot be undone says so and the next is undone."""
    stage = chain()
    answer(stage, "a", "b")
    breaks(stage, "c")
    stage.fail("undo-b")
    stage.settle()
    stage.until_due()
    stage.settle()
    breaks(stage, "undo-b")
    assert stage.running() == ["undo-a"]
    answer(stage, "undo-a")
    assert stage.run.status == "failed"
    assert stage.status("undo-b") == "failed"


def test_undoing_has_a_deadline() -> None:
    """An hour; what is left is named in the failure."""
    stage = chain(end={})
    answer(stage, "a", "b")
    breaks(stage, "c")
    for _ in range(10_000):
        if stage.until_due() is None or stage.run.ended:
            break
        stage.settle()
    assert stage.run.status == "failed" and stage.run.failure is not None
    assert stage.now_ms <= stage.decisions[0].at_ms + 2 * names.UNDO_MS + names.STEP_DEADLINE_MS


def test_a_run_that_fails_by_its_deadline_still_undoes() -> None:
    """Undoing has time of its own."""
    stage = chain(limits={"deadline": "1m"})
    answer(stage, "a")
    stage.later(60_000).settle()
    assert stage.running() == ["undo-a"]
    assert stage.order("undo-a").due_ms > stage.now_ms + 60_000
    answer(stage, "undo-a")
    assert stage.run.status == "failed" and stage.run.failure is not None
    assert stage.run.failure.code == "deadline_exceeded"


def test_what_was_done_inside_of_groups_and_items_is_undone_with_what_it_knew() -> None:
    """Its item, its neighbours, long after the group has ended."""
    inner = {
        "pre": tool(),
        "do": tool(needs=["pre"], compensate="undo"),
        "undo": tool(**{"with": {"x": "${{ item }}", "pre": "${{ steps.pre.output }}", "d": "${{ steps.do.output }}"}}),
    }
    stage = of({"g": {"foreach": ["p", "q"], "max_parallel": 1, "steps": inner}, "last": tool(needs=["g"])})
    answer(stage, "g[0]/pre", value=1)
    answer(stage, "g[0]/do", value=2)
    answer(stage, "g[1]/pre", value=3)
    answer(stage, "g[1]/do", value=4)
    breaks(stage, "last")
    assert bytes(stage.order("g[1]/undo").input) == b'{"d":4,"pre":3,"x":"q"}'  # type: ignore[arg-type]
    answer(stage, "g[1]/undo")
    assert bytes(stage.order("g[0]/undo").input) == b'{"d":2,"pre":1,"x":"p"}'  # type: ignore[arg-type]
    answer(stage, "g[0]/undo")
    assert stage.run.status == "failed"


def test_a_compensation_may_be_a_group_or_a_child() -> None:
    """It has all that a step has."""
    steps = {
        "a": tool(compensate="undo"),
        "undo": {"steps": {"x": tool(), "y": {"needs": ["x"], "pipeline": "child", "with": {}}}},
        "b": tool(needs=["a"]),
    }
    stage = Stage(plan(steps), definitions={"child": "d"})
    stage.settle()
    answer(stage, "a")
    stage.control("cancel")
    stage.settle()
    answer(stage, "undo/x")
    assert stage.status("undo/y") == "child"
    stage.child_ended("undo/y")
    stage.settle()
    assert stage.run.status == "cancelled" and stage.status("undo") == "succeeded"


@pytest.mark.parametrize(
    ("fallback", "standby", "status", "degraded"),
    [
        (None, "", "failed", False),
        ({"value": 1}, "", "completed", True),
        ({"value": "${{ steps.?x.?output.orValue(1) }}"}, "", "completed", True),
        ("b", "succeeds", "completed", True),
        ("b", "fails", "failed", False),
        ("b", "is skipped", "failed", False),
    ],
)
def test_otp_n10_a_failure_is_a_success_only_where_a_fallback_says_so(
    fallback: Any, standby: str, status: str, degraded: bool
) -> None:
    """And then it is degraded."""
    steps: dict[str, Any] = {"x": tool(), "a": tool(needs=["x"]) | ({"fallback": fallback} if fallback else {})}
    if standby:
        steps["b"] = tool(**({"when": "false"} if standby == "is skipped" else {}))
    stage = of(steps)
    answer(stage, "x")
    breaks(stage, "a")
    if standby == "succeeds":
        answer(stage, "b")
    elif standby == "fails":
        breaks(stage, "b")
    assert stage.run.status == status
    assert getattr(stage.events()[-1], "degraded", False) is degraded
