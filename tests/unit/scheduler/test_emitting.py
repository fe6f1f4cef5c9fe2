"""Steps that publish an event: once, under one id, and not for ever. And `event` in expressions."""

from typing import Any

import msgspec
import pytest
from tests.builders import plan, tool
from tests.unit.scheduler.stage import Stage

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.codec import decode, inline, plain
from headrace_scheduler import outbox
from headrace_scheduler.damage import doubt


def emitting(data: Any = None, **over: Any) -> dict[str, Any]:
    """A step that publishes."""
    return {"emit": {"name": "told", "data": data}} | over


def of(steps: dict[str, Any], *, run: dict[str, Any] | None = None, **top: Any) -> Stage:
    """A run of these steps, with everything decided that can be."""
    stage = Stage(plan(steps, **top), **(run or {}))
    stage.settle()
    return stage


def stored(stage: Stage, path: str = "e") -> bool:
    """The broker has the event, and the owner says so."""
    inst = stage.run.get(path)
    assert inst is not None
    made = decode(outbox.published(stage.run, inst, source="/x", now_ms=stage.now_ms).body)
    assert isinstance(made, ev.EventPublished)
    return stage.append(made)


def test_a_step_ends_when_the_broker_has_its_event() -> None:
    """The message is a function of the log: the same bytes in every process, at any time."""
    stage = of({"a": {"transform": {"n": 3}}, "e": emitting({"n": "${{ steps.a.output.n }}"})})
    assert stage.status("e") == "sleeping" and outbox.is_unsettled(stage.run)
    inst = stage.run.get("e")
    assert inst is not None
    event = outbox.cloud_event(stage.run, inst)
    body = msgspec.json.decode(event.body)
    assert event.subject == "hr.trig.default.told"
    assert (body["id"], body["type"], body["data"], body["headracehops"]) == (event.id, "told", {"n": 3}, 1)
    stage.later(60_000)
    again = stage.folded(snapshot_at=len(stage.log) - 1).get("e")
    assert again is not None and outbox.cloud_event(stage.run, again) == event
    assert stored(stage)
    stage.settle()
    assert stage.run.status == "completed" and not outbox.is_unsettled(stage.run)


def test_hearing_of_it_twice_is_hearing_of_it_once_and_never_is_damage() -> None:
    """A second owner may have published it too."""
    stage = of({"e": emitting()})
    told = len(stage.log)
    assert stored(stage)
    assert not stored(stage)
    stage.settle()
    ended = next(made for made in stage.log[told:] if isinstance(made, ev.RunDecided))
    assert "which is missing" not in doubt(stage.folded(upto=told + 1), ended)
    assert "that is missing" in doubt(stage.folded(upto=told), ended)


def test_each_item_and_each_attempt_of_a_group_has_an_event_of_its_own() -> None:
    """Otherwise the second would start nothing."""
    inner = {"e": emitting(), "bad": tool(needs=["e"], retry={"attempts": 1})}
    stage = of({"g": {"steps": inner, "retry": {"attempts": 2, "initial": "1s"}}, "m": emitting(foreach=[1, 2])})
    for path in ("g/e", "m[0]", "m[1]"):
        stored(stage, path)
    stage.settle()
    stage.fail("g/bad")
    stage.settle()
    stage.later(5_000).settle()
    started = stage.events(ev.EmitStarted)
    assert sorted(event.path for event in started) == ["g#2/e", "g/e", "m[0]", "m[1]"]
    assert len({event.event for event in started}) == 4


def test_events_that_lead_to_events_for_ever_are_refused_with_the_reason() -> None:
    """The bound is in the text, and what to do instead."""
    stage = of({"e": emitting()}, run={"hops": names.EVENT_HOPS_MAX - 1})
    assert [event.hops for event in stage.events(ev.EmitStarted)] == [names.EVENT_HOPS_MAX]
    stage = of({"e": emitting()}, run={"hops": names.EVENT_HOPS_MAX})
    assert not stage.events(ev.EmitStarted)
    failure = stage.run.failure
    assert failure is not None and failure.code == "hops_limit"
    assert str(names.EVENT_HOPS_MAX) in failure.message and "schedule" in failure.message


def test_an_event_that_no_message_holds_is_refused() -> None:
    """With its size."""
    stage = of({"e": emitting("x" * 70_000)})
    assert stage.run.failure is not None and stage.run.failure.code == "too_large"


def test_a_cancelled_run_publishes_nothing_more() -> None:
    """What was on its way may still be stored, which changes nothing here."""
    stage = of({"e": emitting()})
    inst = stage.run.get("e")
    assert inst is not None
    made = decode(outbox.published(stage.run, inst, source="/x", now_ms=stage.now_ms).body)
    stage.control("cancel")
    stage.settle()
    assert stage.run.status == "cancelled"
    assert isinstance(made, ev.EventPublished) and not stage.append(made)


@pytest.mark.parametrize(
    ("event", "source", "value"),
    [
        ({"id": "e1", "data": {"n": 3}}, "event.data.n + 1", 4),
        ({"id": "e1", "data": {"n": 3}}, "event.id", "e1"),
        ({"id": "e1", "data": {}}, "event.data.?n.orValue(7)", 7),
        (None, "event.?data.?n.orValue(7)", 7),
        (None, "has(event.data)", False),
    ],
)
def test_a_run_sees_what_triggered_it(event: Any, source: str, value: Any) -> None:
    """And one that nothing triggered can ask whether something has."""
    run = {} if event is None else {"event": inline(event)}
    stage = of({"t": {"transform": "${{ " + source + " }}"}}, run=run, outputs={"t": "${{ steps.t.output }}"})
    assert stage.outputs() == {"t": value}


def test_a_run_that_nothing_triggered_has_no_data_and_says_so() -> None:
    """The step fails at the expression."""
    stage = of({"t": {"transform": "${{ event.data }}"}})
    failure = stage.run.failure
    assert failure is not None and failure.code == "expr_eval" and "there is no `data`" in failure.message


def test_what_an_event_says_is_in_its_decision() -> None:
    """Rendered then, and never again."""
    stage = of({"e": emitting("${{ run.id }}")})
    (started,) = stage.events(ev.EmitStarted)
    assert plain(started.data.json) == stage.run_id
