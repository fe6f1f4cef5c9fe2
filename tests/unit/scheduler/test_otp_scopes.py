"""What the review asked of nested steps: bounds that hold (N3), size that changes nothing (N4), conditions (N7), and
failure that is never dressed up (N10)."""

from typing import Any

import pytest
from tests.builders import by_reference, plan, tool
from tests.unit.scheduler.stage import Stage

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.pipeline.plan import Plan


def over_groups(parallel: int, run_parallel: int) -> Plan:
    """A window over groups of one call."""
    return plan(
        {
            "g": {
                "foreach": "inputs.xs",
                "max_parallel": parallel,
                "steps": {"a": tool(**{"with": {"x": "${{ item }}"}})},
                "outputs": {"x": "${{ steps.a.output }}"},
            }
        },
        inputs={"xs": {"type": "array"}},
        outputs={"xs": "${{ steps.g.output.items }}", "counts": "${{ steps.g.output.counts }}"},
        limits={"max_parallel": run_parallel},
    )


def drive(stage: Stage, fails: Any = lambda path: "") -> int:
    """Answer everything that is out, a failure where `fails` names its code; gives how much was out at most."""
    most = 0
    stage.settle()
    while not stage.run.ended:
        out = stage.running()
        most = max(most, len(out))
        for path in out:
            code = fails(path)
            if code:
                stage.fail(path, code, retryable=False)
            elif path.endswith("?outputs"):
                stage.succeed(path, None)
            else:
                stage.succeed(path, path)
        stage.settle()
        if not stage.running() and not stage.run.ended:
            assert stage.until_due() is not None
            stage.settle()
    return most


@pytest.mark.parametrize(("n", "p"), [(n, p) for n in (1, 10, 11) for p in (1, 3, 10)] + [(500, 10), (501, 10)])
def test_otp_n3_calls_of_groups_in_flight_are_min_of_items_and_max_parallel(n: int, p: int) -> None:
    """Whichever of the two limits is the lower one, that of the window or that of the run."""
    for plan_ in (over_groups(p, 10_000), over_groups(10_000, p)):
        assert drive(Stage(plan_, {"xs": list(range(n))})) == min(n, p)


@pytest.mark.parametrize("around", [1, names.FOREACH_MAX_PARALLEL, names.RUN_MAX_PARALLEL, names.SCHEDULER_ITEMS_MAX])
def test_otp_n4_one_item_more_changes_nothing_else(around: int) -> None:
    """The same groups over n − 1, n and n + 1 items: the same function of the list."""
    for n in (around - 1, around, around + 1) if around < 100 else (around, around + 1):
        stage = Stage(over_groups(8, 16), {"xs": list(range(n))})
        drive(stage)
        found = stage.read(stage.run.get("g").output)  # type: ignore[union-attr, arg-type]
        assert found["items"] == [{"x": f"g[{index}]/a"} for index in range(n)]
        assert found["counts"] == {"total": n, "succeeded": n, "failed": 0, "skipped": 0}


@pytest.mark.parametrize("size", [1, 65_535, 65_537, 99_999, 100_001, 10_000_000])
def test_otp_n4_a_value_goes_through_groups_loops_and_cases_whatever_its_size(size: int) -> None:
    """By reference or not: the step after is given the same, and an executor is asked where the scheduler may not."""
    inner = {"a": tool()}
    given = {"outputs": {"v": "${{ steps.a.output }}"}}
    steps: dict[str, Any] = {
        "g": {"steps": inner, **given},
        "w": {"steps": inner, **given, "until": "iteration >= 0", "max_iterations": 2},
        "r": {"switch": [{"when": "size(inputs.x) >= 0", "steps": inner, **given}]},
        "last": tool(**{"with": {name: f"${{{{ steps.{name}.output.v }}}}" for name in ("g", "w", "r")}}),
    }
    stage = Stage(plan(steps, inputs={"x": {}}), {"x": ""})
    value = by_reference(b'"' + b"x" * (size - 2) + b'"') if size > names.INLINE_BYTES_MAX else "x" * max(0, size - 2)
    stage.settle()
    for _ in range(20):
        for path in stage.running():
            if path.endswith("/a"):
                stage.succeed(path, value)
            elif path.endswith("?outputs"):
                bound = stage.order(path).bindings["steps.a.output"]
                assert bound.ref and bound.size == size
                stage.succeed(path, by_reference(b'{"v":"' + b"x" * (size - 2) + b'"}'))
            elif "?" in path:
                stage.succeed(path, True)
        stage.settle()
        if stage.running() == ["last"]:
            break
    assert stage.running() == ["last"]
    for name in ("g", "w", "r"):
        output = stage.run.get(name).output  # type: ignore[union-attr]
        assert output is not None
        if output.ref:
            assert output.size == size + len('{"v":}')
        else:
            assert stage.read(output) == {"v": "x" * max(0, size - 2)}


