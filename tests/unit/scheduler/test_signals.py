"""Steps that wait for a signal: which comes late, early, twice, or not at all."""

from typing import Any

import pytest
from tests.builders import by_reference, plan, tool
from tests.unit.scheduler.stage import Stage

from headrace.contracts import events as ev
from headrace.contracts.errors import NotFoundError
from headrace_scheduler.damage import doubt
from headrace_scheduler.signalling import refusals


def waiting(name: str = "go", **over: Any) -> dict[str, Any]:
    """A step that waits for a signal."""
    step = {key: over.pop(key) for key in ("needs", "fallback", "foreach", "max_parallel") if key in over}
    return {"signal": {"name": name, **over}, **step}


def of(steps: dict[str, Any], **top: Any) -> Stage:
    """A run of these steps, with everything decided that can be."""
    stage = Stage(plan(steps, **top))
    stage.settle()
    return stage


def test_a_step_waits_for_its_signal_and_gives_its_payload() -> None:
    """Time alone does nothing; another name does nothing."""
    stage = of({"s": waiting(), "other": waiting("stop")}, outputs={"s": "${{ steps.s.output.n }}"})
    assert stage.status("s") == "sleeping"
    stage.signal("go", {"n": 3})
    stage.settle()
    assert stage.status("s") == "succeeded" and stage.status("other") == "sleeping"
    stage.signal("stop", cause="two")
    stage.settle()
    assert stage.outputs() == {"s": 3}
    assert [(event.path, event.name) for event in stage.events(ev.SignalTaken)] == [("s", "go"), ("other", "stop")]


def test_a_signal_that_comes_before_its_step_waits_for_it() -> None:
    """However early; it is no reason to decide anything."""
    stage = of({"a": tool(), "s": waiting(needs=["a"])})
    stage.signal("go", 7)
    assert stage.decide() is None
    stage.succeed("a")
    stage.settle()
    assert stage.run.status == "completed"
    assert not stage.events(ev.SignalAwaited)
    assert stage.run.signals == {"go": []}


def test_the_same_signal_sent_twice_is_two_and_delivered_twice_is_one() -> None:
    """Each is taken once, in the order in which they came, by the first that waits."""
    steps = {"m": waiting(foreach=[1, 2], max_parallel=1), "last": waiting(needs=["m"])}
    stage = of(steps, outputs={"m": "${{ steps.m.output.items }}", "last": "${{ steps.last.output }}"})
    assert stage.signal("go", "a", cause="one")
    assert not stage.signal("go", "a", cause="one")
    stage.settle()
    assert stage.status("m[1]") == "sleeping"
    stage.signal("go", "b", cause="two")
    stage.signal("go", "c", cause="three")
    stage.settle()
    assert stage.outputs() == {"m": ["a", "b"], "last": "c"}


@pytest.mark.parametrize(("over", "status"), [({}, "failed"), ({"on_timeout": "skip"}, "skipped")])
def test_a_signal_that_does_not_come_in_time_fails_or_skips_its_step(over: dict[str, Any], status: str) -> None:
    """And one that comes just before the time is looked at counts."""
    stage = of({"s": waiting(timeout="1m", **over)})
    assert stage.until_due() == stage.decisions[0].at_ms + 60_000
    stage.settle()
    assert stage.status("s") == status
    if status == "failed":
        assert stage.run.failure is not None and stage.run.failure.code == "timeout"
    stage = of({"s": waiting(timeout="1m", **over)})
    stage.signal("go")
    stage.later(60_000).settle()
    assert stage.status("s") == "succeeded"


def test_something_may_stand_in_for_a_signal() -> None:
    """The result is degraded."""
    stage = of({"s": waiting(timeout="1s", fallback={"value": "none"})}, outputs={"s": "${{ steps.s.output }}"})
    stage.later(1_000).settle()
    assert stage.outputs() == {"s": "none"}
    assert stage.events()[-1].degraded


def test_a_log_without_the_signal_that_a_decision_takes_is_damaged() -> None:
    """A reader never goes on with a guess."""
    stage = of({"s": waiting()})
    run = stage.folded()
    stage.signal("go")
    stage.settle()
    taken = next(made for made in stage.log if isinstance(made, ev.RunDecided) and made.data.version == run.version + 1)
    assert "which is missing" in doubt(run, taken)
    assert doubt(stage.folded(upto=stage.log.index(taken)), taken) == ""


def test_a_large_payload_is_an_output_as_any_other() -> None:
    """By reference."""
    stage = of({"s": waiting()})
    stage.signal("go", by_reference(b'"x"'))
    stage.settle()
    assert stage.run.status == "completed"


def test_what_is_sent_must_be_waited_for_and_fit() -> None:
    """Every reason at once; a name that no step waits for says which there are."""
    schema = {"type": "object", "required": ["ok", "by"], "properties": {"ok": {"type": "boolean"}}}
    made = plan({"s": waiting(schema=schema)})
    assert refusals(made, "go", {"ok": True, "by": "ann"}) == ()
    found = refusals(made, "go", {"ok": 3})
    assert [failure.code for failure in found] == ["payload_invalid", "payload_invalid"]
    assert any("/ok" in failure.message for failure in found)
    with pytest.raises(NotFoundError, match="it knows go"):
        refusals(made, "gone", None)
