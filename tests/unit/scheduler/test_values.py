"""Names whose values the engine makes: `now()`, `run.attempt`, `steps.<id>.items`."""

from typing import Any

import msgspec
import pytest
from tests.builders import NOON_MS, by_reference, plan, tool
from tests.unit.scheduler.stage import LEFT_NONE, Stage

from headrace.contracts.codec import decode_as, encode, inline, plain
from headrace.contracts.envelope import ItemResult, Value
from headrace_scheduler.values import has_long_list, is_small, materialise
from headrace_step_executor.render import Bound, RenderJob, render

NOW = {"at": "${{ now() }}"}
AT = "2025-11-25T12:00:00Z"
LATER = "2025-11-25T12:01:00Z"


def begun(steps: dict[str, Any], given: dict[str, Any] | None = None, **top: Any) -> Stage:
    """A run with everything decided that can be."""
    stage = Stage(plan(steps, **top), given)
    stage.settle()
    return stage


# --- now() ---------------------------------------------------------------------------------------


def test_now_is_the_instant_of_the_decision_and_is_in_the_log() -> None:
    """Whatever time it is when the log is read again; the run's outputs have the instant of its end."""
    steps = {"a": {"transform": NOW}, "b": {"needs": ["a"], "wait": {"for": "1m"}}}
    stage = begun(steps, outputs={"a": "${{ steps.a.output.at }}", "end": "${{ now() }}"})
    stage.later(60_000).settle()
    assert stage.outputs() == {"a": AT, "end": LATER}
    assert encode(stage.folded()) == encode(stage.run)


@pytest.mark.parametrize("uses", ["in the scheduler", "in an executor"])
def test_an_order_that_is_derived_again_says_the_same_instant(uses: str) -> None:
    """An hour later, by another owner; the next attempt has its own."""
    text = "${{ now() }}" if uses == "in the scheduler" else "${{ text(now()) + file('x') }}"
    stage = Stage(plan({"a": tool(**{"with": {"at": text}})}))
    decision = stage.propose()
    assert decision is not None
    stage.store(decision, orders=False)
    first = stage.order("a")
    stage.run.unordered["a"] = None  # as if the order had been lost
    assert encode(stage.later(3_600_000).missing()["a"]) == encode(first)
    stage.now_ms = NOON_MS + 10
    stage.fail("a")
    stage.settle()
    stage.until_due()
    stage.settle()
    second = stage.order("a")
    assert second.attempt == 2
    given = plain(second.input)["at"] if isinstance(second.input, msgspec.Raw) else second.bindings["now"]
    assert given != (plain(first.input)["at"] if isinstance(first.input, msgspec.Raw) else first.bindings["now"])


def test_an_order_that_was_deferred_says_the_instant_at_which_it_was_scheduled() -> None:
    """It is the same attempt, so it is given the same."""
    stage = begun({"a": tool(**{"with": NOW})})
    first = stage.order("a")
    stage.defer("a", 5_000)
    stage.settle()
    stage.later(5_000).settle()
    again = stage.order("a")
    assert (again.offer, again.input) == (2, first.input)


def test_a_condition_that_asks_the_time_is_asked_again_until_it_is_acted_on() -> None:
    """Where there was no room, nothing was decided; what then holds is what counts."""
    stage = Stage(plan({"a": tool(when=f"now() < timestamp('{LATER}')")}))
    stage.settle(left=LEFT_NONE)
    assert stage.status("a") == "ready"
    stage.later(60_000).settle()
    assert stage.status("a") == "skipped"


def test_an_executor_says_the_instant_it_was_told() -> None:
    """Not its own clock's."""
    job = RenderJob(
        template=b'{"at":"${{ now() }}"}', bindings=(Bound(name="now", data=b"%d" % NOON_MS),), home="", read_roots=()
    )
    assert render(job).output == b'{"at":"%s"}' % AT.encode()


# --- run.attempt ---------------------------------------------------------------------------------


def test_run_attempt_is_one_or_that_of_the_step_that_started_the_run() -> None:
    """It is in the run's creation."""
    steps = {"a": {"transform": "${{ run.attempt }}"}}
    assert begun(steps).output("a") == 1
    child = Stage(plan(steps), attempt=3, parent="p", parent_path="c")
    child.settle()
    assert child.output("a") == 3


# --- items ---------------------------------------------------------------------------------------

MAP = tool(foreach="inputs.xs", on_item_error="continue", when="item != 2")
XS: dict[str, Any] = {"inputs": {"xs": {"type": "array"}}}


def mapped() -> Stage:
    """A map of which one item gave a value, one failed and one was skipped."""
    read = {"transform": "${{ steps.m.items.map(i, i.status) }}"}
    stage = begun({"m": MAP, "all": {"transform": "${{ steps.m.items }}"}, "read": read}, {"xs": [1, 2, 3]}, **XS)
    stage.succeed("m[0]", {"n": 1})
    stage.fail("m[2]", "denied", retryable=False)
    stage.settle()
    return stage


def test_items_of_a_map_say_how_each_ended() -> None:
    """In the order of the list, under the names that a step has."""
    stage = mapped()
    assert stage.output("read") == ["succeeded", "skipped", "failed"]
    first, second, third = stage.output("all")
    assert first == {"status": "succeeded", "output": {"n": 1}, "error": None}
    assert second == {"status": "skipped", "output": None, "error": None}
    assert (third["output"], third["error"]["code"]) == (None, "denied")


def test_items_that_are_held_by_reference_are_read_by_an_executor() -> None:
    """The order carries the results; rendering them gives what the scheduler would."""
    stage = begun({"m": MAP, "all": {"transform": "${{ steps.m.items }}"}}, {"xs": [1, 2, 3]}, **XS)
    stage.succeed("m[0]", by_reference(b"x" * 70_000))
    stage.fail("m[2]", "denied", retryable=False)
    stage.settle()
    order = stage.order("all")
    bound = order.bindings["steps.m.items"]
    assert bound.form == "results" and isinstance(bound.json, msgspec.Raw)
    (ref,) = [one.value.ref for one in decode_as(list[ItemResult], bytes(bound.json)) if one.value is not None]
    job = RenderJob(
        template=bytes(order.template),  # type: ignore[arg-type]  # it is set
        bindings=(Bound(name="steps.m.items", data=bytes(bound.json), form="results", stored={ref: b'{"n":1}'}),),
        home="",
        read_roots=(),
    )
    assert plain(msgspec.Raw(render(job).output)) == mapped().output("all")


def test_a_map_that_failed_has_no_items() -> None:
    """As it has no output: reading them fails unless it is optional."""
    steps = {
        "m": tool(foreach="inputs.xs", on_error="continue"),
        "a": {"transform": "${{ steps.m.?items.orValue([]) }}"},
    }
    stage = begun(steps, {"xs": [1]}, **XS)
    stage.fail("m[0]", "denied", retryable=False)
    stage.settle()
    assert stage.output("a") == []


def test_results_count_as_a_long_list() -> None:
    """A thousand are the scheduler's most, as of every list."""
    results = [ItemResult(status="succeeded", value=inline(n)) for n in range(1_001)]
    value = Value(json=msgspec.Raw(encode(results)), form="results")
    assert is_small({"x": value}) and has_long_list({"x": value})
    assert materialise({"x": value})["x"][7] == {"status": "succeeded", "output": 7, "error": None}
