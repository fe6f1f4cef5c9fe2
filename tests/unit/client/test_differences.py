"""Two histories side by side, both made by the scheduler's own core."""

from typing import Any

import msgspec
from tests.builders import NOON_MS, decided, plan, run_created, tool
from tests.unit.scheduler.stage import Stage

from headrace.client.differences import Differences, compare, differences_json, value_hash
from headrace.contracts import codec
from headrace.contracts import events as ev
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import inline
from headrace.contracts.envelope import Part, Value
from headrace.contracts.failure import Failure

STEPS = {"a": tool(), "b": tool(), "c": tool(**{"with": {"x": "${{ [steps.a.output, steps.b.output, inputs.n] }}"}})}


def ran(
    *ends: tuple[str, Any], n: int = 1, run: str = "one", late_ms: int = 0, steps: dict[str, Any] | None = None
) -> Stage:
    """A run whose steps ended so, in this order; an exception is a failure of that code."""
    stage = Stage(plan(steps or STEPS, inputs={"n": {}}), {"n": n}, run=run)
    stage.later(late_ms).settle()
    for path, value in ends:
        stage.later(late_ms)
        if isinstance(value, Exception):
            stage.fail(path, str(value))
        else:
            stage.succeed(path, value)
        stage.settle()
        if isinstance(value, Exception) and stage.status(path) == "sleeping":
            stage.until_due()
            stage.settle()
    return stage


def between(one: Stage, two: Stage) -> Differences:
    """What differs."""
    return compare(enumerate(one.log, start=1), enumerate(two.log, start=101))


def test_ids_times_and_the_order_of_steps_side_by_side_are_no_difference() -> None:
    """The same work under another id, at another pace."""
    one = ran(("a", 1), ("b", 2), ("c", 3))
    two = ran(("b", 2), ("a", 1), ("c", 3), run="two", late_ms=700)
    found = between(one, two)
    assert found.none
    assert found.steps == []
    assert set(found.run) == {"duration_ms"}


def test_the_first_difference_is_the_earliest_event_that_the_other_has_not() -> None:
    """Not what follows from it: `c` differs because `a` did."""
    found = between(ran(("b", 2), ("a", 1), ("c", 3)), ran(("b", 2), ("a", 9), ("c", 4), run="two"))
    first = found.first
    assert first is not None and first == found.step
    assert (first.path, first.differs) == ("a", ("output",))
    assert first.a is not None and first.a["output"] == sha256_hex(b"1")
    assert first.a_seq < 100 < first.b_seq
    assert [step.path for step in found.steps] == ["a", "c"]
    assert found.steps[0].fields["output"] == (sha256_hex(b"1"), sha256_hex(b"9"))


def test_an_event_that_only_one_has_is_a_difference() -> None:
    """A retry on the way to the same result."""
    found = between(ran(("a", 1), ("b", 2), ("c", 3)), ran(("a", OSError("unavailable")), ("a", 1), ("b", 2), ("c", 3)))
    assert found.first is not None
    assert (found.first.path, found.first.a and found.first.a["event"], found.first.b and found.first.b["event"]) == (
        "a",
        "step.completed",
        "timer.set",
    )
    assert found.steps[0].fields["attempts"] == (1, 2)
    shorter = between(ran(("a", 1)), ran(("a", 1), ("b", 2)))
    assert shorter.first is not None
    assert (shorter.first.path, shorter.first.a, shorter.first.a_seq) == ("b", None, 0)


def test_other_inputs_differ_first_and_the_first_step_is_told_too() -> None:
    """The beginning of a run is an event as well."""
    found = between(ran(("a", 1), ("b", 2), ("c", 3)), ran(("a", 1), ("b", 2), ("c", 4), n=2, run="two"))
    assert found.first is not None and found.step is not None
    assert (found.first.path, found.first.differs) == ("", ("inputs",))
    assert found.step.path == "c"
    assert set(found.run) >= {"inputs"}


