"""Steps inside of steps: groups, cases, loops and windows over them, at any depth."""

from typing import Any

import pytest
from tests.builders import by_reference, plan, tool
from tests.unit.scheduler.stage import LEFT_NONE, Stage

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.pipeline.plan import Plan

LARGE = "x" * (names.INLINE_BYTES_MAX + 1)


def of(steps: dict[str, Any], inputs: dict[str, Any] | None = None, **top: Any) -> Stage:
    """A run of these steps, with everything decided that can be."""
    schemas = {name: {} for name in inputs or {}}
    stage = Stage(plan(steps, **{"inputs": schemas} | top), inputs or {})
    stage.settle()
    return stage


def answer(stage: Stage, *paths: str, value: Any = 1) -> None:
    """These succeed, one after the other."""
    for path in paths:
        assert stage.succeed(path, value), (path, stage.running())
        stage.settle()


def finish(stage: Stage, value: Any = 1) -> list[str]:
    """Everything that is out succeeds, until nothing is; gives what was called, in order."""
    called = []
    while stage.running():
        path = stage.running()[0]
        called.append(path)
        answer(stage, path, value=value)
    return called


def failed(stage: Stage) -> str:
    """The code of a failed run."""
    assert stage.run.status == "failed" and stage.run.failure is not None, stage.run.status
    return stage.run.failure.code


# --- groups --------------------------------------------------------------------------------------


def test_a_group_has_a_graph_of_its_own_and_gives_its_outputs() -> None:
    """Steps inside have the group's path; what comes after it reads its outputs."""
    stage = of(
        {
            "g": {
                "steps": {"a": tool(), "b": tool(**{"with": {"x": "${{ steps.a.output + 1 }}"}})},
                "outputs": {"sum": "${{ steps.a.output + steps.b.output }}"},
            },
            "after": tool(**{"with": {"x": "${{ steps.g.output.sum }}"}}),
        },
        outputs={"sum": "${{ steps.g.output.sum }}"},
    )
    assert stage.running() == ["g/a"]
    answer(stage, "g/a", value=20)
    assert stage.running() == ["g/b"]
    answer(stage, "g/b", value=22)
    assert stage.running() == ["after"]
    answer(stage, "after")
    assert stage.outputs() == {"sum": 42}
    assert "g/a" not in stage.run.insts


def test_a_group_without_outputs_gives_null_and_one_that_reads_skipped_steps_too() -> None:
    """Each output by itself."""
    inner = {"a": tool(when="false"), "b": tool()}
    stage = of(
        {
            "g": {"steps": inner, "outputs": {"a": "${{ steps.a.output }}", "b": "${{ steps.b.output }}"}},
            "h": {"steps": {"c": tool()}},
        },
        outputs={"g": "${{ steps.g.output }}", "h": "${{ steps.h.output }}"},
    )
    finish(stage)
    assert stage.outputs() == {"g": {"a": None, "b": 1}, "h": None}


def test_steps_inside_read_steps_outside_and_are_skipped_with_them() -> None:
    """`outer`: what a step inside needs outside has ended before; where it was skipped, so is the step inside alone."""
    stage = of(
        {
            "no": tool(when="false"),
            "yes": tool(),
            "g": {
                "steps": {
                    "a": tool(**{"with": {"x": "${{ steps.no.output }}"}}),
                    "b": tool(**{"with": {"x": "${{ steps.yes.output }}"}}),
                }
            },
        }
    )
    assert stage.running() == ["yes"]
    answer(stage, "yes")
    assert stage.running() == ["g/b"]
    answer(stage, "g/b")
    assert stage.run.status == "completed"
    assert [event.path for event in stage.events(ev.StepSkipped)] == ["no", "g/a"]


def test_groups_nest_and_a_path_says_where() -> None:
    """Ten deep is what the language allows; the innermost reads the outermost."""
    steps: dict[str, Any] = {"last": tool(**{"with": {"x": "${{ steps.first.output }}"}})}
    for depth in range(8):
        steps = {f"g{depth}": {"steps": steps}}
    stage = of({"first": tool(), **steps})
    answer(stage, "first", value=7)
    assert stage.running() == ["g7/g6/g5/g4/g3/g2/g1/g0/last"]
    finish(stage)
    assert stage.run.status == "completed"
    assert sorted(stage.run.insts) == ["first", "g7"]


