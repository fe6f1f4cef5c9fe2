"""What a new run takes over from another, why not more, and that it then goes on as if it had done it."""

from typing import Any

import msgspec
import pytest
from tests.builders import plan, tool
from tests.unit.scheduler.stage import Stage, state_hash

from headrace.contracts import events as ev
from headrace.contracts.codec import inline
from headrace.contracts.errors import DataError, NotFoundError
from headrace_scheduler.damage import doubt
from headrace_scheduler.forking import Fork, taken_over
from headrace_scheduler.refusal import RefusedError

INPUTS = {"n": {"default": 0}, "m": {"default": 0}}
CHAIN = {
    "a": tool(**{"with": {"n": "${{ inputs.n }}"}}),
    "b": tool(**{"with": {"a": "${{ steps.a.output }}"}}),
    "c": tool(**{"with": {"b": "${{ steps.b.output }}", "m": "${{ inputs.m }}"}}),
    "side": tool(),
    "last": tool(needs=["c", "side"]),
}


def of(steps: dict[str, Any], *ends: str, **top: Any) -> Stage:
    """A run of these steps in which these have succeeded with their own name."""
    stage = Stage(plan(steps, **{"inputs": INPUTS} | top), {"n": 1, "m": 1}, run="old")
    stage.settle()
    for path in ends:
        stage.succeed(path, path)
        stage.settle()
    return stage


def taken(
    stage: Stage, step: str, steps: dict[str, Any] | None = None, top: dict[str, Any] | None = None, **inputs: Any
) -> tuple[ev.Taken, ...]:
    """What a fork at a step takes over; `steps` and `top` edit the definition."""
    edited = stage.plan if steps is None else plan(steps, **{"inputs": INPUTS} | (top or {}))
    before = {"n": 1, "m": 1}
    return taken_over(Fork(stage.run, stage.plan, edited, before, before | inputs), step)


def names(found: tuple[ev.Taken, ...]) -> list[str]:
    """The paths alone."""
    return [one.path for one in found]


def why(stage: Stage, step: str, steps: dict[str, Any] | None = None, **inputs: Any) -> list[str]:
    """Every reason of a refusal."""
    with pytest.raises(RefusedError) as refused:
        taken(stage, step, steps, **inputs)
    assert {reason.code for reason in refused.value.reasons} == {"prefix_changed"}
    return [reason.message for reason in refused.value.reasons]


def going_on(stage: Stage, step: str, steps: dict[str, Any] | None = None, **inputs: Any) -> Stage:
    """The new run, with everything decided that can be."""
    edited = stage.plan if steps is None else plan(steps, inputs=INPUTS)
    found = taken(stage, step, steps, **inputs)
    forked = ev.RunForked(origin="old", seq=len(stage.log), version=stage.run.version, step=step, taken=found)
    made = Stage(edited, {"n": 1, "m": 1} | inputs, run="new", forked=forked)
    made.blobs |= stage.blobs
    made.settle()
    return made


# --- which -----------------------------------------------------------------------------------------


def test_all_that_does_not_depend_on_the_step_is_taken_over() -> None:
    """Before it and beside it, whenever that ended."""
    stage = of(CHAIN, "a", "side", "b", "c", "last")
    assert stage.run.status == "completed"
    assert names(taken(stage, "c")) == ["a", "b", "side"]
    assert names(taken(stage, "side")) == ["a", "b", "c"]
    assert names(taken(stage, "a")) == ["side"]
    assert names(taken(stage, "last")) == ["a", "b", "c", "side"]


def test_a_changed_input_that_was_read_before_the_step_refuses_the_fork() -> None:
    """With every step, what it read, and where to begin instead; read only later it changes nothing."""
    stage = of(CHAIN, "a", "side", "b", "c", "last")
    assert why(stage, "c", n=2) == [
        "`a` comes before `c` and cannot be shared: it reads `inputs.n`, which changes; begin at `a` instead"
    ]
    assert names(taken(stage, "c", m=2)) == ["a", "b", "side"]
    assert names(taken(stage, "a", n=2)) == ["side"]
    assert names(taken(stage, "c", n=1)) == ["a", "b", "side"], "the same value is no change"