def test_another_definition_is_a_difference_of_the_beginning() -> None:
    """And a step that only one has is absent in the other."""
    more = STEPS | {"d": tool()}
    found = between(ran(("a", 1), ("b", 2), ("c", 3)), ran(("a", 1), ("b", 2), ("d", 0), ("c", 3), steps=more))
    assert found.first is not None and found.first.differs == ("defdigest",)
    assert [(step.path, step.fields["status"]) for step in found.steps] == [("d", ("absent", "completed"))]


def test_a_value_is_the_same_inline_and_by_reference_whoever_holds_it() -> None:
    """Content counts, and of an item of a long list its place."""
    data = codec.encode_value({"b": 1, "a": [1.0]})
    held = [Value(ref=f"{run}/{sha256_hex(data)}", size=len(data)) for run in ("one", "two")]
    assert len({value_hash(value) for value in (inline({"a": [1.0], "b": 1}), *held)}) == 1
    assert value_hash(Value(ref="r/ff", index=0)) != value_hash(Value(ref="r/ff", index=1))
    items = [
        Value(
            json=msgspec.Raw(codec.encode_value([{"status": "succeeded", "value": {"ref": f"{run}/ff", "size": 9}}])),
            form="items",
        )
        for run in ("one", "two")
    ]
    assert value_hash(items[0]) == value_hash(items[1])


def test_failures_differ_by_their_codes_and_tokens_are_counted() -> None:
    """The text of a failure may name ids and instants."""

    def failed(code: str, message: str) -> list[tuple[int, ev.StoredMessage]]:
        failure = ev.RunFailed(failure=Failure(code=code, message=message))
        return [(1, decided(1, run_created())), (2, decided(2, failure, at_ms=NOON_MS))]

    assert compare(failed("denied", "by one"), failed("denied", "by two")).none
    found = compare(failed("denied", ""), failed("timeout", ""))
    assert found.first is not None and found.first.differs == ("failure",)
    assert found.run["failure"] == ("denied", "timeout")


def test_the_differences_are_plain_data() -> None:
    """For programs: every pair is the first run's and the second's."""
    made = differences_json(between(ran(("a", 1)), ran(("a", 2))))
    assert made["first"]["path"] == "a"
    assert list(made["steps"][0]["fields"]["output"]) == [sha256_hex(b"1"), sha256_hex(b"2")]


def test_what_was_taken_over_is_compared_by_its_end() -> None:
    """How it came about is told in the other run alone: retries, items, what it cost."""
    steps = STEPS | {"each": {"foreach": "${{ [1, 2] }}", **tool()}}
    ends = (("a", OSError("unavailable")), ("a", 1), ("b", 2), ("each[0]", 0), ("each[1]", 0), ("c", 3))
    one = ran(*ends, steps=steps)
    assert one.run.status == "completed"
    outputs = {path: one.run.insts[path] for path in ("a", "b", "each")}
    found = tuple(
        ev.Taken(path=path, status="succeeded", attempt=inst.attempt, output=inst.output)
        for path, inst in outputs.items()
    )
    forked = ev.RunForked(origin="one", seq=9, version=3, step="c", taken=found)
    two = Stage(one.plan, {"n": 1}, run="two", forked=forked)
    two.settle()
    two.succeed("c", 3)
    two.settle()
    assert between(one, two).none and not between(one, two).steps
    two = Stage(one.plan, {"n": 1}, run="two", forked=forked)
    two.settle()
    two.succeed("c", 4)
    two.settle()
    assert [step.path for step in between(one, two).steps] == ["c"]


def test_who_held_results_and_which_message_answered_is_no_difference() -> None:
    """Events name blobs of their own run, and ids of messages."""

    def history(run: str, comment: str = "fine") -> list[tuple[int, ev.StoredMessage]]:
        part = Part(ref=f"{run}/{sha256_hex(run.encode())}", size=9, count=1000)
        stored = ev.ItemsStored(path="each", first=0, results=part)
        granted = ev.ApprovalGranted(path="ok", answer=sha256_hex(run.encode())[:32], by="lead", comment=comment)
        return [(1, decided(1, run_created())), (2, decided(2, stored, granted))]

    assert compare(history("one"), history("two")).none
    found = compare(history("one"), history("two", comment="no")).first
    assert found is not None and (found.path, found.differs) == ("ok", ("comment",))