def test_a_failed_step_inside_fails_the_group_and_stops_its_siblings() -> None:
    """What else was under way in it is cancelled, what is outside goes on until the run ends."""
    stage = of({"g": {"steps": {"a": tool(retry={"attempts": 1}), "b": tool()}}, "c": tool()})
    stage.fail("g/a", "broken", retryable=False)
    stage.settle()
    assert failed(stage) == "broken"
    assert {event.path for event in stage.events(ev.StepCancelled)} == {"g/b", "c"}
    group = next(event for event in stage.events(ev.StepFailed) if event.path == "g")
    assert group.failure.causes == ("step g/a",)


def test_a_group_is_tried_again_as_a_whole() -> None:
    """The second attempt has steps of its own, under `#2`; those of the first are over."""
    inner = {"a": tool(), "b": tool(needs=["a"], retry={"attempts": 1})}
    stage = of({"g": {"steps": inner, "retry": {"attempts": 2, "initial": "1s"}}})
    answer(stage, "g/a")
    stage.fail("g/b")
    stage.settle()
    assert stage.status("g") == "sleeping" and stage.running() == []
    stage.until_due()
    stage.settle()
    assert finish(stage) == ["g#2/a", "g#2/b"]
    assert stage.run.status == "completed"
    assert [event.attempt for event in stage.events(ev.StepCompleted) if event.path == "g"] == [2]


def test_a_group_over_its_timeout_is_stopped_and_tried_again_within_its_deadline() -> None:
    """The timeout is that of an attempt, the deadline that of all."""
    stage = of({"g": {"steps": {"a": tool()}, "timeout": "10s", "deadline": "15s", "retry": {"attempts": 9}}})
    stage.later(10_000).settle()
    assert stage.status("g") == "sleeping"
    assert [event.path for event in stage.events(ev.StepCancelled)] == ["g/a"]
    stage.until_due()
    stage.settle()
    assert stage.running() == ["g#2/a"]
    stage.later(15_000).settle()
    assert failed(stage) == "deadline_exceeded"


# --- switch --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "called", "gives"), [(1, "r:0/a", {"x": 5}), (2, "r:1/b", {"y": 5}), (3, "r:2/c", None)])
def test_a_switch_takes_the_first_case_that_holds(n: int, called: str, gives: Any) -> None:
    """Its outputs are those of the case."""
    cases = [
        {"when": "inputs.n == 1", "steps": {"a": tool()}, "outputs": {"x": "${{ steps.a.output }}"}},
        {"when": "inputs.n < 3", "steps": {"b": tool()}, "outputs": {"y": "${{ steps.b.output }}"}},
        {"default": {"steps": {"c": tool()}}},
    ]
    stage = of({"r": {"switch": cases}}, {"n": n}, outputs={"r": "${{ steps.r.output }}"})
    assert finish(stage, 5) == [called]
    assert stage.outputs() == {"r": gives}


def test_a_switch_of_which_no_case_holds_is_skipped() -> None:
    """With what needs it."""
    stage = of({"r": {"switch": [{"when": "false", "steps": {"a": tool()}}]}, "b": tool(needs=["r"])})
    assert stage.run.status == "completed"
    assert [event.path for event in stage.events(ev.StepSkipped)] == ["r", "b"]


def test_a_case_over_a_large_value_is_chosen_by_an_executor() -> None:
    """As small ones are here: the first that holds."""
    cases = [
        {"when": "steps.a.output == 'y'", "steps": {"b": tool()}},
        {"when": "size(steps.a.output) > 9", "steps": {"c": tool()}},
    ]
    stage = of({"a": tool(), "r": {"switch": cases}})
    answer(stage, "a", value=by_reference(LARGE.encode()))
    assert stage.running() == ["r?case0"]
    answer(stage, "r?case0", value=False)
    answer(stage, "r?case1", value=True)
    assert finish(stage) == ["r:1/c"]