def test_what_stands_beside_and_reads_a_change_is_done_again_with_what_depends_on_it() -> None:
    """It is neither before the step nor after it, so nobody said that it is shared."""
    steps = CHAIN | {"side": tool(**{"with": {"m": "${{ inputs.m }}"}}), "more": tool(needs=["side"])}
    stage = of(steps, "a", "side", "b", "c", "more", "last")
    assert names(taken(stage, "c", m=2)) == ["a", "b"]
    assert names(taken(stage, "c")) == ["a", "b", "more", "side"]


def test_inputs_that_are_read_inside_or_on_the_way_count_too() -> None:
    """Lists, conditions, loops, cases, fallbacks, outputs of groups, and inputs as a whole."""
    reads = "${{ inputs.n }}"
    cases: dict[str, dict[str, Any]] = {
        "list": {"foreach": "${{ [inputs.n] }}", **tool()},
        "when": tool(when="inputs.n > 0"),
        "inside": {"steps": {"x": tool(**{"with": {"n": reads}})}},
        "outputs": {"steps": {"x": tool()}, "outputs": {"n": reads}},
        "case": {"switch": [{"when": "inputs.n > 0", "steps": {"x": tool()}}]},
        "while": {"while": "iteration < inputs.n", "max_iterations": 3, **tool()},
        "fallback": tool(fallback={"value": reads}),
        "stands in": tool(fallback="other"),
        "whole": tool(**{"with": {"n": "${{ inputs }}"}}),
        "where": {"transform": {"from": "${{ [1] }}", "where": "item > inputs.n"}},
    }
    for name, step in cases.items():
        steps = {"s": step, "other": tool(**{"with": {"n": reads}}), "end": tool(needs=["s"])}
        stage = of(steps)
        while stage.running():
            stage.succeed(stage.running()[0], 1)
            stage.settle()
        assert stage.run.status == "completed", name
        assert names(taken(stage, "end"))[-1] == "s" or "s" in names(taken(stage, "end")), name
        assert any("inputs.n" in text for text in why(stage, "end", n=2)), name


def test_an_edited_step_before_refuses_and_one_after_does_not() -> None:
    """What only says how a result is come by is no edit of the result."""
    stage = of(CHAIN, "a", "side", "b", "c", "last")
    other = CHAIN | {"b": tool(**{"with": {"a": "${{ steps.a.output }}", "x": 1}})}
    assert "its definition has changed" in why(stage, "c", other)[0]
    assert names(taken(stage, "b", other)) == ["a", "side"]
    how = {"retry": {"attempts": 9}, "timeout": "9s", "priority": 3, "deadline": "1h"}
    assert names(taken(stage, "c", CHAIN | {"b": CHAIN["b"] | how})) == ["a", "b", "side"]
    grown = CHAIN | {"new": tool(), "c": CHAIN["c"] | {"needs": ["new"]}}
    assert why(stage, "c", grown) == [
        "`new` comes before `c` and cannot be shared: the run has no such step; begin at `new` instead"
    ]
    assert names(taken(stage, "new", grown)) == ["a", "b", "side"]


def test_a_changed_constant_is_as_a_changed_input() -> None:
    """Only for those who read it."""
    steps = {"a": tool(**{"with": {"x": "${{ vars.x }}"}}), "b": tool(needs=["a"])}
    stage = of(steps, "a", "b", vars={"x": 1, "y": 1})
    assert names(taken(stage, "b", steps, {"vars": {"x": 1, "y": 2}})) == ["a"]
    with pytest.raises(RefusedError, match=r"reads `vars\.x`"):
        taken(stage, "b", steps, {"vars": {"x": 2, "y": 1}})


def test_a_fork_of_an_open_run_takes_what_has_ended() -> None:
    """What is under way before the step would be paid twice, so that is refused."""
    stage = of(CHAIN, "a", "side")
    assert stage.run.status == "running"
    assert names(taken(stage, "b")) == ["a", "side"]
    assert why(stage, "c") == [
        "`b` comes before `c` and cannot be shared: it has not ended in that run; begin at `b` instead"
    ]