@pytest.mark.parametrize("place", ["group", "case", "while", "items"])
@pytest.mark.parametrize(("condition", "ends"), [("true", "succeeded"), ("false", "skipped"), ("inputs.n", "failed")])
def test_otp_n7_every_form_of_condition_has_a_verdict(place: str, condition: str, ends: str) -> None:
    """True runs it, false skips it with a reason, anything else fails it; the run never crashes."""
    inner = {"steps": {"a": tool()}}
    step: dict[str, Any] = {
        "group": {"when": condition, **inner},
        "case": {"switch": [{"when": condition, **inner}]},
        "while": {"while": f"{condition} && iteration < 1" if ends == "succeeded" else condition, "max_iterations": 2}
        | inner,
        "items": {"foreach": [1], "when": f"item == 1 ? {condition} : false", **inner},
    }[place]
    stage = Stage(plan({"s": step | {"on_error": "continue"}}, inputs={"n": {}}), {"n": 1})
    drive(stage)
    if ends == "skipped" and place in ("while", "items"):
        ends = "succeeded"  # a loop without an iteration, a list whose only item is skipped
    assert stage.status("s") == ends
    if ends == "failed":
        assert stage.run.get("s").failure.code == "type_mismatch"  # type: ignore[union-attr]
    if ends == "skipped":
        assert next(event.reason for event in stage.events(ev.StepSkipped))


FORMS: dict[str, dict[str, Any]] = {
    "group": {},
    "while": {"while": "iteration < 2", "max_iterations": 3},
    "until": {"until": "iteration == 1", "max_iterations": 3},
    "foreach": {"foreach": [1, 2]},
    "nested": {"foreach": [1, 2]},
    "switch": {},
}
TOLERANCES: dict[str, tuple[dict[str, Any], dict[str, Any], str, bool]] = {
    "nothing": ({}, {}, "failed", False),
    "inside": ({"on_error": "continue"}, {}, "completed", True),
    "outside": ({}, {"on_error": "continue"}, "completed", True),
    "items": ({}, {"on_item_error": "continue"}, "completed", True),
}
"""What tolerates the failure: keys of the step inside, of the step around, how the run ends, and whether degraded."""


@pytest.mark.parametrize(
    ("form", "tolerance"),
    [(form, how) for form in FORMS for how in TOLERANCES if how != "items" or "foreach" in FORMS[form]],
)
def test_otp_n10_a_failed_step_inside_fails_what_is_around_it_unless_that_says_otherwise(
    form: str, tolerance: str
) -> None:
    """The truth table; and what goes on all the same is degraded, and says so."""
    inside, outside, status, degraded = TOLERANCES[tolerance]
    steps: dict[str, Any] = {"a": tool(retry={"attempts": 1}) | inside}
    if form == "nested":
        steps = {"deep": {"steps": steps}}
    body: dict[str, Any] = {"switch": [{"default": {"steps": steps}}]} if form == "switch" else {"steps": steps}
    stage = Stage(plan({"s": body | FORMS[form] | outside}))
    drive(stage, lambda path: "broken" if path.endswith("/a") else "")
    assert stage.run.status == status
    last = stage.events()[-1]
    if status == "failed":
        assert isinstance(last, ev.RunFailed) and last.failure.code == "broken" and last.path == "s"
        return
    assert isinstance(last, ev.RunCompleted) and last.degraded is degraded
    ends = [event for event in stage.events() if getattr(event, "path", "") == "s"]
    assert isinstance(ends[-1], ev.StepFailed if tolerance == "outside" else ev.StepCompleted)
    assert getattr(ends[-1], "degraded", True)


@pytest.mark.parametrize(("over", "status"), [({}, "failed"), ({"on_limit": "ok"}, "completed")])
def test_otp_n10_a_loop_at_its_limit_is_a_failure_unless_told_otherwise(over: dict[str, Any], status: str) -> None:
    """And with `on_limit: ok` it is a plain success."""
    stage = Stage(plan({"s": tool(**{"while": "true"}, max_iterations=2) | over}))
    drive(stage)
    assert stage.run.status == status
    assert status == "failed" or not stage.run.degraded