# --- while, until --------------------------------------------------------------------------------


def looped(**over: Any) -> dict[str, Any]:
    """A call that is repeated with what it gave."""
    return tool(**{"with": {"x": "${{ carry }}", "n": "${{ iteration }}"}, "max_iterations": 3, "carry": 10} | over)


def test_a_while_is_asked_before_each_iteration() -> None:
    """Only `carry` goes from one to the next; the output is the last one's."""
    stage = of({"w": looped(**{"while": "carry < 12"})}, outputs={"w": "${{ steps.w.output }}"})
    given = []
    for number in range(2):
        path = f"w({number})"
        assert stage.running() == [path]
        given.append(bytes(stage.order(path).input))  # type: ignore[arg-type]
        answer(stage, path, value=11 + number)
    assert given == [b'{"n":0,"x":10}', b'{"n":1,"x":11}']
    assert stage.outputs() == {"w": 12}
    assert sorted(stage.run.insts) == ["w"]


def test_a_while_that_holds_never_gives_its_start() -> None:
    """No iteration, no call."""
    stage = of({"w": looped(**{"while": "carry < 0"})}, outputs={"w": "${{ steps.w.output }}"})
    assert stage.outputs() == {"w": 10}


def test_an_until_is_asked_after_each_iteration() -> None:
    """It sees the output that has just come, and that iteration's number."""
    stage = of({"u": looped(until="carry == 'done' && iteration == 1")}, outputs={"u": "${{ steps.u.output }}"})
    answer(stage, "u(0)", value="done")
    answer(stage, "u(1)", value="done")
    assert stage.outputs() == {"u": "done"}


@pytest.mark.parametrize("word", ["while", "until"])
def test_a_loop_that_would_go_on_at_its_limit_fails_or_is_told_to_be_content(word: str) -> None:
    """`limit_exceeded`, or a success with `on_limit: ok`."""
    condition = {"while": "true", "until": "false"}[word]
    for over, status in (({}, "failed"), ({"on_limit": "ok"}, "completed")):
        stage = of({"w": looped(**{word: condition}, **over)})
        assert finish(stage) == ["w(0)", "w(1)", "w(2)"]
        assert stage.run.status == status
    assert failed(of({"w": {"transform": "${{ 1 }}", word: condition, "max_iterations": 2}})) == "limit_exceeded"


def test_a_loop_that_ends_just_at_its_limit_is_no_failure() -> None:
    """The condition is asked before the limit is."""
    stage = of({"w": looped(**{"while": "iteration < 3"})})
    assert finish(stage) == ["w(0)", "w(1)", "w(2)"]
    assert stage.run.status == "completed"


def test_a_failed_iteration_fails_the_loop_after_its_attempts() -> None:
    """Retry is that of one iteration."""
    stage = of({"w": looped(**{"while": "true", "retry": {"attempts": 2}})})
    answer(stage, "w(0)")
    stage.fail("w(1)")
    stage.settle()
    stage.until_due()
    stage.settle()
    assert stage.order("w(1)").attempt == 2
    stage.fail("w(1)")
    stage.settle()
    assert failed(stage) == "unavailable"


def test_a_loop_over_a_large_value_is_asked_about_elsewhere() -> None:
    """The same as over a small one."""
    stage = of({"u": looped(until="size(carry) > 9")}, outputs={"n": "${{ size(steps.u.output) }}"})
    answer(stage, "u(0)", value=by_reference(LARGE.encode()))
    assert stage.running() == ["u(0)?until"]
    answer(stage, "u(0)?until", value=False)
    answer(stage, "u(1)", value="short")
    answer(stage, "u(2)", value="long enough, this")
    assert stage.outputs() == {"n": 17}
    assert stage.run.asked == {}