def test_a_failed_run_is_gone_on_with_from_what_failed() -> None:
    """Not from behind it; a failure that the pipeline tolerates and a skipped step are results like others."""
    steps = CHAIN | {"soft": tool(on_error="continue"), "off": tool(when="false")}
    stage = of(steps, "a", "side")
    stage.fail("soft", "denied", retryable=False)
    stage.settle()
    stage.fail("b", "denied", retryable=False)
    stage.settle()
    assert stage.run.status == "failed"
    found = taken(stage, "b")
    assert names(found) == ["a", "off", "side", "soft"]
    assert {one.path: one.status for one in found} == {
        "a": "succeeded",
        "off": "skipped",
        "side": "succeeded",
        "soft": "failed",
    }
    assert "it failed; begin at `b`" in why(stage, "c")[0]


def test_containers_are_taken_over_whole_and_nothing_begins_inside() -> None:
    """Items and iterations have no place of their own in another run."""
    steps = {
        "each": {"foreach": "${{ [1, 2] }}", **tool()},
        "group": {"needs": ["each"], "steps": {"x": tool()}, "outputs": {"x": "${{ steps.x.output }}"}},
        "end": tool(needs=["group"]),
    }
    stage = of(steps, "each[0]", "each[1]", "group/x", "end")
    assert names(taken(stage, "end")) == ["each", "group"]
    for inside, outer in (("each[1]", "each"), ("group/x", "group")):
        with pytest.raises(DataError, match=f"name `{outer}`"):
            taken(stage, inside)
    with pytest.raises(NotFoundError, match="no step 'nope' in pipeline `demo`; it has each, end, group"):
        taken(stage, "nope")


def test_a_step_that_only_stands_in_is_no_place_to_begin() -> None:
    """Its owner is."""
    stage = of({"a": tool(fallback="b"), "b": tool()}, "a")
    with pytest.raises(DataError, match="`b` only stands in for `a`, or undoes it; name that"):
        taken(stage, "b")


def test_what_wrote_files_is_not_taken_over() -> None:
    """They lie in the other run's workspace; what only reads there is."""
    steps = {
        "read": {"tool": "fs.read", "with": {"path": "x"}},
        "write": {"needs": ["read"], "tool": "fs.write", "with": {"path": "x", "text": "y"}},
        "end": tool(needs=["write"]),
    }
    stage = of(steps, "read", "write", "end", workspace=True)
    assert "it may have written files" in why(stage, "end")[0]
    assert names(taken(stage, "write")) == ["read"]


# --- who undoes -----------------------------------------------------------------------------------

UNDONE = {"a": tool(compensate="undo"), "undo": tool(), "b": tool(needs=["a"])}


def test_a_step_that_is_undone_is_taken_over_only_from_a_completed_run() -> None:
    """Any other has undone it, or may yet."""
    completed = of(UNDONE, "a", "b")
    assert names(taken(completed, "b")) == ["a"]
    for stage in (of(UNDONE, "a"), of(UNDONE, "a")):
        assert "undone it, or may yet" in why(stage, "b")[0]
    failed = of(UNDONE, "a")
    failed.fail("b", "denied", retryable=False)
    failed.settle()
    failed.succeed("undo")
    failed.settle()
    assert failed.run.status == "failed"
    assert "undone it, or may yet" in why(failed, "b")[0]
    assert names(taken(failed, "a")) == []


def test_whoever_did_a_step_undoes_it() -> None:
    """The run that took it over fails without touching it."""
    made = going_on(of(UNDONE, "a", "b"), "b")
    made.fail("b", "denied", retryable=False)
    made.settle()
    assert made.run.status == "failed"
    assert made.events(ev.CompensationStarted) == []
    inside = {"g": {"steps": UNDONE | {"b": tool(needs=["a"])}}, "end": tool(needs=["g"])}
    made = going_on(of(inside, "g/a", "g/b", "end"), "end")
    made.fail("end", "denied", retryable=False)
    made.settle()
    assert (made.run.status, made.events(ev.CompensationStarted)) == ("failed", [])


# --- how it goes on -------------------------------------------------------------------------------