def test_a_loop_of_groups_has_one_living_iteration() -> None:
    """Its steps are those of `(k)`; outputs become `carry`."""
    group = {
        "steps": {"a": tool(**{"with": {"x": "${{ carry.n }}"}})},
        "outputs": {"n": "${{ carry.n + steps.a.output }}"},
        "carry": {"n": 0},
        "until": "carry.n >= 4",
        "max_iterations": 9,
    }
    stage = of({"g": group}, outputs={"n": "${{ steps.g.output.n }}"})
    answer(stage, "g(0)/a", value=3)
    assert sorted(stage.run.insts) == ["g", "g(1)", "g(1)/a"]
    answer(stage, "g(1)/a", value=2)
    assert stage.outputs() == {"n": 5}


def test_what_ends_at_once_turns_within_one_decision() -> None:
    """A loop of small expressions costs no order."""
    stage = of(
        {"w": {"transform": "${{ carry + 1 }}", "carry": 0, "while": "carry < 100", "max_iterations": 1000}},
        outputs={"w": "${{ steps.w.output }}"},
    )
    assert stage.outputs() == {"w": 100}
    assert len(stage.decisions) == 1


# --- foreach over groups -------------------------------------------------------------------------


def test_windows_nest_and_names_of_loops_are_their_own() -> None:
    """`item` and `index` of both, at any depth; results by index."""
    inner = {
        "foreach": "${{ item.xs }}",
        "as": "x",
        **tool(**{"with": {"at": "${{ index }}", "x": "${{ x }}", "name": "${{ item.name }}"}}),
    }
    stage = of(
        {
            "g": {
                "foreach": "inputs.rows",
                "steps": {"each": inner},
                "outputs": {"n": "${{ steps.each.output.counts.total }}", "i": "${{ index }}"},
            }
        },
        {"rows": [{"name": "a", "xs": [1, 2]}, {"name": "b", "xs": []}, {"name": "c", "xs": [3]}]},
        outputs={"g": "${{ steps.g.output.items }}"},
    )
    assert set(stage.running()) == {"g[0]/each[0]", "g[0]/each[1]", "g[2]/each[0]"}
    assert bytes(stage.order("g[0]/each[1]").input) == b'{"at":1,"name":"a","x":2}'  # type: ignore[arg-type]
    finish(stage)
    assert stage.outputs() == {"g": [{"n": 2, "i": 0}, {"n": 0, "i": 1}, {"n": 1, "i": 2}]}
    assert sorted(stage.run.insts) == ["g"]


def test_a_failed_item_of_groups_is_tolerated_or_not() -> None:
    """As one of calls: the others go on, and `failed` says which; or the whole fails with it."""
    group = {"foreach": "inputs.xs", "steps": {"a": tool(retry={"attempts": 1})}, "max_parallel": 2}
    stage = of({"g": group | {"on_item_error": "continue"}}, {"xs": [1, 2, 3]}, outputs={"g": "${{ steps.g.output }}"})
    stage.fail("g[1]/a")
    stage.settle()
    finish(stage)
    found = stage.outputs()["g"]
    assert found["items"] == [None, None, None] and found["counts"]["failed"] == 1
    assert found["failed"][0]["index"] == 1
    assert stage.run.degraded
    stage = of({"g": group}, {"xs": [1, 2, 3]})
    stage.fail("g[1]/a")
    stage.settle()
    assert failed(stage) == "unavailable"
    assert set(stage.run.insts) == {"g"}


def test_an_item_is_tried_again_with_its_own_scope() -> None:
    """Others are not touched."""
    group = {"foreach": "inputs.xs", "steps": {"a": tool(retry={"attempts": 1})}, "retry": {"attempts": 2}}
    stage = of({"g": group}, {"xs": [1, 2]})
    stage.fail("g[0]/a")
    stage.settle()
    assert stage.running() == ["g[1]/a"]
    stage.until_due()
    stage.settle()
    assert stage.running() == ["g[1]/a", "g[0]#2/a"]
    finish(stage)
    assert stage.run.status == "completed"


def test_the_deadline_of_a_foreach_is_that_of_the_whole() -> None:
    """However many items have not begun."""
    stage = of({"m": tool(foreach="inputs.xs", max_parallel=1, deadline="5m")}, {"xs": [1, 2]})
    stage.later(100_000)
    answer(stage, "m[0]")
    stage.later(200_000).settle()
    assert failed(stage) == "deadline_exceeded"