def test_the_new_run_orders_only_what_is_anew_and_reads_what_was_taken_over() -> None:
    """As if it had done it: outputs, statuses, attempts, errors, what was used."""
    steps = {
        "a": tool(retry={"attempts": 2, "initial": "1s"}),
        "soft": tool(on_error="continue"),
        "off": tool(when="false"),
        "each": {"foreach": "${{ [1, 2] }}", "on_item_error": "continue", **tool()},
        "end": tool(
            **{
                "with": {
                    "a": "${{ steps.a.output }}",
                    "tries": "${{ steps.a.attempts }}",
                    "soft": "${{ [steps.soft.status, steps.soft.error.code] }}",
                    "off": "${{ steps.?off.?output.orValue('none') }}",
                    "each": "${{ steps.each.output.counts.succeeded }}",
                }
            }
        ),
    }
    stage = of(steps)
    stage.fail("a")
    stage.settle()
    stage.until_due()
    stage.settle()
    stage.fail("soft", "denied", retryable=False)
    for path in ("a", "each[0]", "each[1]"):
        stage.settle()
        stage.succeed(path, {"from": path})
    stage.settle()
    stage.succeed("end")
    stage.settle()
    made = going_on(stage, "end")
    assert list(made.orders()) == ["end"]
    order = made.order("end")
    assert isinstance(order.input, msgspec.Raw)
    assert msgspec.json.decode(order.input) == {
        "a": {"from": "a"},
        "tries": 2,
        "soft": ["failed", "denied"],
        "off": "none",
        "each": 2,
    }
    made.succeed("end", 1)
    made.settle()
    assert made.run.status == "completed" and made.run.degraded
    assert made.ends() == {"end": 1}


def test_its_history_alone_folds_to_its_state_also_from_a_snapshot() -> None:
    """The other run may be gone; decisions and snapshots are those of any run."""
    stage = of(CHAIN, "a", "side", "b", "c", "last")
    made = going_on(stage, "c", m=5)
    made.succeed("c", 1)
    made.settle()
    made.succeed("last", 1)
    made.settle()
    assert made.run.status == "completed"
    whole = state_hash(made.run)
    for upto in range(1, len(made.log) + 1):
        assert state_hash(made.folded(snapshot_at=upto)) == whole, upto
    assert not any(doubt(made.folded(1), one) for one in made.log[1:2] if isinstance(one, ev.RunDecided))


def test_a_fork_of_a_fork_takes_over_what_was_taken_over() -> None:
    """And what it did itself."""
    first = going_on(of(CHAIN, "a", "side", "b", "c", "last"), "b")
    first.run.run = "old"
    first.succeed("b", "again")
    first.settle()
    found = taken(first, "c")
    assert {one.path: one.output for one in found} == {
        "a": inline("a"),
        "b": inline("again"),
        "side": inline("side"),
    }


def test_answered_signals_and_ended_children_are_results_like_others() -> None:
    """A signal that was taken is taken; the child is not started again."""
    steps = {
        "go": {"signal": {"name": "go"}},
        "sub": {"needs": ["go"], "pipeline": "other", "with": {}},
        "end": tool(**{"with": {"x": "${{ [steps.go.output, steps.sub.output] }}"}}),
    }
    stage = Stage(plan(steps, inputs=INPUTS), {"n": 1, "m": 1}, run="old", definitions={"other": "0" * 64})
    stage.settle()
    stage.signal("go", "now")
    stage.settle()
    stage.child_ended("sub")
    stage.settle()
    child = stage.output("sub")
    made = going_on(stage, "end")
    assert list(made.orders()) == ["end"]
    assert made.events(ev.ChildStarted) == [] == made.events(ev.SignalTaken)
    order = made.order("end")
    assert isinstance(order.input, msgspec.Raw)
    assert msgspec.json.decode(order.input) == {"x": ["now", child]}


def test_the_step_that_stood_in_is_taken_over_with_the_one_it_stood_in_for() -> None:
    """The result is degraded here as there; when what it read is anew, so is the one it stood in for."""
    steps = {
        "x": tool(),
        "a": tool(fallback="b"),
        "b": tool(**{"with": {"x": "${{ steps.?x.?status.orValue('') }}"}}),
        "end": tool(needs=["a"]),
    }
    stage = of(steps, "x")
    stage.fail("a", "denied", retryable=False)
    stage.settle()
    for path in ("b", "end"):
        stage.succeed(path, path)
        stage.settle()
    assert names(taken(stage, "end")) == ["a", "b", "x"]
    made = going_on(stage, "end")
    made.succeed("end")
    made.settle()
    assert made.run.status == "completed" and made.run.degraded