def test_a_condition_over_a_large_item_is_asked_elsewhere_and_keeps_the_window() -> None:
    """Items in flight are those asked about too, so `max_parallel` holds."""
    over: dict[str, Any] = {"foreach": "${{ steps.a.output }}", "when": "item > 1", "max_parallel": 2}
    stage = of({"a": tool(), "m": tool(**over)}, outputs={"m": "${{ steps.m.output.counts }}"})
    answer(stage, "a", value=by_reference(LARGE.encode()))
    answer(stage, "m?items", value=by_reference(LARGE.encode(), count=3))
    assert stage.running() == ["m[0]?when", "m[1]?when"]
    answer(stage, "m[0]?when", value=False)
    assert stage.running() == ["m[1]?when", "m[2]?when"]
    answer(stage, "m[2]?when", value=True)
    answer(stage, "m[1]?when", value=True)
    assert stage.running() == ["m[2]", "m[1]"]
    finish(stage)
    assert stage.run.asked == {}


# --- limits, controls ----------------------------------------------------------------------------


def test_a_group_takes_no_place_in_max_parallel() -> None:
    """Only what is in flight counts, wherever it stands."""
    group = {"foreach": "inputs.xs", "max_parallel": 9, "steps": {"a": tool(), "b": tool()}}
    stage = of({"g": group}, {"xs": list(range(5))}, limits={"max_parallel": 3})
    seen = 0
    while stage.running():
        seen = max(seen, len(stage.running()))
        answer(stage, stage.running()[-1])
    assert seen == 3 and stage.run.status == "completed"


def test_without_room_on_a_queue_a_loop_waits_and_goes_on() -> None:
    """Nothing is lost while nothing may be offered."""
    stage = Stage(plan({"w": looped(**{"while": "true"})}))
    stage.settle(left=LEFT_NONE)
    assert stage.running() == []
    stage.settle()
    assert stage.running() == ["w(0)"]


def test_cancelling_stops_everything_at_any_depth() -> None:
    """Each that was under way says so, once."""
    group = {"foreach": "inputs.xs", "steps": {"w": looped(until="false"), "h": {"steps": {"a": tool()}}}}
    stage = of({"g": group}, {"xs": [1, 2]})
    stage.control("cancel")
    stage.settle()
    assert stage.run.status == "cancelled"
    assert stage.ends() == dict.fromkeys(
        [f"g[{n}]{rest}" for n in (0, 1) for rest in ("", "/w", "/w(0)", "/h", "/h/a")] + ["g"], 1
    )
    assert stage.run.active == {} and stage.run.in_flight == 0


def test_a_paused_run_begins_no_iteration() -> None:
    """What is in flight ends; the rest waits for the resume."""
    stage = of({"w": looped(**{"while": "true"})})
    stage.control("pause")
    stage.settle()
    answer(stage, "w(0)")
    assert stage.running() == []
    stage.control("resume")
    stage.settle()
    assert stage.running() == ["w(1)"]


def one_of(count: int) -> Plan:
    """A map over groups of two steps, the second of which takes what the first gave."""
    pair = {"a": tool(), "b": tool(**{"with": {"x": "${{ steps.a.output }}"}})}
    return plan(
        {"g": {"foreach": "inputs.xs", "max_parallel": 50, "steps": pair, "outputs": {"b": "${{ steps.b.output }}"}}},
        inputs={"xs": {"type": "array"}},
        limits={"max_parallel": count},
    )


def test_a_finished_item_shrinks_to_its_result() -> None:
    """Whatever the number of items, only those in flight have a scope."""
    stage = Stage(one_of(4), {"xs": list(range(300))})
    most = 0
    stage.settle()
    while stage.running():
        for path in stage.running():
            stage.succeed(path, 1)
        stage.settle()
        most = max(most, len(stage.run.insts))
    assert stage.run.status == "completed"
    assert most <= 1 + 50 * 3
